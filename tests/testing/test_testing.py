"""`check_cell` passes good cells and names the law that a bad one breaks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import FunctionCell
from jaxrnn.testing import check_cell
from jaxrnn.testing._oracle import close

STEP = jax.ShapeDtypeStruct((4, 3), jnp.float32)


def scale(key, inputs, dtype=None):
    return {"w": jnp.ones((3,), dtype)}


def cell_of(step):
    """A cell with the state and output `step(scaled inputs, state)`."""

    def apply(params, inputs, state, key=None):
        made = step(params["w"][None] * inputs, state)
        return made if isinstance(made, tuple) else (made, made)

    return FunctionCell(apply, 3, 3, scale)


def good(x, state):
    return jnp.tanh(x + state)


def knows_its_row(x, state):
    return state + x * np.arange(len(x), dtype=x.dtype)[:, None]


def noise_without_a_key(x, state):
    noise = np.random.default_rng().normal(size=x.shape)
    return state + x * noise.astype(x.dtype)


reverse_only = jax.custom_vjp(lambda x: 2 * x)
reverse_only.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))
cannot_map = jax.custom_jvp(lambda x: 2 * x)
cannot_map.defjvp(lambda x, d_x: jax.jvp(reverse_only, x, d_x))


class Own(jaxrnn.RNNCell):
    """A good cell, of which each subclass breaks a law."""

    state_size = output_size = 3
    init = staticmethod(scale)
    apply = staticmethod(cell_of(good).fn)


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


class OtherLoop(jaxrnn.BasicRNNCell):
    """Changes the run, or the results, of whole sequences."""

    def choose_loop(self, params, run):
        return super().choose_loop(params, run).within(self.run_all)

    def run_all(self, loop, params, run):
        return loop(params, run)


class NeverStartsAgain(OtherLoop):
    """Runs whole sequences as if there were no resets."""

    def run_all(self, loop, params, run):
        steps = dataclasses.replace(run.steps, resets=None)
        return loop(params, run.replace(steps=steps))


class LosesStates(OtherLoop):
    """Returns zeros for the states of all steps."""

    def run_all(self, loop, params, run):
        results, last = loop(params, run)
        if run.steps.returns_states:
            results = results[0], jnp.zeros_like(results[1])
        return results, last


class MultipliesByZero(OtherLoop):
    """Adds 0 times the inputs of all steps to each output."""

    def run_all(self, loop, params, run):
        results, last = loop(params, run)
        inputs = run.steps.zero_finished(run.inputs)
        total = jnp.sum(inputs, axis=(run.steps.axis, 2), keepdims=True)
        return run.steps.map_outputs(lambda y: y + 0 * total, results), last


STEPS = {
    "output_size": (lambda x, state: (state[:, :2], state), "has_its_sizes"),
    "hidden_noise": (noise_without_a_key, "(keeps_rows_apart|runs_as_a_loop)"),
    "no_map": (lambda x, h: cannot_map(x + h), "maps_over_an_axis"),
    "no_forward_mode": (lambda x, h: reverse_only(x + h), "differentiates_twice"),
    "rows_meet": (lambda x, h: h + x.mean(0, keepdims=True), "keeps_rows_apart"),
    "knows_its_row": (knows_its_row, "keeps_rows_apart"),
    "nan": (lambda x, h: h + jnp.nan * x, "keeps_rows_apart"),
}
BROKEN = {name: (cell_of(step), law) for name, (step, law) in STEPS.items()} | {
    "one_result": (FunctionCell(lambda p, x, h, key=None: h, 3, 3), "has_its_sizes"),
    "unhashable": (Unhashable([3]), "is_a_value"),
    "inits_from_values": (InitsFromValues(), "inits_from_shapes"),
    "starts_at_one": (StartsAtOne(), "has_its_sizes"),
    "no_resets": (NeverStartsAgain(2), "starts_again_at_resets"),
    "no_states": (LosesStates(2), "returns_all_states"),
    "nan_goes_back": (MultipliesByZero(2), "spreads_nan_only_forward"),
}


def test_infinity_agrees_with_itself_and_nan_with_nothing():
    near = lambda got, want: close(np.array(got), np.array(want), "float64")
    near([-np.inf, 1.0], [-np.inf, 1.0])
    for got, want in ([np.nan], [np.nan]), ([-np.inf, 1.0], [-np.inf, 2.0]):
        with pytest.raises(AssertionError):
            near(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_a_good_cell_passes(dtype):
    check_cell(cell_of(good), STEP, dtype)


@pytest.mark.fast("[!n]*")  # Laws that compile much find the cells "no_*".
@pytest.mark.parametrize(("cell", "law"), BROKEN.values(), ids=BROKEN)
def test_a_bad_cell_is_told_which_law_it_breaks(cell, law):
    with pytest.raises(AssertionError, match=f"breaks `{law}`"):
        check_cell(cell, STEP)


LSTM = jaxrnn.LSTMCell(2)
THREE_ROWS = LSTM.zero_state(3, jnp.float32)
REFUSED = [
    ("Pass the unbound", {"cell": LSTM.bind({})}),
    ("got the class GRUCell", {"cell": jaxrnn.GRUCell}),
    ("at least 4 rows, got", {"inputs": np.ones((1, 3), np.float32)}),
    ("`dtype` must be a dtype such as jnp.float32, got 'zz'", {"dtype": "zz"}),
    ("`key` must be a random key, got 3", {"key": 3}),
    (r"`state` must .*c=\*, h=\*\), got \*, where .* Pass a", {"state": np.ones(4)}),
    (r"`state\.c` must have shape \[4, 2\], got", {"state": THREE_ROWS}),
]


@pytest.mark.parametrize(("message", "given"), REFUSED)
def test_a_wrong_argument_is_not_blamed_on_the_cell(message, given):
    with pytest.raises((TypeError, ValueError), match=f".*{message}"):
        check_cell(**{"cell": LSTM, "inputs": STEP} | given)
