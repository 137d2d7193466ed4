"""Runs the generalized delta rule in chunks, and computes maps of several steps."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from ..._base.typing import Array
from ..._cells.matrix.dplr_rule import DPLRRule
from .chunk import Chunk
from .columns import columns_of
from .decays import KeyDecays
from .rules import register_rule
from .triangular import solve


def run_chunk(rule: DPLRRule, chunk: Chunk) -> tuple[Array, Array]:
    """Runs all steps of a chunk; see `MatrixRule.chunk`.

    A step reads `z = a S`, which depends on earlier z. With the scores of `decays.py`,
    here of the state before step t, and the decayed state S_0 from which the span
    starts,

        z_t - sum over s < t of score(a_t, b_s) z_s
            = a_t S_0 + sum over s < t of score(a_t, k_s) v_s

    The z of all steps are therefore the solution of one triangular system.
    """
    q, k, v, a, b, g = chunk.values
    decays = KeyDecays(chunk, g)
    sum_over = lambda scores, u: jnp.einsum("bnts,bnsv->bntv", scores, u)
    start = decays.read_before(a) + sum_over(decays.scores_before(a, k), v)
    z = solve(-decays.scores_before(a, b), start)
    h = decays.read(q) + sum_over(decays.scores(q, k), v)
    h = h + sum_over(decays.scores(q, b), z)
    return h, decays.memory(k, v) + decays.written(b, z)


def transition(rule: DPLRRule) -> tuple[Callable, Callable, Callable, Callable]:
    """Returns the functions of the map `A S + B`; see `columns.py`."""
    return columns_of(functools.partial(run_chunk, rule))


register_rule(DPLRRule, run_chunk, transition)
