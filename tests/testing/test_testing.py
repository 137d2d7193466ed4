"""`check_cell` passes good cells and names the law that a bad one breaks."""

import dataclasses
import io
import logging
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import FunctionCell, testing
from jaxrnn.testing import check_cell

STEP = jax.ShapeDtypeStruct((4, 3), jnp.float32)


def scale(key, inputs, dtype=None):
    return {"w": jnp.ones((3,), dtype)}


def cell_of(step, state_size=3, output_size=3):
    return FunctionCell(step, state_size, output_size, scale)


def good(params, inputs, state, key=None):
    state = jnp.tanh(params["w"][None] * inputs + state)
    return state, state


def one_result(params, inputs, state, key=None):
    return state


def wrong_output_size(params, inputs, state, key=None):
    return state[:, :2], state


def wrong_state_dtype(params, inputs, state, key=None):
    return state, state.astype(jnp.bfloat16)


def rows_meet(params, inputs, state, key=None):
    state = state + params["w"][None] * inputs.mean(0, keepdims=True)
    return state, state


def knows_its_row(params, inputs, state, key=None):
    row = np.arange(len(inputs), dtype=inputs.dtype)[:, None]
    state = state + params["w"][None] * inputs * row
    return state, state


def undefined_at_zero(params, inputs, state, key=None):
    state = jnp.tanh(params["w"][None] * jnp.log(jnp.abs(inputs)) + state)
    return state, state


@jax.custom_vjp
def reverse_only(x):
    return jnp.tanh(x)


def _forward(x):
    return jnp.tanh(x), x


def _backward(x, ct):
    return (ct * (1 - jnp.tanh(x) ** 2),)


reverse_only.defvjp(_forward, _backward)


def no_forward_mode(params, inputs, state, key=None):
    state = reverse_only(params["w"][None] * inputs + state)
    return state, state


def noise_without_a_key(params, inputs, state, key=None):
    noise = np.random.default_rng().normal(size=inputs.shape).astype(inputs.dtype)
    state = state + params["w"][None] * noise
    return state, state


class Own(jaxrnn.RNNCell):
    """A good cell, of which each subclass breaks a law."""

    state_size = output_size = 3
    init = staticmethod(scale)
    apply = staticmethod(good)


@dataclasses.dataclass(frozen=True)
class Unhashable(Own):
    """A field that has no hash."""

    sizes: list


class InitsFromValues(Own):
    """Looks at the inputs' values."""

    init = staticmethod(lambda key, inputs, dtype=None: {"w": inputs[0] * 1.0})


class StartsAtOne(Own):
    """A zero state that is not zero."""

    def zero_state(self, batch_size, dtype):
        return jnp.ones((batch_size, 3), dtype)


class BindsAnother(Own):
    """Is run as a cell of another class."""

    def bind(self, params, key=None):
        return cell_of(good).bind(params, key)


class NeverStartsAgain(jaxrnn.BasicRNNCell):
    """Runs whole sequences as if there were no resets."""

    def apply_sequence(self, params, run):
        steps = dataclasses.replace(run.steps, restarts=None)
        return super().apply_sequence(params, run.replace(steps=steps))


class LosesStates(jaxrnn.BasicRNNCell):
    """Returns zeros for the states of all steps."""

    def apply_sequence(self, params, run):
        results, last = super().apply_sequence(params, run)
        if run.steps.returns_states:
            results = results[0], jnp.zeros_like(results[1])
        return results, last


class MultipliesByZero(jaxrnn.BasicRNNCell):
    """Adds 0 times the inputs of all steps to each output."""

    def apply_sequence(self, params, run):
        results, last = super().apply_sequence(params, run)
        inputs = run.steps.zero_dead(run.inputs)
        total = jnp.sum(inputs, axis=(run.steps.axis, 2), keepdims=True)
        return run.steps.map_outputs(lambda y: y + 0 * total, results), last


BROKEN = {
    "unhashable": (Unhashable([3]), "is_a_value"),
    "inits_from_values": (InitsFromValues(), "inits_from_shapes"),
    "starts_at_one": (StartsAtOne(), "has_its_sizes"),
    "output_size": (cell_of(wrong_output_size), "has_its_sizes"),
    "state_dtype": (cell_of(wrong_state_dtype), "has_its_sizes"),
    "one_result": (cell_of(one_result), "has_its_sizes"),
    "hidden_noise": (cell_of(noise_without_a_key), "(keeps_rows_apart|runs_as_a_loop)"),
    "undefined_at_zero": (cell_of(undefined_at_zero), "runs_as_a_loop"),
    "no_forward_mode": (cell_of(no_forward_mode), "differentiates_twice"),
    "binds_another": (BindsAnother(), "runs_a_subclass"),
    "no_resets": (NeverStartsAgain(2), "starts_again_at_resets"),
    "no_states": (LosesStates(2), "returns_all_states"),
    "nan_goes_back": (MultipliesByZero(2), "spreads_nan_only_forward"),
    "rows_meet": (cell_of(rows_meet), "keeps_rows_apart"),
    "knows_its_row": (cell_of(knows_its_row), "keeps_rows_apart"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.complex64])
