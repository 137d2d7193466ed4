"""Drivers over a list of steps: equal to `dynamic_rnn` if both apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, drawn

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, static_rnn, static_state_saving_rnn
from jaxrnn._drivers.static_rnn import UNREASONABLE_STEPS
from jaxrnn.testing._oracle import StepByStep

F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
STACK = jaxrnn.MultiRNNCell([LSTMCell(3), GRUCell(2)])
ONES = np.ones((2, 4), np.float32)
ZEROS = {"initial_state": STACK.zero_state(2, F32)}


@pytest.mark.parametrize("options", [ZEROS, {"dtype": F32, "sequence_length": [3, 0]}])
def test_equal_steps_are_compiled_once(options):
    params = drawn(STACK, ONES)

    def loss(params, steps):
        outputs, state = static_rnn(STACK.bind(params), steps, **options)
        return sum(jnp.sum(o**2) for o in outputs) + jnp.sum(state[1])

    def products(count):
        program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, [ONES] * count)
        return str(program).count("dot")

    assert products(4) == products(6)


def test_without_lengths_the_state_may_change():
    steps = [np.ones((2, 1)), np.full((2, 2), 2.0)]
    growing = lambda p, x, s, key=None: (jnp.concatenate([s, x], -1),) * 2
    cell = FunctionCell(growing, 0, 1).bind({})
    outputs, state = static_rnn(cell, steps, dtype=F64)
    assert [o.shape for o in outputs] == [(2, 1), (2, 3)]
    assert state[0].tolist() == [1, 2, 2]


def test_a_plain_tuple_comes_back_as_the_cell_returns_it():
    cell, steps = bound(LSTMCell(2), 4), (np.ones((2, 4)),) * 2
    with pytest.warns(UserWarning, match="plain pair, which is read as `.c, h.`"):
        outputs, state = static_rnn(cell, steps, (np.zeros((2, 2)),) * 2)
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


def test_a_later_step_of_another_type_is_checked_too():
    """Only with lengths: without them, each output may have a dtype of its own."""
    cell = FunctionCell(lambda p, x, s, key=None: (x, s), 1, 1).bind({})
    steps = [np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 1), np.float32)]
    with pytest.raises(TypeError, match=r"`output` must .*float64") as caught:
        static_rnn(cell, steps, dtype=F64, sequence_length=[3, 1])
    assert "Raised at step 2, with `inputs[2]`." in caught.value.__notes__


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
    """The goldens of `tests/tf1` have the values."""
    x, cell = np.zeros((4, 3)), bound(STACK)
    for names in (("b", "a", "z"), (("b", "a"), "z")):
        saver = Recorder(a=x, b=x, z=x[:, :2])
        static_state_saving_rnn(cell, [x, x], saver, names)
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


def test_no_error_of_a_cell_is_swallowed():
    """An error that occurs once does not silently select another program."""
    calls = []

    def fail_once(params, inputs, state, key=None):
        calls.append(inputs)
        if len(calls) == 1:
            raise RuntimeError("once")
        return inputs, state

    with pytest.raises(RuntimeError, match="once") as caught:
        static_rnn(FunctionCell(fail_once, 4, 4).bind({}), [ONES] * 2, dtype=F32)
    assert "Raised at step 0, with `inputs[0]`." in caught.value.__notes__


def test_a_cell_must_not_read_values():
    """In a list of steps of one type, which a loop runs."""

    step = lambda p, x, s, key=None: (x, s + 1 if x.sum() > 0 else s)
    cell = FunctionCell(step, 3, 3).bind({})
    with pytest.raises(jax.errors.TracerBoolConversionError):
        static_rnn(cell, [np.ones((2, 3))] * 3, dtype=F64)
