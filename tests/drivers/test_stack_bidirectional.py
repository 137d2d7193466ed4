"""Both directions over a list of steps, and stacks of bidirectional layers."""
# ruff: noqa: E501 (One error for each line of a table.)

import re
import warnings

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    BasicRNNCell,
    FunctionCell,
    GRUCell,
    LSTMCell,
    bidirectional_dynamic_rnn,
    stack_bidirectional_dynamic_rnn,
    stack_bidirectional_rnn,
    static_bidirectional_rnn,
)
from jaxrnn._drivers.static_rnn import UNREASONABLE_STEPS
from jaxrnn.testing._oracle import StepByStep, close, weighted_sum

F64 = jnp.dtype("float64")
TIME, BATCH, DEPTH = 3, 4, 2
LENGTHS = np.array([2, 0, 9, -1])


def data():
    return np.random.default_rng(0).normal(size=(TIME, BATCH, DEPTH))


def bound(cell, depth=DEPTH, seed=0):
    return helpers.bound(cell, depth, seed=seed, scale=0.5)


def with_gradients(run, *args):
    """The results, and the gradients of their weighted sum by all arguments."""

    def loss(args):
        results = run(*args)
        return weighted_sum(results), results

    gradients, results = jax.jit(jax.grad(loss, has_aux=True))(args)
    return results, jax.tree.leaves(gradients)


@pytest.mark.fast("lengths1")
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_static_equals_dynamic(lengths):
    def static(fw, bw, x):
        outputs, *states = static_bidirectional_rnn(
            fw, bw, list(x), None, None, F64, lengths
        )
        return jnp.stack(outputs), states

    def dynamic(fw, bw, x):
        outputs, states = bidirectional_dynamic_rnn(
            fw, bw, x, lengths, dtype=F64, time_major=True
        )
        return jnp.concatenate(outputs, -1), list(states)

    args = bound(LSTMCell(3)), bound(GRUCell(2), seed=1), jnp.asarray(data())
    close(with_gradients(static, *args), with_gradients(dynamic, *args), F64)


def test_padding_leaves_no_trace():
    x, cell = data(), bound(GRUCell(2))
    x[2, 0], x[:, 1], x[:, 3] = 0, 0, 0

    def run(cell, x):
        return static_bidirectional_rnn(cell, cell, x, None, None, F64, LENGTHS)

    want = with_gradients(run, cell, [jnp.asarray(step) for step in x])
    x[2, 0], x[:, 1], x[:, 3] = np.nan, np.nan, np.inf
    got = with_gradients(run, cell, [jnp.asarray(step) for step in x])
    chex.assert_trees_all_equal(got, want)


def summing(params, inputs, state, key=None):
    """A running sum, with nested outputs."""
    state = state + inputs
    return {"sum": state, "twice": [state * 2]}, state


def test_nested_outputs_are_joined_leaf_by_leaf():
    cell = FunctionCell(summing, 1, {"sum": 1, "twice": [1]}).bind({})
    steps = [np.array([[1.0]]), np.array([[2.0]]), np.array([[4.0]])]
    outputs, fw, bw = static_bidirectional_rnn(
        cell, cell, steps, dtype=F64, sequence_length=[2]
    )
    assert [o["sum"][0].tolist() for o in outputs] == [[1, 3], [3, 2], [0, 0]]
    assert [o["twice"][0][0].tolist() for o in outputs] == [[2, 6], [6, 4], [0, 0]]
    assert (fw.tolist(), bw.tolist()) == ([[3]], [[3]])


def test_steps_of_other_depths_without_lengths():
    pooled = lambda p, x, s, key=None: (s + x.sum(), s + x.sum())
    cell = FunctionCell(pooled, 1, 1).bind({})
    steps = [np.ones((1, 1)), np.ones((1, 3))]
    outputs, *_ = static_bidirectional_rnn(cell, cell, steps, dtype=F64)
    assert [o[0].tolist() for o in outputs] == [[1, 4], [4, 3]]


# Layers


def running_sums(x, lengths):
    """In NumPy, the sums from the left and from the right of each row, concatenated."""
    out = np.zeros((*x.shape[:2], 2 * x.shape[2]))
    for b, n in enumerate(np.clip(lengths, 0, len(x))):
        row = x[:n, b]
        out[:n, b] = np.concatenate(
            [np.cumsum(row, 0), np.cumsum(row[::-1], 0)[::-1]], axis=1
        )
    return out


def adding(size):
    step = lambda p, x, s, key=None: (s + x, s + x)
    return FunctionCell(step, size, size).bind({})


