"""Drivers over a list of steps: equal to `dynamic_rnn` if both apply."""
# ruff: noqa: E501 (One error for each line of a table.)

import re

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, static_rnn, static_state_saving_rnn
from jaxrnn._drivers.static_rnn import UNREASONABLE_STEPS
from jaxrnn.testing._oracle import StepByStep, close

F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
X = [np.ones((4, 3), np.float32)] * 2
ZEROS = np.zeros((4, 2), np.float32)
GRU, LSTM = (helpers.bound(cell(2), 3, F32) for cell in (GRUCell, LSTMCell))
SAVER = jaxrnn.StateSaver({"c": ZEROS, "h": ZEROS})


STACK = jaxrnn.MultiRNNCell([LSTMCell(3), GRUCell(2)])
ONES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": F32, "sequence_length": [3, 0]},
        {"initial_state": STACK.zero_state(2, F32)},
    ],
)
def test_equal_steps_are_compiled_once(options):
    params = drawn(STACK, ONES)

    def loss(params, steps):
        outputs, state = static_rnn(STACK.bind(params), steps, **options)
        return sum(jnp.sum(o**2) for o in outputs) + jnp.sum(state[1])

    def products(count):
        program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, [ONES] * count)
        return str(program).count("dot")

    assert products(4) == products(6)


def counting(params, inputs, state, key=None):
    """Sums for each row, the number of steps, and an array of the sums of all rows."""
    total, count, array = state
    total = total + inputs
    return total, (total, count + 1, array.write(count, total))


SCALAR = jaxrnn.TensorShape([])
COUNTER = FunctionCell(counting, (1, SCALAR, SCALAR), 1).bind({})


