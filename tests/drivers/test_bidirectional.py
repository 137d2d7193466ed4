"""Two directions, layers of them and modules, and rows in reverse."""

import functools
import inspect

import jax
import jax.export
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, assert_same, bound, draw
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import FunctionCell, GRUCell, LSTMCell, reverse_sequence
from jaxrnn.testing._oracle import close

from ..meshes.test_drivers import CELLS, SECOND, values

F64 = jnp.dtype("float64")
TIME, BATCH, DEPTH = 3, 4, 2


def adding(size):
    step = lambda p, x, s, key=None: (s + x, s + x)
    return FunctionCell(step, size, size).bind({})


def test_a_reset_just_after_the_last_step_of_a_row_is_no_reset():
    """The backward direction begins at the last step, from its initial state."""
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
    lengths, states = np.array([2, 1, 3, 0]), np.full((2, BATCH, DEPTH), 5.0)
    resets = np.arange(TIME) == lengths[:, None]
    run = functools.partial(
        jaxrnn.bidirectional_dynamic_rnn, adding(DEPTH), adding(DEPTH), x, lengths
    )
    got = jax.jit(lambda *states: run(*states, resets=resets))(*states)
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


# An argument of `dynamic_rnn` means the same in two directions, layers and modules.

STEPS = 5
CELL, OTHER = bound(CELLS["affine"]), bound(SECOND)
VALUES = values(CELL.cell, STEPS)
ARGUMENTS = sorted(VALUES.keys() & inspect.signature(jaxrnn.dynamic_rnn).parameters)


TWO_WAYS = sorted({*ARGUMENTS} - {"reset_state", "return_states"})


def given(name):
    """The inputs and the options of a run with the argument."""
    options = {name: VALUES[name]}
    if name == "reset_state":
        options["resets"] = VALUES["resets"]
    axes = (STEPS, mesh.BATCH) if name == "time_major" else (mesh.BATCH, STEPS)
    return draw(*axes, mesh.DEPTH), options


@pytest.mark.fast("time_major")
@pytest.mark.parametrize("name", TWO_WAYS)
def test_the_first_of_two_directions_runs_like_one(name):
    x, options = given(name)
    want = jaxrnn.dynamic_rnn(CELL, x, dtype=F64, **options)
    if "initial_state" in options:
        options = {"initial_state_fw": options["initial_state"]}
    run = jaxrnn.bidirectional_dynamic_rnn
    outputs, states = run(CELL, OTHER, x, dtype=F64, **options)
    assert_near((outputs[0], states[0]), want, tolerance=1e-12)


@pytest.mark.fast("time_major")
@pytest.mark.parametrize("name", TWO_WAYS)
def test_a_layer_of_two_directions_runs_like_them(name):
    """Two layers, because a layer's outputs are the inputs of the next one."""
    x, options = given(name)
    above = bound(SECOND, 2 * mesh.UNITS), bound(CELL.cell, 2 * mesh.UNITS)
    options.pop("initial_state", None)
    want, states = x, []
    for fw, bw in [(CELL, OTHER), above]:
        run = jaxrnn.bidirectional_dynamic_rnn
        outputs, state = run(fw, bw, want, dtype=F64, **options)
        want = jnp.concatenate(outputs, axis=2)
        states.append(state)
    run = jaxrnn.stack_bidirectional_dynamic_rnn
    got = run([CELL, above[0]], [OTHER, above[1]], x, dtype=F64, **options)
    assert_near(got, (want, *zip(*states, strict=True)), tolerance=1e-12)


def in_nnx(x, options, arguments):
    size = {"rngs": nnx.Rngs(0), "dtype": F64, "param_dtype": F64}
    module = jaxrnn.nnx.RNN(CELL.cell, mesh.DEPTH, **options, **size)
    module.set_cells(CELL)
    return module(x, **arguments)


def in_linen(x, options, arguments):
    module = jaxrnn.linen.RNN(CELL.cell, dtype=F64, param_dtype=F64, **options)
    return module.apply(module.variables_of(CELL), x, **arguments)


@pytest.mark.fast("time_major-*", "sequence_length-*")
@pytest.mark.parametrize("run", [in_nnx, in_linen])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_module_runs_like_the_driver(name, run):
    x, options = given(name)
    want = jaxrnn.dynamic_rnn(CELL, x, dtype=F64, **options)
    of_call = inspect.signature(jaxrnn.nnx.RNN.__call__).parameters
    arguments = {n: options.pop(n) for n in [*options] if n in of_call}
    state, outputs, *states = run(x, options, arguments | {"return_carry": True})
    assert_near((outputs, state, *states), want, tolerance=1e-12)


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


AXES = [(1, 0), (0, 1), (2, 1), (0, 3)]


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


def test_a_nest_is_reversed_leaf_by_leaf_and_keeps_dtypes():
    nest = {"ids": ROWS[..., 0] > 0, "x": [ROWS.astype(np.float32)]}
    want = jax.tree.map(lambda x: reversed_rows(x, COUNTS), nest)
    assert_same(reverse_sequence(nest, list(COUNTS), 1), want)


def test_rows_after_time_on_a_mesh():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(ROWS.T, NamedSharding(mesh, P(None, None, "rows")))
        got = jax.jit(lambda x, n: reverse_sequence(x, n, 1, 2))(x, COUNTS)
    np.testing.assert_array_equal(got.T, reversed_rows(ROWS, COUNTS))
    assert got.sharding.spec[2] == "rows"
