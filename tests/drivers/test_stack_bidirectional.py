"""Both directions over a list of steps, and stacks of bidirectional layers."""
# ruff: noqa: E501 (One error for each line of a table.)

import re
import warnings

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated

from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    bidirectional_dynamic_rnn,
    init_stack_bidirectional,
    stack_bidirectional_dynamic_rnn,
    stack_bidirectional_rnn,
    static_bidirectional_rnn,
)
from jaxrnn._drivers.static_rnn import UNREASONABLE_STEPS
from jaxrnn.testing._oracle import StepByStep, close

F64 = jnp.dtype("float64")
TIME, BATCH, DEPTH = 3, 4, 2
LENGTHS = np.array([2, 0, 9, -1])
X = np.random.default_rng(0).normal(size=(TIME, BATCH, DEPTH))
STEPS = list(X)


def bound(cell, depth=DEPTH, seed=0):
    return helpers.bound(cell, depth, seed=seed, scale=0.5)


def test_static_equals_dynamic_with_nan_in_the_padding():
    alive = (np.arange(TIME)[:, None] < LENGTHS)[..., None]

    def static(fw, bw, x):
        steps = list(jnp.where(alive, x, jnp.nan))
        made = static_bidirectional_rnn(fw, bw, steps, None, None, F64, LENGTHS)
        return jnp.stack(made[0]), made[1:]

    def dynamic(fw, bw, x):
        outputs, states = bidirectional_dynamic_rnn(
            fw, bw, x, LENGTHS, dtype=F64, time_major=True
        )
        return jnp.concatenate(outputs, -1), states

    args = bound(LSTMCell(3)), bound(GRUCell(2), seed=1), jnp.asarray(X)
    want = differentiated(dynamic, *args)
    assert_near(differentiated(static, *args), want, tolerance=1e-9)


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


def adding(size):
    step = lambda p, x, s, key=None: (s + x, s + x)
    return FunctionCell(step, size, size).bind({})


RNG = np.random.default_rng(1)
GAPS = {
    "mask": RNG.random((TIME, BATCH)) < 0.7,
    "resets": RNG.random((TIME, BATCH)) < 0.5,
}
LAYERS = [adding(DEPTH), adding(2 * DEPTH)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(list, {"sequence_length": LENGTHS}), (tuple, {}), (list, GAPS)],
    ids=["lengths", "whole", "gaps"],
)
def test_a_layer_reads_both_directions_of_the_one_below(kind, options):
    given, x, states = {"dtype": F64, "time_major": True, **options}, X, []
    for cell in LAYERS:
        outputs, last = bidirectional_dynamic_rnn(cell, cell, x, **given)
        x = jnp.concatenate(outputs, axis=-1)
        states.append(last)
    want = x, *zip(*states, strict=True)
    cells, run = kind(LAYERS), stack_bidirectional_dynamic_rnn
    close(run(cells, cells, X, **given), want, F64)
    if options is not GAPS:
        run = stack_bidirectional_rnn
        outputs, *states = run(cells, cells, STEPS, dtype=F64, **options)
        close((jnp.stack(outputs), *states), want, F64)


def test_warns_once():
    cell, wide = StepByStep(adding(1)), StepByStep(adding(2))
    steps = [np.ones((1, 1))] * UNREASONABLE_STEPS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # As in a program.
        stack_bidirectional_rnn([cell, wide], [cell, wide], steps, dtype=F64)
    assert [w.filename for w in caught] == [__file__]


# Parameters for layers

KEY = jax.random.key(0)


def test_each_layer_reads_both_outputs_of_the_one_below():
    cells_fw = [LSTMCell(5, num_proj=2), DropoutWrapper(GRUCell(7), 0.9)]
    cells_bw = [GRUCell(6), LSTMCell(8)]
    step = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16)
    init = lambda key: init_stack_bidirectional(cells_fw, cells_bw, key, step)
    fw, bw = jax.eval_shape(init, KEY)
    # The first rows of a kernel belong to the inputs, the others to the state.
    assert fw[0]["kernel"].shape == (3 + 2, 4 * 5)
    assert fw[1]["gates"]["kernel"].shape == (2 + 6 + 7, 2 * 7)
    assert bw[1]["kernel"].shape == (2 + 6 + 8, 4 * 8)
    assert {x.dtype for x in jax.tree.leaves((fw, bw))} == {jnp.dtype(jnp.bfloat16)}


