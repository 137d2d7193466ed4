"""Runs and gradients, to compare with those of XLA's loop."""

import jax
import numpy as np

from jaxrnn.testing._oracle import weighted_sum


def differentiated(run, params, x, state):
    """The results of `run(params, x, state)`, and the gradients by all three."""

    def loss(params, x, state):
        results = run(params, x, state)
        return weighted_sum(results), results

    grad = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, results), gradients = grad(params, x, state)
    return results, gradients


def near(got, want, *, tolerance):
    """Equal up to rounding, relative to the largest number of each leaf."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (g.dtype, g.shape) == (w.dtype, w.shape)
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert np.all(np.isfinite(w))
        scale = max(1.0, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g / scale, w / scale, rtol=0, atol=tolerance)
