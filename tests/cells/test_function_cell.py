"""`FunctionCell.like` finds the sizes of a state and of an output by tracing a step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import jaxrnn
from jaxrnn import FunctionCell, LSTMStateTuple, TensorShape

X, F32 = np.ones((4, 3), np.float32), "float32"
H = np.zeros((4, 2), np.float32)


def keep(params, inputs, state, key=None):
    return inputs, state


def product(params, inputs, state, key=None):
    state = jnp.tanh(inputs @ params["w"] + state)
    return {"h": state, "pairs": state[:, :, None] * state[:, None]}, state


def init(key, inputs, dtype=None):
    return {"w": jax.random.normal(key, (inputs.shape[-1], 2), dtype or inputs.dtype)}


STATES = {
    "vector": (H, 2),
    "matrix": (H[:, None], TensorShape([1, 2])),
    "number": (H[:, 0], TensorShape([])),
    "empty": (H[:, :0], 0),
    "nest": (LSTMStateTuple(H, {"n": X}), LSTMStateTuple(2, {"n": 3})),
    "list": ([H, H], [2, 2]),
    "none": ((), ()),
}


@pytest.mark.parametrize("of", ["arrays", "shapes"])
@pytest.mark.parametrize(("state", "size"), STATES.values(), ids=STATES)
def test_sizes_are_those_of_the_state(state, size, of):
    if of == "shapes":
        state = jax.eval_shape(lambda: state)
    cell = FunctionCell.like(keep, X, state)
    assert cell == FunctionCell(keep, size, 3)
    assert type(cell.state_size) is type(size)


def test_the_output_depends_on_the_parameters():
    want = FunctionCell(product, 2, {"h": 2, "pairs": TensorShape([2, 2])}, init)
    cell = FunctionCell.like(product, X, H, init)
    assert cell == want
    bound = cell.bind(cell.init(jax.random.key(0), X))
    outputs, _ = jaxrnn.dynamic_rnn(bound, np.stack([X] * 3, 1), dtype=F32)
    assert outputs["pairs"].shape == (4, 3, 2, 2)
    params = {"w": np.ones((3, 2), np.float32)}
    unfilled = FunctionCell.like(product, X, H, params=params)
    assert_same(unfilled.bind(params)(X, H), want.bind(params)(X, H))


@pytest.mark.parametrize(
    ("step", "inputs", "state", "name"),
    [
        (lambda p, x, s, key=None: (x, jnp.concatenate([s, s], 1)), X, H, "new_state"),
        (lambda p, x, s, key=None: (x, (s,)), X, H, "new_state"),
        (lambda p, x, s, key=None: (x, s[0]), X, (H, H), "new_state"),
        (keep, X, np.zeros((3, 2)), "state"),
        (keep, (X, X[:3]), H, "inputs[1]"),
        (keep, X, None, "state"),
        (lambda p, x, s, key=None: (x[0], s), X, H, "output"),
    ],
)
def test_a_step_that_no_driver_could_run_is_refused(step, inputs, state, name):
    with pytest.raises(ValueError, match=f"`{re.escape(name)}`"):
        FunctionCell.like(step, inputs, state)


def test_a_key_by_position_only_is_refused():
    def step(params, inputs, state, key, /):
        return inputs, state

    with pytest.raises(TypeError, match="`fn`"):
        FunctionCell(step, 2, 3)


def test_other_arguments_are_kept():
    cell = FunctionCell.like(keep, X, H, is_random=True, rows_interact=True)
    assert cell == FunctionCell(keep, 2, 3, is_random=True, rows_interact=True)


def test_a_cell_keeps_a_copy_of_its_sizes():
    step, size = lambda p, x, s, key=None: (x, s), {"a": [3]}
    cell, same = (FunctionCell(step, size, 3) for _ in range(2))
    size["a"][0] = 4
    assert cell == same
    assert cell.state_size == {"a": [3]}
