"""Runs an mLSTM in chunks, and computes the maps of several steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from ..._base.unit_axes import scaled
from ..._cells.matrix.mlstm_rule import MLSTMRule, MLSTMState, divisor_of
from .chunk import Chunk
from .rules import register_rule


def run_chunk(rule: MLSTMRule, chunk: Chunk) -> tuple[Array, MLSTMState]:
    """Runs all steps of a chunk; see `MatrixRule.chunk`.

    A span begins at the start of the chunk and at each reset of the state. Let
    `F_t` be the sum of `log_f` from the first step of the span of t up to t.
    Step t computes the same m as `step`:

        m_t = F_t + a_t,    a_t = max(m_0, max_s (i_s - F_s))

    Here, s runs over the steps of this span up to t, and m_0 is the m before the span.
    Adding `F_t` to `a_t` would lose digits of `a_t`, and `F_t` cancels in every weight.
    So the weights are computed without `F_t`, from whole numbers and exact sums. They
    use an m that is too small by up to about 1 (`below`). The returned states are
    rescaled.
    """
    q, k, v, i, f = chunk.values
    coarse, fine = chunk.sums_of_parts(jax.nn.log_sigmoid(f))
    m = chunk.start(lambda state: state.m)
    a = jnp.maximum(m, chunk.maxima(i - (coarse + fine)))
    # While the memory is empty, m and a are -inf, and m - a would be NaN.
    is_empty = a == -jnp.inf
    below = jnp.where(is_empty, 0.0, a - jnp.floor(a) + fine)
    a, whole = jnp.floor(a), jnp.floor(i)
    keep = jnp.exp(jnp.where(is_empty, 0.0, m - a))
    exp_fraction = jnp.exp(jnp.where(whole == -jnp.inf, 0.0, i - whole) - fine)
    k, added = scaled(exp_fraction, k), whole - coarse
    pairs = chunk.pairs(-jnp.where(is_empty, 0.0, a), added)
    scores = chunk.scores(q, k, pairs)
    old_values = chunk.read(q, _memory)
    old_dot = chunk.read(q, _normalizer)[..., 0]
    values = jnp.einsum("bnts,bnsv->bntv", scores, v)
    values = values + scaled(keep, old_values)
    # `coarse` has no derivative, so this factor carries the derivative of `F_t`.
    factor = jnp.exp(fine)
    dot = factor * (keep * old_dot + jnp.sum(scores, axis=-1))
    # Without the barrier, XLA computes the divisor again for each number.
    divisor = jax.lax.optimization_barrier(divisor_of(dot, coarse + a, below))
    h = scaled(factor / divisor, values)
    keep, pairs, m = map(chunk.after, (keep, pairs, coarse + a + fine))
    # Select the steps before this product. Otherwise, the gradient would multiply
    # zeros for all other steps.
    written = jnp.max(exp_fraction[:, :, None] * pairs, axis=-1)
    largest = jnp.maximum(keep, written)
    # Divide the factors rather than the memory, which has more numbers.
    keep, pairs = keep / largest, pairs / largest[..., None]
    c = chunk.memory(_memory, keep, pairs, k, v)
    n = chunk.memory(_normalizer, keep, pairs, k, jnp.ones_like(f)[..., None])
    return h, MLSTMState(c, n[..., 0], m + jnp.log(largest))


def _memory(state: MLSTMState) -> Array:
    return state.c


def _normalizer(state: MLSTMState) -> Array:
    """The normalizer as a matrix with one column: a step writes the value 1 at k."""
    return state.n[..., None]


class MLSTMMap(NamedTuple):
    """The map of several steps of an mLSTM.

    Attributes:
        written: The `MLSTMState` after the steps if the memory was empty before them.
        log_keep: The sum of `log(sigmoid(f))`, `[batch, heads]`; -inf if the map is
            constant.
    """

    written: MLSTMState[Array]
    log_keep: Array


def _map_of_chunk(chunk: Chunk) -> tuple[Array, MLSTMMap]:
    """Runs all steps of a chunk with maps in place of states."""
    h, written = run_chunk(MLSTMRule(), chunk.map_states(lambda state: state.written))
    log_keep = chunk.sums(jax.nn.log_sigmoid(chunk.values.f))
    log_keep += chunk.start(lambda state: state.log_keep)
    return h, MLSTMMap(written, chunk.after(log_keep))


def _identity(state: MLSTMState) -> MLSTMMap:
    empty = jax.tree.map(jnp.zeros_like, state)
    return MLSTMMap(empty._replace(m=empty.m - jnp.inf), empty.m)


def _constant(state: MLSTMState) -> MLSTMMap:
    return MLSTMMap(state, jnp.full_like(state.m, -jnp.inf))


def _map_state(state_map: MLSTMMap, state: MLSTMState) -> MLSTMState:
    """Computes `exp(log_keep) C + written`, scaled by the larger of their two m."""
    written, log_keep = state_map
    old = log_keep + state.m
    m = jnp.maximum(old, written.m)
    # If both memories are empty, m is -inf, and x - m would be NaN.
    scale = lambda x: jnp.exp(jnp.where(m == -jnp.inf, 0.0, x - m))[..., None]
    kept, added = scale(old), scale(written.m)
    n = kept * state.n + added * written.n
    c = kept[..., None] * state.c + added[..., None] * written.c
    return MLSTMState(c, n, m)


_MAPS = _map_of_chunk, _identity, _constant, _map_state
register_rule(MLSTMRule, run_chunk, lambda rule: _MAPS)
