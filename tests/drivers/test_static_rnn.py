"""Drivers over a list of steps: equal to `dynamic_rnn` if both apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import StepByStep, assert_near, bound, draw, drawn

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, static_rnn, static_state_saving_rnn

F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
STACK = jaxrnn.MultiRNNCell([LSTMCell(3), GRUCell(2)])
ONES = np.ones((2, 4), np.float32)
ZEROS = {"initial_state": STACK.zero_state(2, F32)}


@pytest.mark.parametrize("wrap", [StepByStep, lambda cell: cell])
def test_steps_are_compiled_once(wrap):
    """Also those of a cell that only has the attributes of a bound cell."""
    params = drawn(STACK, ONES)

    def loss(params, steps):
        outputs, state = static_rnn(wrap(STACK.bind(params)), steps, **ZEROS)
        return sum(jnp.sum(o**2) for o in outputs) + jnp.sum(state[1])

    def products(count):
        program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, [ONES] * count)
        return str(program).count("dot")

    assert products(4) == products(6)


@pytest.mark.fast("scan")
@pytest.mark.parametrize("implementation", ["xla", "scan"])
def test_lists_of_steps_give_lists_of_outputs_and_states(implementation):
    cell, x, options = bound(LSTMCell(2)), draw(4, 5, 3), {"return_states": True}
    options |= {"sequence_length": [5, 0, 3, 1], "implementation": implementation}
    got = static_rnn(cell, [*x.swapaxes(0, 1)], dtype=F64, **options)
    outputs, last, states = jaxrnn.dynamic_rnn(cell, x, dtype=F64, **options)
    assert [type(each) for each in got] == [list, type(last), list]
    at = lambda tree, t: jax.tree.map(lambda leaf: leaf[:, t], tree)
    want = [at(outputs, t) for t in range(5)], last, [at(states, t) for t in range(5)]
    assert_near(got, want, tolerance=1e-12)


@pytest.mark.parametrize("lengths", [[2, 1], [0, 0]])
def test_all_rows_share_a_scalar_leaf(lengths):
    """It counts no step if all lengths are 0."""
    step = lambda p, x, s, key=None: (x, (s[0] + 1, s[1] + x))
    cell = FunctionCell(step, (jaxrnn.TensorShape([]), 1), 1).bind({})
    state = np.zeros(()), np.ones((2, 1))
    _, (count, total) = static_rnn(cell, [state[1]] * 3, state, F64, lengths)
    assert count == max(lengths)
    assert total.ravel().tolist() == [1 + n for n in lengths]


def pooled(params, inputs, state, key=None):
    """A step that accepts inputs of any depth."""
    state = state + jnp.sum(inputs, axis=-1, keepdims=True) * params["w"]
    return state, state


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
