"""Rows in reverse, both directions over a list of steps, and bidirectional layers."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, reverse_sequence
from jaxrnn.testing._oracle import close

F64 = jnp.dtype("float64")
TIME, BATCH, DEPTH = 3, 4, 2


# Layers


def adding(size):
    step = lambda p, x, s, key=None: (s + x, s + x)
    return FunctionCell(step, size, size).bind({})


DRAWN = np.random.default_rng(1).random((2, TIME, BATCH))
GAPS = {"mask": DRAWN[0] < 0.7, "resets": DRAWN[1] < 0.5}


def test_a_layer_reads_both_directions_of_the_one_below_with_gaps():
    """The goldens of `tests/tf1` have lengths, and lists of steps."""
    cells, states = [adding(DEPTH), adding(2 * DEPTH)], []
    given = {"dtype": F64, "time_major": True, **GAPS}
    first = x = np.random.default_rng(0).normal(size=(TIME, BATCH, DEPTH))
    for cell in cells:
        outputs, last = jaxrnn.bidirectional_dynamic_rnn(cell, cell, x, **given)
        x = jnp.concatenate(outputs, axis=-1)
        states.append(last)
    got = jaxrnn.stack_bidirectional_dynamic_rnn(cells, cells, first, **given)
    close(got, (x, *zip(*states, strict=True)), F64)


def test_a_reset_just_after_the_last_step_of_a_row_is_no_reset():
    """The backward direction begins at the last step, from its initial state."""
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
    lengths, states = np.array([2, 1, 3, 0]), np.full((2, BATCH, DEPTH), 5.0)
    resets = np.arange(TIME) == lengths[:, None]
    run = functools.partial(
        jaxrnn.bidirectional_dynamic_rnn, adding(DEPTH), adding(DEPTH), x, lengths
    )
    got = run(*states, resets=resets)
    inside = np.arange(TIME) < lengths[:, None]
    sums = 5 + np.cumsum(np.where(inside[..., None], x, 0)[:, ::-1], axis=1)
    close(got[0][1], np.where(inside[..., None], sums[:, ::-1], 0), F64)
    close(got[1][1], sums[:, -1], F64)


def test_the_implementation_is_that_of_every_layer():
    cell, x = adding(DEPTH), np.ones((BATCH, TIME, DEPTH))
    with pytest.raises(ValueError, match="`implementation` 'native'") as caught:
        jaxrnn.stack_bidirectional_dynamic_rnn(
            [cell], [cell], x, dtype=F64, implementation="native"
        )
    assert any("Raised by layer 0" in note for note in caught.value.__notes__)


# Parameters for layers

KEY = jax.random.key(0)


def test_each_layer_reads_both_outputs_of_the_one_below():
    cells_fw = [LSTMCell(5, num_proj=2), jaxrnn.DropoutWrapper(GRUCell(7), 0.9)]
    cells_bw = [GRUCell(6), LSTMCell(8)]
    step = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16)
    init = lambda key: jaxrnn.init_stack_bidirectional(cells_fw, cells_bw, key, step)
    fw, bw = jax.eval_shape(init, KEY)
    # The first rows of a kernel belong to the inputs, the others to the state.
    assert fw[0]["kernel"].shape == (3 + 2, 4 * 5)
    assert fw[1]["gates"]["kernel"].shape == (2 + 6 + 7, 2 * 7)
    assert bw[1]["kernel"].shape == (2 + 6 + 8, 4 * 8)
    assert {x.dtype for x in jax.tree.leaves((fw, bw))} == {jnp.dtype(jnp.bfloat16)}


def test_no_two_cells_start_alike():
    cells = [GRUCell(3)] * 2
    fw, bw = jaxrnn.init_stack_bidirectional(cells, cells, KEY, np.ones((4, 6)))
    kernels = [tuple(p["gates"]["kernel"].ravel().tolist()) for p in fw + bw]
    assert len(set(kernels)) == 4


# `reverse_sequence`, against a NumPy loop and what TensorFlow 2.21 accepts

COUNTS = np.array([5, 0, 3, 1], np.int32)
ROWS = np.random.default_rng(0).normal(size=(4, 5, 3))


def reversed_rows(x, lengths, seq_axis=1, batch_axis=0):
    """`tf.reverse_sequence`, row by row."""
    made = x.copy()
    rows = np.moveaxis(made, (batch_axis, seq_axis), (0, 1))
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    return made


AXES = [(1, 0), (0, 1), (2, 0), (1, 2), (2, 1), (3, 1), (0, 3)]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_any_two_axes(axes):
    x, lengths = np.arange(5.0**4).reshape(5, 5, 5, 5), [5, 0, 3, 1, 2]
    want = reversed_rows(x, lengths, *axes)
    np.testing.assert_array_equal(reverse_sequence(x, lengths, *axes), want)


def test_traced_lengths_are_clamped_as_in_drivers():
    """The gradient is the reversed cotangent: the reversal is its own transpose."""

    reverse = lambda x, n: jax.vjp(lambda x: reverse_sequence(x, n, 1), x)[1](ROWS)[0]
    got = jax.jit(reverse)(np.zeros_like(ROWS), np.array([9, -2, 3, 1]))
    np.testing.assert_array_equal(got, reversed_rows(ROWS, COUNTS))


def test_vmap_over_lengths():
    lengths = np.stack([COUNTS, COUNTS[::-1]])
    run = jax.vmap(functools.partial(reverse_sequence, seq_axis=1), (None, 0))
    want = np.stack([reversed_rows(ROWS, each) for each in lengths])
    np.testing.assert_array_equal(run(ROWS, lengths), want)


def test_a_nest_is_reversed_leaf_by_leaf_and_keeps_dtypes():
    nest = {"ids": ROWS[..., 0] > 0, "x": [ROWS.astype(np.float32)]}
    want = jax.tree.map(lambda x: reversed_rows(x, COUNTS), nest)
    assert_same(reverse_sequence(nest, list(COUNTS), 1), want)


@pytest.mark.fast("True")
@pytest.mark.parametrize("known", [False, True])
def test_a_symbolic_number_of_steps(known):
    batch, time = jax.export.symbolic_shape("batch, time")
    x = jax.ShapeDtypeStruct((4 if known else batch, time, 3), ROWS.dtype)
    given = () if known else (COUNTS,)
    run = jax.jit(lambda x, lengths=COUNTS: reverse_sequence(x, lengths, 1))
    types = [jax.ShapeDtypeStruct((batch,), n.dtype) for n in given]
    program = jax.export.export(run)(x, *types)
    want = reversed_rows(ROWS, COUNTS)
    np.testing.assert_array_equal(program.call(ROWS, *given), want)


def test_rows_after_time_on_a_mesh():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(ROWS.T, NamedSharding(mesh, P(None, None, "rows")))
        got = jax.jit(lambda x, n: reverse_sequence(x, n, 1, 2))(x, COUNTS)
    np.testing.assert_array_equal(got.T, reversed_rows(ROWS, COUNTS))
    assert got.sharding.spec[2] == "rows"