def test_a_good_cell_passes(dtype):
    check_cell(cell_of(good), STEP, dtype)


@pytest.mark.fast("[!n]*")  # Laws that compile much find the cells "no_*".
@pytest.mark.parametrize(("cell", "law"), BROKEN.values(), ids=BROKEN)
def test_a_bad_cell_is_told_which_law_it_breaks(cell, law):
    with pytest.raises(AssertionError, match=f"breaks `{law}`"):
        check_cell(cell, STEP)


def test_imaginary_parts_are_compared():
    def rows_meet_there(params, inputs, state, key=None):
        mean = inputs.imag.mean(0, keepdims=True) * params["w"].real[None]
        state = state + jax.lax.complex(jnp.zeros_like(mean), mean)
        return state, state

    with pytest.raises(AssertionError, match="breaks `keeps_rows_apart`"):
        check_cell(cell_of(rows_meet_there), STEP, jnp.complex64)


PROGRESS = [
    "check_cell: law 1 of 19, `is_a_value`",
    "check_cell: law 2 of 19, `inits_from_shapes`",
    "check_cell: law 3 of 19, `has_its_sizes`",
]


def check_one_that_breaks_the_third_law():
    with pytest.raises(AssertionError, match="breaks `has_its_sizes`"):
        check_cell(*BROKEN["output_size"][:1], STEP)


def test_a_terminal_shows_the_law_until_it_was_checked(monkeypatch, caplog):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, "jaxrnn"):
        check_one_that_breaks_the_third_law()
    # Each text replaces the one before, and nothing stays.
    assert re.split("\r\033\\[K", terminal.getvalue()) == ["", *PROGRESS, ""]
    assert not caplog.records


def test_elsewhere_the_logger_reports_the_law(capsys, caplog):
    with caplog.at_level(logging.INFO, "jaxrnn"):
        check_one_that_breaks_the_third_law()
    assert caplog.messages == PROGRESS
    assert capsys.readouterr() == ("", "")


def test_only_the_laws_own_subclass_is_logged_as_a_scan(caplog):
    setup = testing.make_setup(jaxrnn.GRUCell(2), STEP)
    with caplog.at_level(logging.DEBUG, "jaxrnn"):
        testing.runs_a_subclass(setup)
    scans = [text for text in caplog.messages if "'scan'" in text]
    name = "SubclassOfGRUCell"
    reason = f"{name} has no `apply_sequence` of its own"
    assert scans == [f"{name} runs in the loop 'scan', because {reason}"]


LSTM = jaxrnn.LSTMCell(2)
REFUSED = {
    "bound": ({"cell": LSTM.bind({})}, TypeError, "Pass the unbound"),
    "class": ({"cell": jaxrnn.GRUCell}, TypeError, "got the class GRUCell"),
    "list": (
        {"cell": [LSTM, LSTM]},
        TypeError,
        "from several cells with `MultiRNNCell`",
    ),
    "numbers_for_inputs": (
        {"inputs": (4, 3)},
        TypeError,
        r"`inputs\[0\]` must be an array .*, got 4\. For example, pass `jax\.Shape",
    ),
    "one_row": (
        {"inputs": jax.ShapeDtypeStruct((1, 3), jnp.float32)},
        ValueError,
        "at least 4 rows, got",
    ),
    "no_dtype": (
        {"dtype": "zz"},
        TypeError,
        "`dtype` must be a dtype such as jnp.float32, got 'zz'",
    ),
    "no_key": ({"key": 3}, TypeError, "`key` must be a random key, got 3"),
    "one_array_for_two": (
        {"state": jnp.zeros((4, 2), jnp.float32)},
        ValueError,
        r"`state` must .* LSTMStateTuple\(c=\*, h=\*\), got \*, where .* Pass a state",
    ),
    "numbers_for_a_state": (
        {"state": jaxrnn.LSTMStateTuple(3, 3)},
        TypeError,
        r"`state\.c` must be an array, got 3\. Pass a state like",
    ),
    "a_state_of_other_rows": (
        {"state": LSTM.zero_state(3, jnp.float32)},
        ValueError,
        r"`state\.c` must have shape \[4, 2\], got float32\[3, 2\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_argument_is_not_blamed_on_the_cell(name):
    arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=f".*{message}"):
        check_cell(**{"cell": LSTM, "inputs": STEP} | arguments)
