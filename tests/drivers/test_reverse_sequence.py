"""`reverse_sequence`, against a NumPy loop and what TensorFlow 2.21 accepts."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxrnn import reverse_sequence

LENGTHS = np.array([5, 0, 3, 1], np.int32)
X = np.random.default_rng(0).normal(size=(4, 5, 3))


def reversed_rows(x, lengths, seq_axis, batch_axis):
    """`tf.reverse_sequence`, entry by entry."""
    made = x.copy()
    for row, length in enumerate(lengths):
        for t in range(length):
            at, source = [slice(None)] * x.ndim, [slice(None)] * x.ndim
            at[batch_axis] = source[batch_axis] = row
            at[seq_axis], source[seq_axis] = t, length - 1 - t
            made[tuple(at)] = x[tuple(source)]
    return made


AXES = [(1, 0), (0, 1), (2, 0), (1, 2), (2, 1), (3, 1), (0, 3)]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_any_two_axes(axes):
    x = np.random.default_rng(1).normal(size=(5, 5, 5, 5))
    lengths = np.array([5, 0, 3, 1, 2])
    want = reversed_rows(x, lengths, *axes)
    np.testing.assert_array_equal(reverse_sequence(x, lengths, *axes), want)


def test_traced_lengths_are_clamped_as_in_drivers():
    """The gradient is the reversed cotangent: the reversal is its own transpose."""

    @jax.jit
    def run(x, lengths):
        return jax.vjp(lambda x: reverse_sequence(x, lengths, 1), x)[1](X)[0]

    got = run(jnp.zeros(X.shape), np.array([9, -2, 3, 1]))
    np.testing.assert_array_equal(got, reversed_rows(X, LENGTHS, 1, 0))


def test_vmap_over_lengths():
    lengths = np.stack([LENGTHS, LENGTHS[::-1]])
    run = jax.vmap(functools.partial(reverse_sequence, seq_axis=1), (None, 0))
    want = np.stack([reversed_rows(X, each, 1, 0) for each in lengths])
    np.testing.assert_array_equal(run(X, lengths), want)


def test_a_nest_is_reversed_leaf_by_leaf_and_keeps_dtypes():
    nest = {"ids": X[..., 0] > 0, "x": [X.astype(np.float32)]}
    got = reverse_sequence(nest, list(LENGTHS), 1)
    want = jax.tree.map(lambda x: reversed_rows(x, LENGTHS, 1, 0), nest)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(g, w, strict=True)


def test_symbolic_sizes():
    batch, time = jax.export.symbolic_shape("batch, time")
    x = jax.ShapeDtypeStruct((batch, time, 3), X.dtype)
    lengths = jax.ShapeDtypeStruct((batch,), np.int32)
    run = jax.jit(functools.partial(reverse_sequence, seq_axis=1))
    program = jax.export.export(run)(x, lengths)
    want = reversed_rows(X, LENGTHS, 1, 0)
    np.testing.assert_array_equal(program.call(X, LENGTHS), want)


def test_known_lengths_of_a_symbolic_number_of_steps():
    (time,) = jax.export.symbolic_shape("time")
    x = jax.ShapeDtypeStruct((4, time, 3), X.dtype)
    run = jax.jit(lambda x: reverse_sequence(x, LENGTHS, 1))
    want = reversed_rows(X, LENGTHS, 1, 0)
    np.testing.assert_array_equal(jax.export.export(run)(x).call(X), want)


def test_on_a_mesh():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    run = jax.jit(reverse_sequence, static_argnums=(2, 3))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("rows")))
        got = run(x, LENGTHS, 1, 0)
        swapped = run(jnp.moveaxis(x, 0, 2), LENGTHS, 0, 2)
    np.testing.assert_array_equal(got, reversed_rows(X, LENGTHS, 1, 0))
    np.testing.assert_array_equal(np.moveaxis(swapped, 2, 0), got)
    assert got.sharding.spec[0] == swapped.sharding.spec[2] == "rows"


# TensorFlow refuses these too, except NumPy's floats as lengths and 1.0 as an axis.
REFUSALS = {
    "above": (ValueError, "between 0 and .* 5, got 6", ([6, 0, 0, 0], 1)),
    "negative": (ValueError, "between 0 and .* 5, got -1", ([1, -1, 0, 0], 1)),
    "count": (ValueError, r"each of 4 rows, got int\d+\[3\]", ([1, 1, 1], 1)),
    "count_of_axis": (ValueError, "length for each of 3 rows", ([1, 1], 1, 2)),
    "scalar": (ValueError, r"length for each of 4 rows, got int\d+\[\]", (3, 1)),
    "none": (ValueError, "`seq_lengths` must be given.*jnp.flip", (None, 1)),
    "floats": (TypeError, "must hold integers", (LENGTHS.astype(float), 1)),
    "no_axis": (TypeError, "`seq_axis` must be an integer, got None", (LENGTHS,)),
    "float_axis": (TypeError, "`seq_axis` must be an integer", (LENGTHS, 1.0)),
    "axis_from_the_end": (ValueError, "`seq_axis` must be at least 0", (LENGTHS, -1)),
    "rows_from_the_end": (ValueError, "`batch_axis` must be at", (LENGTHS, 1, -1)),
    "same": (ValueError, "differ from `batch_axis`, got 0 for both", (LENGTHS, 0)),
    "rank": (ValueError, "rank at least 4, .* 3 .time.", (LENGTHS, 3)),
    "rank_of_rows": (ValueError, "rank at least 4, .* 3 .rows.", (LENGTHS, 1, 3)),
    "name": (TypeError, "`name` must be a string", (LENGTHS, 1, 0, 5)),
}


NESTS = {
    "steps": (ValueError, r"number of steps must be .* axis 1", (X, X[:, :4])),
    "rows": (ValueError, r"number of rows must be .* along axis 0", (X, X[:3])),
    "empty": (ValueError, "at least one array", ()),
    "nothing": (ValueError, r"`input\[1\]` must be an array", [X, None]),
    "text": (TypeError, r"`input\['a'\]` must be an array", {"a": "x"}),
}
ROWS = [(kind, message, (X, *given)) for kind, message, given in REFUSALS.values()]
ROWS += [(kind, message, (nest, LENGTHS, 1)) for kind, message, nest in NESTS.values()]


@pytest.mark.parametrize(("kind", "message", "given"), ROWS, ids=[*REFUSALS, *NESTS])
def test_refuses(kind, message, given):
    with pytest.raises(kind, match=f"^reverse_sequence: .*{message}"):
        reverse_sequence(*given)


def test_refuses_steps_that_a_mesh_divides():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X[:, :4], NamedSharding(mesh, P(None, "d")))
        with pytest.raises(ValueError, match=r"not be divided along axis 1.*@d"):
            reverse_sequence(x, [1, 1, 1, 1], 1)