@pytest.mark.parametrize(
    ("lengths", "steps", "totals"),
    [
        ([2, 1], 2, [3, 10]),
        ([0, 0], 0, [0, 0]),
        ([-3, -1], 0, [0, 0]),
        ([9, 1], 4, [10, 10]),
        ([3, 3], 3, [6, 60]),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_the_three_kinds_of_step(lengths, steps, totals, traced):
    x = np.array([[[1.0], [10]], [[2.0], [20]], [[3.0], [30]], [[4.0], [40]]])
    array = jaxrnn.TensorArray(F64, size=4, element_shape=(2, 1))
    start = np.zeros((2, 1)), np.int32(0), array
    run = lambda n: static_rnn(COUNTER, list(x), start, F64, n)
    outputs, state = (jax.jit(run) if traced else run)(np.asarray(lengths))
    total, count, array = state
    assert (total[:, 0].tolist(), int(count)) == (totals, steps)
    alive = (np.arange(4)[:, None] < np.asarray(lengths))[..., None]
    want = np.where(alive, np.cumsum(x, axis=0), 0)
    np.testing.assert_array_equal(np.stack(outputs), want)
    # Finished rows repeat their first input, so they write finite, unspecified values.
    written = array.stack()
    np.testing.assert_array_equal(np.where(alive, written, 0), want)
    assert np.isfinite(written).all()
    assert not written[steps:].any()


def growing(params, inputs, state, key=None):
    """A step that adds a column to the state."""
    state = jnp.concatenate([state, inputs], axis=-1)
    return state, state


def test_without_lengths_the_state_may_change():
    steps = [np.ones((2, 1)), np.full((2, 2), 2.0)]
    cell = FunctionCell(growing, 0, 1).bind({})
    outputs, state = static_rnn(cell, steps, dtype=F64)
    assert [o.shape for o in outputs] == [(2, 1), (2, 3)]
    assert state[0].tolist() == [1, 2, 2]


def test_a_plain_tuple_comes_back_as_the_cell_returns_it():
    outputs, state = static_rnn(LSTM, tuple(X), (ZEROS, ZEROS))
    assert isinstance(outputs, list)
    assert isinstance(state, jaxrnn.LSTMStateTuple)


def pooled(params, inputs, state, key=None):
    """A step that accepts inputs of any depth."""
    state = state + jnp.sum(inputs, axis=-1, keepdims=True) * params["w"]
    return state, state


def test_steps_may_differ_in_depth():
    steps = [np.ones((2, 3)), np.full((2, 5), 2.0), np.ones((2, 3))]
    steps[1][1] = np.nan
    cell = FunctionCell(pooled, 1, 1)

    def total(w):
        return static_rnn(cell.bind({"w": w}), steps, None, F64, [3, 1])[1].sum()

    value, slope = jax.value_and_grad(total)(jnp.ones(()))
    assert (float(value), float(slope)) == (3 + 10 + 3 + 3,) * 2


def test_steps_may_be_vectors_of_ids():
    look_up = lambda p, x, s, key=None: (s + p["table"][x], s + p["table"][x])
    cell = FunctionCell(look_up, 2, 2).bind({"table": jnp.arange(6.0).reshape(3, 2)})
    outputs, _ = static_rnn(cell, [np.array([0, 2]), np.array([1, 1])], dtype=F64)
    assert outputs[1].tolist() == [[0 + 2, 1 + 3], [4 + 2, 5 + 3]]


def test_warns_of_many_steps_once_and_where_it_was_called():
    steps = [np.ones((1, 1))] * UNREASONABLE_STEPS
    loop = FunctionCell(pooled, 1, 1).bind({"w": np.ones(())})
    static_rnn(loop, steps, dtype=F64)
    cell = StepByStep(loop)
    static_rnn(cell, steps[1:], dtype=F64)
    saver = jaxrnn.StateSaver({"s": np.zeros((1, 1))})
    for call in (
        lambda: static_rnn(cell, steps, dtype=F64),
        lambda: static_state_saving_rnn(cell, steps, saver, "s"),
    ):
        with pytest.warns(UserWarning, match="50 copies.*`dynamic_rnn`") as caught:
            call()
        assert [w.filename for w in caught] == [__file__]
    names = {"run": static_rnn, "cell": cell, "steps": steps}
    with pytest.warns(UserWarning, match="50 copies"):
        exec("run(cell, steps, dtype='float64')", names)  # Has no `__name__`.


# The state saver


class Recorder:
    """A state saver with TensorFlow's protocol, which records the calls."""

    def __init__(self, **states):
        self.states, self.calls = states, []

    def state(self, name):
        self.calls.append(("state", name))
        return self.states[name]

    def save_state(self, name, value):
        self.calls.append(("save", name))
        self.states[name] = value


def test_leaves_are_got_in_order_then_saved_in_order():
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    bound = STACK.bind(drawn(STACK, x[0]))
    zeros = np.zeros((4, 3))
    for names in (("b", "a", "z"), (("b", "a"), "z")):
        saver = Recorder(a=zeros, b=zeros + 1, z=zeros[:, :2])
        outputs, state = static_state_saving_rnn(bound, list(x), saver, names)
        start = (jaxrnn.LSTMStateTuple(zeros + 1, zeros), zeros[:, :2])
        close((outputs, state), static_rnn(bound, list(x), start), F64)
        close((saver.states["b"], saver.states["a"]), tuple(state[0]), F64)
        order = [(call, n) for call in ("state", "save") for n in ("b", "a", "z")]
        assert saver.calls == order


def test_the_dict_given_stays_as_it_is():
    given = {"s": np.zeros((2, 1))}
    saver = jaxrnn.StateSaver(given)
    cell = FunctionCell(pooled, 1, 1).bind({"w": np.ones(())})
    static_state_saving_rnn(cell, [np.ones((2, 1))], saver, "s")
    assert not given["s"].any()
    assert saver.states["s"].tolist() == [[1], [1]]
    assert repr(saver) == "StateSaver(s: float64[2, 1])"


# Errors

REFUSALS = [
    (TypeError, "`cell` must be a bound cell, got 3", lambda: static_rnn(3, X, dtype=F32)),
    (TypeError, r"`inputs` must be a list or tuple .*, got float32\[2, 4, 3\]. Use `dynamic_rnn`",
     lambda: static_rnn(GRU, np.stack(X), dtype=F32)),
    (ValueError, "`inputs` must be a list or tuple with one entry per step, got dict",
     lambda: static_rnn(GRU, {0: X[0]}, dtype=F32)),
    (ValueError, r"`inputs` must hold at least one array, got \[\]", lambda: static_rnn(GRU, [], dtype=F32)),
    (ValueError, r"`inputs\[1\]` must be an array", lambda: static_rnn(GRU, [X[0], None], dtype=F32)),
    (ValueError, r"`inputs\[1\]` must have rank at least 2, \[batch, ...\], got float32\[4\]",
     lambda: static_rnn(GRU, [X[0], X[0][:, 0]], dtype=F32)),
    (ValueError, r"`inputs\[1\]` must have the batch size of `inputs\[0\]`, float32\[4, 3\], got float32\[3, 3\]",
     lambda: static_rnn(GRU, [X[0], X[0][1:]], dtype=F32)),
    (ValueError, "`dtype` must be given if there is no `initial_state`",
     lambda: static_rnn(GRU, X)),
    (ValueError, r"must be a vector of length batch_size \(4\)", lambda: static_rnn(GRU, X, None, F32, 2)),
    (TypeError, "`scope` must be a string", lambda: static_rnn(GRU, X, dtype=F32, scope=3)),
    (TypeError, "`new_state` must have dtype float32, got float64",
     lambda: static_rnn(FunctionCell(lambda p, x, s, key=None: (x, s.astype(F64)), 3, 3).bind({}), X, None, F32, [1] * 4)),
    (TypeError, "`output` must have dtype float32, got float16",
     lambda: static_rnn(FunctionCell(lambda p, x, s, key=None: (x.astype("float16"), s), 3, 3).bind({}), X, None, F32, [1] * 4)),
    (TypeError, "`cell` must be a bound cell",
     lambda: static_state_saving_rnn(3, X, SAVER, "c")),
    (TypeError, "`state_saver` must be an object with .* `save_state`, got dict. Pass a `jaxrnn.StateSaver`",
     lambda: static_state_saving_rnn(GRU, X, {}, "c")),
    (TypeError, "`states` must be a dict", lambda: jaxrnn.StateSaver(ZEROS)),
    (TypeError, "`value` must be an array, got 'q'", lambda: SAVER.save_state("c", "q")),
    (ValueError, r"must have the shape of state 'c', float32\[4, 2\], got float32\[4, 3\]",
     lambda: SAVER.save_state("c", np.ones((4, 3), np.float32))),
    (KeyError, "'m'", lambda: static_state_saving_rnn(LSTM, X, SAVER, ("c", "m"))),
    (ValueError, r"`state_name` must be a string.*got \('c',\)",
     lambda: static_state_saving_rnn(GRU, X, SAVER, ("c",))),
    (ValueError, "`state_name` must be a tuple of 2 different strings.*got 'c'",
     lambda: static_state_saving_rnn(LSTM, X, SAVER, "c")),
    (ValueError, "must be a tuple of 2 different strings.* got .'c', 'c'",
     lambda: static_state_saving_rnn(LSTM, X, SAVER, ("c", "c"))),
    (ValueError, r"the new state of `cell` must have the structure \*",
     lambda: static_state_saving_rnn(FunctionCell(lambda p, x, s, key=None: (x, (s, s)), 2, 3).bind({}), X[:1], SAVER, "c")),
]  # fmt: skip


@pytest.mark.parametrize("lengths", [None, [2] * 4])
def test_an_error_names_its_step(lengths):
    with pytest.raises(ValueError, match="kernel") as caught:
        static_rnn(GRU, [X[0], X[1][:, :2]], None, F32, lengths)
    assert "Raised at step 1, with `inputs[1]`." in caught.value.__notes__


def test_no_error_of_a_cell_is_swallowed():
    """An error that occurs once does not silently select another program."""
    calls = []

    def fail_once(params, inputs, state, key=None):
        calls.append(inputs)
        if len(calls) == 1:
            raise RuntimeError("once")
        return inputs, state

    with pytest.raises(RuntimeError, match="once") as caught:
        static_rnn(FunctionCell(fail_once, 3, 3).bind({}), X, dtype=F32)
    assert "Raised at step 0, with `inputs[0]`." in caught.value.__notes__


def test_a_cell_must_not_read_values():
    """In a list of steps of one type, which a loop runs."""

    def step(params, inputs, state, key=None):
        return inputs, state + 1 if inputs.sum() > 0 else state

    cell = FunctionCell(step, 3, 3).bind({})
    with pytest.raises(jax.errors.TracerBoolConversionError):
        static_rnn(cell, [np.ones((2, 3))] * 3, dtype=F64)


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()