@pytest.mark.fast("lengths1-list", "None-tuple")
@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_layers_read_both_directions(kind, lengths):
    x, cells = data(), kind([adding(DEPTH), adding(2 * DEPTH)])
    counts = np.full(BATCH, TIME) if lengths is None else lengths
    first = running_sums(x, counts)
    want = running_sums(first, counts)
    totals = x_sum, first_sum = [
        sum(np.where((t < counts)[:, None], layer[t], 0) for t in range(TIME))
        for layer in (x, first)
    ]
    outputs, fw, bw = stack_bidirectional_rnn(
        cells, cells, list(x), None, None, F64, lengths
    )
    close(jnp.stack(outputs), want, F64)
    close((fw, bw), ((x_sum, first_sum), tuple(totals)), F64)
    for time_major in (True, False):
        turn = (lambda a: a) if time_major else lambda a: np.swapaxes(a, 0, 1)
        outputs, fw, bw = stack_bidirectional_dynamic_rnn(
            cells, cells, turn(x), None, None, F64, lengths, 2, time_major
        )
        close(turn(outputs), want, F64)
        close((fw, bw), ((x_sum, first_sum), tuple(totals)), F64)


@pytest.mark.slow
def test_gradients_of_layers():
    x = jnp.asarray(data())
    fw = [bound(GRUCell(2)), bound(BasicRNNCell(2), 5, 1)]
    bw = [bound(BasicRNNCell(3), seed=2), bound(GRUCell(1), 5, 3)]
    start = [jnp.ones((BATCH, 2)), None]

    def static(fw, bw, x):
        outputs, *states = stack_bidirectional_rnn(
            fw, bw, list(x), start, None, F64, LENGTHS
        )
        return jnp.stack(outputs), states

    def dynamic(fw, bw, x):
        outputs, *states = stack_bidirectional_dynamic_rnn(
            fw, bw, x, start, None, F64, LENGTHS, time_major=True, swap_memory=True
        )
        return outputs, states

    args = fw, bw, x
    close(with_gradients(static, *args), with_gradients(dynamic, *args), F64)


def test_warns_once():
    cell, wide = StepByStep(adding(1)), StepByStep(adding(2))
    steps = [np.ones((1, 1))] * UNREASONABLE_STEPS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # As in a program.
        stack_bidirectional_rnn([cell, wide], [cell, wide], steps, dtype=F64)
    assert [w.filename for w in caught] == [__file__]


X = data()
GRU = bound(GRUCell(2))
WIDE = bound(GRUCell(2), 4)
NEST = FunctionCell(summing, DEPTH, {"sum": DEPTH, "twice": [DEPTH]}).bind({})
STEPS = list(X)

REFUSALS = {
    "cell_fw": (TypeError, "static_bidirectional_rnn: `cell_fw` must be an RNNCell",
                lambda: static_bidirectional_rnn(3, GRU, STEPS, dtype=F64)),
    "cell_bw": (TypeError, "`cell_bw` must be a bound cell, got the unbound .*Bind it to its parameters",
                lambda: static_bidirectional_rnn(GRU, GRUCell(2), STEPS, dtype=F64)),
    "one_state": (ValueError, "dtype must be specified if there is no `initial_state`",
                  lambda: static_bidirectional_rnn(GRU, GRU, STEPS, np.zeros((BATCH, 2)))),
    "depths_and_lengths": (ValueError, "(?i)shape", lambda: static_bidirectional_rnn(
        adding(DEPTH), adding(DEPTH), [X[0], X[0][:, :1]], None, None, F64, [1] * 4)),
    "nests": (ValueError, "the output of `cell_bw` must have the structure",
              lambda: static_bidirectional_rnn(NEST, adding(DEPTH), STEPS, dtype=F64)),
    "no_cells": (ValueError, "stack_bidirectional_rnn: `cells_fw` must be a list of at least one cell",
                 lambda: stack_bidirectional_rnn([], [GRU], STEPS, dtype=F64)),
    "one_cell": (ValueError, "`cells_bw` must be a list of at least one cell, one for each layer, got BoundCell",
                 lambda: stack_bidirectional_rnn([GRU], GRU, STEPS, dtype=F64)),
    "depths": (ValueError, "must have the same depth, got 2 and 1 cells",
               lambda: stack_bidirectional_dynamic_rnn([GRU, WIDE], [GRU], X, dtype=F64)),
    "layer_cell": (TypeError, r"stack_bidirectional_dynamic_rnn: `cells_bw\[1\]` must be an RNNCell",
                   lambda: stack_bidirectional_dynamic_rnn([GRU, WIDE], [GRU, 3], X, dtype=F64)),
    "states_kind": (ValueError, r"`initial_states_fw` must be a list of 1 states.*got float64\[4, 2\]",
                    lambda: stack_bidirectional_dynamic_rnn([GRU], [GRU], X, np.zeros((4, 2)), dtype=F64)),
    "states_count": (ValueError, "`initial_states_bw` must be a list of 1 states, one for each layer, got list",
                     lambda: stack_bidirectional_rnn([GRU], [GRU], STEPS, None, [None, None], F64)),
    "layer_dtype": (ValueError, "dtype must be specified", lambda: stack_bidirectional_dynamic_rnn([GRU], [GRU], X)),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()


def test_an_error_names_its_layer():
    narrow = [GRU, bound(GRUCell(2), 3)]
    with pytest.raises(
        ValueError, match=r"must have shape .* for inputs of depth"
    ) as caught:
        stack_bidirectional_rnn(narrow, narrow, STEPS, dtype=F64)
    notes = "".join(caught.value.__notes__)
    assert "Raised by layer cell_1" in notes
    assert "In this message, `cell` is `cell_fw`" in notes
