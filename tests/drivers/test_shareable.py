"""Mutable objects that stay equal must not share one compilation across calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BasicRNNCell, FunctionCell
from jaxrnn._drivers.run_batch import is_shareable

X = np.ones((2, 3, 3), np.float32)


def run(cell, params=None):
    outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params or {}), X, dtype=jnp.float32)
    return float(outputs[0, -1, 0])


class Scaled:
    """A mutable callable object, and a mutable object with a method."""

    def __init__(self):
        self.scale = 2.0

    def __call__(self, params, inputs, state, key=None):
        return inputs * self.scale, state

    def step(self, params, inputs, state, key=None):
        return self(params, inputs, state)


def scaled_by(holder, params, inputs, state, key=None):
    return inputs * holder.scale, state


def around(value):
    def step(params, inputs, state, key=None):
        return inputs * np.float32(value[0]), state

    return step


@pytest.mark.parametrize(
    "step_of",
    [
        lambda s: s,
        lambda s: s.step,
        lambda s: functools.partial(scaled_by, s),
        lambda s: lambda p, x, state, key=None: s(p, x, state),
    ],
    ids=["object", "method", "partial", "closure"],
)
def test_an_attribute_that_changes_is_read_in_every_call(step_of):
    holder = Scaled()
    cell = FunctionCell(step_of(holder), 3, 3)
    assert run(cell) == 2.0
    holder.scale = 3.0
    assert run(cell) == 3.0


def test_a_list_in_a_closure_is_read_in_every_call():
    value = [2.0]
    cell = FunctionCell(around(value), 3, 3)
    assert run(cell) == 2.0
    value[0] = 3.0
    assert run(cell) == 3.0


def plain(params, inputs, state, key=None):
    return inputs * 2, state


def test_constants_functions_and_cells_of_them_are_shared():
    params = BasicRNNCell(3).init(jax.random.key(0), X[:, 0])
    for cell in (
        BasicRNNCell(3),
        BasicRNNCell(3, activation=jax.nn.relu),
        jaxrnn.LSTMCell(3, name="a", dtype=jnp.float32),
        jaxrnn.MultiRNNCell([BasicRNNCell(3)] * 2),
        FunctionCell(plain, 3, jaxrnn.TensorShape([3])),
        FunctionCell(functools.partial(plain), 3, 3),
        FunctionCell(lambda p, x, s, key=None: (x, s), 3, 3),
    ):
        assert is_shareable(cell.bind(params))
    # A closure may hold an array, whoever made it.
    for module in (__name__, "jaxrnn", "jax"):
        step = around(np.ones(1))
        step.__module__ = module
        assert not is_shareable(FunctionCell(step, 3, 3).bind({}))
    assert not is_shareable(FunctionCell(Scaled(), 3, 3).bind({}))


def nested(params, inputs, state, key=None):
    return inputs * state["a"][0], state


def test_sizes_may_be_dicts_and_lists():
    """A second call with an equal cell compiles nothing."""
    size = {"a": [3]}
    cell, same = (FunctionCell(nested, size, 3) for _ in range(2))
    size["a"][0] = 4  # The cell keeps the original sizes.
    assert cell == same
    assert cell.state_size == {"a": [3]}
    run(cell)
    with jax.no_tracing():
        run(same)
