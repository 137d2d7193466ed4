"""What the tests of converters of JAX's libraries share."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.testing._oracle import weighted_sum

BATCH, TIME, DEPTH = 2, 4, 3
RTOL, ATOL = 1e-11, 1e-12


@contextlib.contextmanager
def as_others_like_it():
    """Without the strictness of `conftest.py`, under which other libraries break."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def random_like(shapes, seed=0, dtype=np.float64):
    """Numbers for each leaf; no bias is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: (0.7 * rng.normal(size=s.shape)).astype(dtype), shapes
    )


X = random_like(jax.ShapeDtypeStruct((BATCH, TIME, DEPTH), np.float64), 7)


def bound(cell, dtype=np.float64, depth=DEPTH, seed=1):
    """The cell with random parameters."""
    step = jax.ShapeDtypeStruct((BATCH, depth), dtype)
    shapes = jax.eval_shape(cell.init, jax.random.key(0), step)
    return cell.bind(random_like(shapes, seed, dtype))


def one_way(cell, x):
    """What the other library's run is compared with."""
    return jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)


def both_ways(cells, x):
    """The same for two directions."""
    return jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, dtype=x.dtype)


def differentiated(run, weights, x=X):
    """The results, and the gradients of their weighted sum by weights and inputs."""

    def loss(weights, x):
        results = jax.tree.leaves(run(weights, x))
        return weighted_sum(results), results

    weights, x = jax.tree.map(jnp.asarray, (weights, x))
    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(weights, x)


def near(got, want):
    """The same structures and, up to rounding, numbers."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, RTOL, ATOL)


def same_bits(got, want):
    """The same structures, dtypes, shapes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w), strict=True)


def same_cell(got, want):
    """Equal cells with the same parameters."""
    assert got.cell == want.cell
    same_bits(got.params, want.params)


def hold_to(theirs, ours, weights, cells, save):
    """Results and gradients of their run are those of ours, in their layout.

    As all layouts are the same numbers in other places, or with another sign, `save`
    does to gradients what it does to weights.
    """
    with as_others_like_it():
        (of_weights, of_x), want = differentiated(theirs, weights)
    (slopes, slope), got = differentiated(ours, cells)
    near(got[: len(want)], want)
    near(slope, of_x)
    near(save(slopes), jax.tree.map(np.asarray, of_weights))
