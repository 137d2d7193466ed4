"""The mLSTM over whole sequences, chunk by chunk.

With `F_t` the sum of `log f` up to step t of a chunk that starts from `(c, n, m)`,

    c_t = exp(m + F_t) c + sum over s <= t of exp(F_t - F_s + i_s) outer(k_s, v_s)

so that `q_t c_t` is an attention of step t to the steps of the chunk, and one product
with c. Both are divided by `exp(m_t)`, where `m_t = F_t + a_t` and

    a_t = max(m, max over s <= t of i_s - F_s)

which is the m that single steps compute. `F_t` cancels in all weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.typing import Array
from .._time.steps import Steps
from .states import MLSTMState


class Projected(NamedTuple):
    """What steps compute from their inputs alone, besides the output gate.

    `q`, `k` (scaled) and `v` are `[batch, heads, d]`, `i` and `log_f` `[batch, heads]`;
    those of a chunk have an axis of steps after that of the heads.
    """

    q: Array
    k: Array
    v: Array
    i: Array
    log_f: Array


def chunk_size(time: int) -> int:
    """The number of steps of a chunk, of a run of `time` steps.

    Chunks of at most 64, all of one size but the last. Measured on a CPU of 2 cores, in
    float32, with 2 heads of 64 and 128, 1 and 8 rows, and 8 to 1024 steps: for training
    32 to 128 differ by less than the noise for most sizes, 64 is best for heads of 128;
    longer chunks take more time, and shorter ones save more states. Single steps are
    not faster for any number of steps, even 1.
    """
    return -(-time // -(-time // 64))


def normalized(values: Array, dot: Array, m: Array) -> Array:
    """`values / max(|dot|, exp(-m))`, which is max(|q n|, 1) without the scale.

    Args:
        values: q c, `[..., d]`.
        dot: q n, `[...]`.
        m: The scale of c and n, `[...]`.
    """
    # Beyond this exponent float32 overflows; the quotient is 0 in either case.
    least = jnp.exp(-jnp.maximum(m, -80.0))
    # As in the package `xlstm`: both may be 0, the second by underflow.
    return values / (jnp.maximum(jnp.abs(dot), least) + 1e-6)[..., None]


def run_chunks(
    steps: Steps, size: int, projected: Projected, state: MLSTMState
) -> tuple[Array, MLSTMState]:
    """`(h, state)` of all steps, h before the output gate.

    Args:
        steps: Which steps there are; no restarts.
        size: The number of steps of a chunk.
        projected: Of all steps, `[batch, time, heads, ...]`, time along `steps.axis`.
        state: The initial state, of the same dtype.

    Returns:
        h, `[batch, time, heads, d]` with the axes of `projected`; the state after each
        row's last step.
    """
    alive = steps.zero_dead(jnp.ones_like(projected.i)) > 0
    # A step that is not alive forgets nothing and adds nothing.
    projected = projected._replace(
        i=jnp.where(alive, projected.i, -jnp.inf),
        log_f=steps.zero_dead(projected.log_f),
    )
    chunks = _divided(projected, size, steps)
    # What is saved for derivatives are the chunks and the states before them.
    state, h = jax.lax.scan(jax.checkpoint(_chunk, prevent_cse=False), state, chunks)
    h = jnp.moveaxis(h, 0, 2)
    h = h.reshape(*h.shape[:2], -1, h.shape[-1])[:, :, : steps.time]
    return jnp.moveaxis(h, 2, steps.axis), state


def _divided(projected: Projected, size: int, steps: Steps) -> Projected:
    """`[chunks, batch, heads, size, ...]`; steps that are missing change nothing."""
    count = -(-steps.time // size)

    def divide(x: Array, fill: float) -> Array:
        x = jnp.moveaxis(x, steps.axis, 2)
        widths = [(0, 0)] * x.ndim
        widths[2] = (0, count * size - steps.time)
        x = jnp.pad(x, widths, constant_values=fill)
        x = x.reshape(*x.shape[:2], count, size, *x.shape[3:])
        return jnp.moveaxis(x, 2, 0)

    fills = (0.0, 0.0, 0.0, -jnp.inf, 0.0)
    return Projected._make(map(divide, projected, fills))


def _chunk(state: MLSTMState, chunk: Projected) -> tuple[MLSTMState, Array]:
    """`(state, h)` after the steps of one chunk."""
    c, n, m = state
    q, k, v, i, log_f = chunk
    forgotten = jnp.cumsum(log_f, axis=-1)
    added = i - forgotten
    a = jnp.maximum(m[..., None], jax.lax.cummax(added, axis=added.ndim - 1))
    keep = jnp.exp(m[..., None] - a)
    weights = _causal_weights(added, a)
    scores = jnp.einsum("bntd,bnsd->bnts", q, k) * weights
    values = keep[..., None] * jnp.einsum("bntk,bnkv->bntv", q, c)
    values = values + jnp.einsum("bnts,bnsv->bntv", scores, v)
    dot = keep * jnp.einsum("bntk,bnk->bnt", q, n) + jnp.sum(scores, axis=-1)
    h = normalized(values, dot, forgotten + a)
    k, keep = k * weights[..., -1, :, None], keep[..., -1, None]
    c = keep[..., None] * c + jnp.einsum("bnsk,bnsv->bnkv", k, v)
    n = keep * n + jnp.sum(k, axis=-2)
    return MLSTMState(c, n, forgotten[..., -1] + a[..., -1]), h


def _causal_weights(added: Array, a: Array) -> Array:
    """`exp(added_s - a_t)` for s <= t, `[batch, heads, t, s]`, else 0."""
    size = a.shape[-1]
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    weights = added[..., None, :] - a[..., :, None]
    return jnp.exp(jnp.where(causal, weights, -jnp.inf))
