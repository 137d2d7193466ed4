"""What tests of several folders share: contexts, comparisons, derivatives, cells."""

import contextlib

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.testing._oracle import weighted_sum


@contextlib.contextmanager
def usual_promotion():
    """JAX's own rules, which other libraries rely on, in place of `conftest.py`'s."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def differentiated(run, *given):
    """The results of `run(*given)`, and the gradients of a weighted sum of them."""

    def loss(*given):
        results = run(*given)
        return weighted_sum(results), results

    gradient = jax.grad(loss, tuple(range(len(given))), has_aux=True)
    gradients, results = jax.jit(gradient)(*given)
    return results, gradients


def near(got, want, *, tolerance):
    """Equal up to rounding, relative to the largest number of each leaf."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (g.dtype, g.shape) == (w.dtype, w.shape)
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert np.all(np.isfinite(w))
        scale = max(1.0, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g / scale, w / scale, rtol=0, atol=tolerance)


def same_bits(got, want):
    """The same structures, dtypes, shapes and bits."""
    chex.assert_trees_all_equal_structs(got, want)  # Leaves may be strings.
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w), strict=True)


def bound(cell, depth=3, dtype="float64", seed=0):
    """A cell with parameters none of which is zero."""
    step = jax.ShapeDtypeStruct((1, depth), jnp.dtype(dtype))
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), step, step.dtype))
    draw = np.random.default_rng(seed).normal
    return cell.bind(jax.tree.map(lambda p: draw(size=p.shape).astype(p.dtype), params))


def below(prefix, arrays):
    """Those of the arrays whose name begins so, by the rest of it."""
    return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}


def normalized(params, inputs, state, key=None):
    """A step that is not defined at zero inputs, let alone differentiable."""
    direction = inputs / jnp.linalg.norm(inputs, axis=-1, keepdims=True)
    state = jnp.tanh(direction @ params["w"] + state)
    return state, state


def eqns(jaxpr):
    """All equations of a program, those of inner programs too, in order."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from eqns(inner)