def test_no_two_cells_start_alike():
    cells = [GRUCell(3)] * 2
    fw, bw = init_stack_bidirectional(cells, cells, KEY, np.ones((4, 6)))
    kernels = [tuple(p["gates"]["kernel"].ravel().tolist()) for p in fw + bw]
    assert len(set(kernels)) == 4


# Errors

GRU = bound(GRUCell(2))
WIDE = bound(GRUCell(2), 4)
NEST = FunctionCell(summing, DEPTH, {"sum": DEPTH, "twice": [DEPTH]}).bind({})
ONE = [GRUCell(3)]

REFUSALS = [
    (TypeError, "static_bidirectional_rnn: `cell_fw` must be an RNNCell",
     lambda: static_bidirectional_rnn(3, GRU, STEPS, dtype=F64)),
    (TypeError, "`cell_bw` must be a bound cell, got the unbound .*Bind it to its parameters",
     lambda: static_bidirectional_rnn(GRU, GRUCell(2), STEPS, dtype=F64)),
    (ValueError, "dtype must be specified if there is no `initial_state`",
     lambda: static_bidirectional_rnn(GRU, GRU, STEPS, np.zeros((BATCH, 2)))),
    (ValueError, "(?i)shape",
     lambda: static_bidirectional_rnn(adding(DEPTH), adding(DEPTH), [X[0], X[0][:, :1]], None, None, F64, [1] * 4)),
    (ValueError, "the output of `cell_bw` must have the structure",
     lambda: static_bidirectional_rnn(NEST, adding(DEPTH), STEPS, dtype=F64)),
    (ValueError, "stack_bidirectional_rnn: `cells_fw` must be a list of at least one cell",
     lambda: stack_bidirectional_rnn([], [GRU], STEPS, dtype=F64)),
    (ValueError, "`cells_bw` must be a list of at least one cell, one for each layer, got BoundCell",
     lambda: stack_bidirectional_rnn([GRU], GRU, STEPS, dtype=F64)),
    (ValueError, "must have the same depth, got 2 and 1 cells",
     lambda: stack_bidirectional_dynamic_rnn([GRU, WIDE], [GRU], X, dtype=F64)),
    (TypeError, r"stack_bidirectional_dynamic_rnn: `cells_bw\[1\]` must be an RNNCell",
     lambda: stack_bidirectional_dynamic_rnn([GRU, WIDE], [GRU, 3], X, dtype=F64)),
    (ValueError, r"`initial_states_fw` must be a list of 1 states.*got float64\[4, 2\]",
     lambda: stack_bidirectional_dynamic_rnn([GRU], [GRU], X, np.zeros((4, 2)), dtype=F64)),
    (TypeError, "`key` must be a random key", lambda: init_stack_bidirectional(ONE, ONE, 0, X[0])),
    (TypeError, r"`cells_bw\[0\]` must be an unbound cell, such as `jaxrnn.LSTMCell",
     lambda: init_stack_bidirectional(ONE, [lambda x, s: x], KEY, X[0])),
    (TypeError, r"`cells_fw\[0\]` must be an unb",
     lambda: init_stack_bidirectional([GRUCell], ONE, KEY, X[0])),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()


def test_an_error_names_its_layer():
    narrow = [GRU, bound(GRUCell(2), 3)]
    words = "must have shape .* for inputs of depth"
    with pytest.raises(ValueError, match=words) as caught:
        stack_bidirectional_rnn(narrow, narrow, STEPS, dtype=F64)
    notes = "".join(caught.value.__notes__)
    assert "Raised by layer cell_1" in notes
    assert "In this message, `cell` is `cell_fw`" in notes
