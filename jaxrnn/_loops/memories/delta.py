"""Runs the delta rule in chunks, and computes the maps of several steps."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from ..._base.typing import Array
from ..._base.unit_axes import scaled
from ..._cells.matrix.delta_rule import DeltaRule
from .chunk import Chunk
from .columns import columns_of
from .decays import decays_of
from .rules import register_rule
from .triangular import solve


def run_chunk(rule: DeltaRule, chunk: Chunk) -> tuple[Array, Array]:
    """Runs all steps of a chunk; see `MatrixRule.chunk`.

    A step writes `u = beta (v - k exp(g) S)`, which depends on earlier u. With the
    scores of `decays.py`, and the decayed state S_0 from which the span starts,

        u_t + beta_t sum over s < t of score(k_t, k_s) u_s = beta_t (v_t - k_t S_0)

    The u of all steps are therefore the solution of one triangular system.

    Source: arXiv:2412.06464, section 3.3; arXiv:2406.06484, section 3.
    """
    q, k, v, g, beta = chunk.values
    decays = decays_of(chunk, g)
    # Mask last, because the cotangents of the masked pairs may overflow.
    between = jnp.tril(scaled(beta, decays.scores(k, k)), -1)
    u = solve(between, scaled(beta, v - decays.read(k)))
    new = jnp.einsum("bnts,bnsv->bntv", decays.scores(q, k), u)
    return decays.read(q) + new, decays.memory(k, u)


def transition(rule: DeltaRule) -> tuple[Callable, Callable, Callable, Callable]:
    """Returns the functions of the map `A S + B`; see `columns.py`."""
    return columns_of(functools.partial(run_chunk, DeltaRule()))


register_rule(DeltaRule, run_chunk, transition)
