"""What type checkers know of a user's program; pyright checks this file, nothing runs.

A comment `pyright: ignore` proves that the line is an error: pyright reports a comment
that ignores nothing.
"""

import dataclasses
from typing import Any, NamedTuple, assert_type

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxrnn
import jaxrnn.convert
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import BoundCell, GRUCell, LSTMCell, LSTMStateTuple

LSTMState = LSTMStateTuple[Array]


def cells(params: dict, x: Array) -> None:
    cell = LSTMCell(5, forget_bias=0.0)
    bound = assert_type(cell.bind(params), BoundCell[LSTMCell])
    assert_type(bound.cell.forget_bias, float)
    assert_type(bound(x, bound.zero_state(4, jnp.float32)), tuple[Array, LSTMState])

    outputs, state = jaxrnn.dynamic_rnn(bound, x, [7, 0, 3, 1], dtype=jnp.float32)
    assert_type((outputs, state.h), tuple[Array, Array])
    _ = state.hh  # pyright: ignore[reportAttributeAccessIssue]
    _ = cell.forget_biass  # pyright: ignore[reportAttributeAccessIssue]
    LSTMCell(5, forget_biass=1)  # pyright: ignore[reportCallIssue]
    jaxrnn.dynamic_rnn(bound, x, implementation="natve")  # pyright: ignore[reportArgumentType]
    jaxrnn.dynamic_rnn(bound, x, sequence_lengths=[7])  # pyright: ignore[reportCallIssue]
    jaxrnn.dynamic_rnn(cell, x)  # pyright: ignore[reportArgumentType]
    jaxrnn.init_stack_bidirectional([cell], [GRUCell(4)], jax.random.key(0), x)


def returned_states(bound: BoundCell[GRUCell], x: Array, flag: bool) -> None:
    results = jaxrnn.dynamic_rnn(bound, x, return_states=True)
    assert_type(results, tuple[Array, Array, Array])
    assert_type(jaxrnn.dynamic_rnn(bound, x, return_states=False), tuple[Array, Array])
    assert_type(jaxrnn.dynamic_rnn(bound, x, return_states=flag), tuple[Any, ...])


def wrappers(params: dict, x: Array) -> None:
    dropped = jaxrnn.DropoutWrapper(LSTMCell(5), 0.9)
    stack = jaxrnn.MultiRNNCell([LSTMCell(5), jax.nn.relu, dropped])
    _, states = jaxrnn.dynamic_rnn(stack.bind(params), x)
    assert_type(states, tuple[LSTMState, ...])


class Average(NamedTuple):
    slow: Array
    fast: Array


def step(
    params: Any, inputs: Array, state: Average, key: Any = None
) -> tuple[Array, Average]:
    return inputs, state


@dataclasses.dataclass(frozen=True, eq=False)
class OwnCell(jaxrnn.RNNCell[Average]):
    state_size = output_size = 3

    def init(self, key: Any, inputs: Any, dtype: Any = None) -> dict:
        return {}

    def apply(
        self, params: dict, inputs: Array, state: Average, key: Any = None
    ) -> tuple[Array, Average]:
        return step(params, inputs, state)


class Protocol:
    """A cell that derives from nothing."""

    state_size = output_size = 3

    def zero_state(self, batch_size: int, dtype: Any) -> Average:
        zeros = jnp.zeros((batch_size, 3), dtype)
        return Average(zeros, zeros)

    def __call__(self, inputs: Array, state: Average) -> tuple[Array, Average]:
        return inputs, state


def own_cells(x: Array) -> None:
    of_function = jaxrnn.FunctionCell.like(step, x, x)
    for cell in (of_function.bind({}), OwnCell().bind({}), Protocol()):
        assert_type(jaxrnn.dynamic_rnn(cell, x), tuple[Array, Average])


class Model(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> None:
        state, _ = jaxrnn.linen.RNN(LSTMCell(8))(x, return_carry=True)
        assert_type(state, LSTMState)


def modules(x: Array) -> None:
    rnn = jaxrnn.nnx.RNN(LSTMCell(8), 3, rngs=nnx.Rngs(0))
    state, _, _ = rnn(x, return_states=True)
    assert_type(state, LSTMState)
    both = jaxrnn.nnx.Bidirectional(LSTMCell(8), GRUCell(8), 3, rngs=nnx.Rngs(0))
    assert_type(both(x, return_carry=True)[0], tuple[LSTMState, Array])
    rnn(x, return_cary=True)  # pyright: ignore[reportCallIssue]


def converters(weights: dict, x: Array) -> None:
    load = jaxrnn.convert.from_torch
    jaxrnn.dynamic_rnn(load(weights), x)
    one = load(weights, at="rnn", bidirectional=False, nonlinearity="relu")
    assert_type(one, BoundCell)
    _ = one.bindd  # pyright: ignore[reportAttributeAccessIssue]
    cells_fw, cells_bw = load(weights, bidirectional=True)
    assert_type(cells_bw, tuple[BoundCell, ...])
    _ = cells_fw[0].parameters  # pyright: ignore[reportAttributeAccessIssue]
    load(weights, nonlinearity="gelu")  # pyright: ignore[reportArgumentType]
    convert = jaxrnn.convert
    assert_type(convert.from_onnx(weights, bidirectional=False), BoundCell)
    convert.to_torch((cells_fw, cells_bw))
    convert.to_torch([one, one])  # pyright: ignore[reportArgumentType]
    layer = jaxrnn.nnx.Mamba(8, rngs=nnx.Rngs(0))
    layer = convert.from_transformers(weights, layer, at="mixer")
    assert_type(layer, jaxrnn.nnx.Mamba)
    loaded = jaxrnn.convert.from_tf1(weights, cell=LSTMCell(5), inputs=x)
    assert_type(loaded, BoundCell[LSTMCell])
