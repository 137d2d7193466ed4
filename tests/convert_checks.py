"""Shared code of the tests of converters for JAX libraries."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, differentiated, usual_promotion

import jaxrnn

BATCH, TIME, DEPTH = 2, 4, 3
RTOL, ATOL = 1e-11, 1e-12


def random_like(shapes, seed=0, dtype=np.float64):
    """Random numbers for each leaf, so no bias is zero."""
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
    """The run of jaxrnn to compare with the other library."""
    return jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)


def both_ways(cells, x):
    """The run of jaxrnn in both directions."""
    return jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, dtype=x.dtype)


def same_cell(got, want):
    """Equal cells with the same parameters."""
    assert got.cell == want.cell
    assert_same(got.params, want.params)


def hold_to(theirs, ours, weights, load, x=X):
    """Assert that the other library has the same results and gradients.

    The gradients are with respect to the weights in the layout of that library.
    """
    assert_near = functools.partial(chex.assert_trees_all_close, rtol=RTOL, atol=ATOL)
    weights, x = jax.tree.map(jnp.asarray, (weights, x))
    with usual_promotion():
        want, slopes = differentiated(theirs, weights, x)
    run = lambda weights, x: ours(load(weights), x)
    got, own_slopes = differentiated(run, weights, x)
    want = jax.tree.leaves(want)
    assert_near(jax.tree.leaves(got)[: len(want)], want)
    assert_near(own_slopes, slopes)
