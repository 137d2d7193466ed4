"""The mLSTM over whole sequences, chunk by chunk.

With `F_t` the sum of `log f` up to step t of a chunk that starts from `(c, n, m)`,

    c_t = exp(m + F_t) c + sum over s <= t of exp(F_t - F_s + i_s) outer(k_s, v_s)

so that `q_t c_t` is an attention of step t to the steps of the chunk, and one product
with c. Both are divided by `exp(m_t)`, where `m_t = F_t + a_t` and

    a_t = max(m, max over s <= t of i_s - F_s)

which is the m that single steps compute. `F_t` cancels in all weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._base.typing import Array
from .._time.steps import Steps, at_each_step
from ..memory._segments import run_in_segments
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


Project = Callable[[Array], tuple[Array, Projected]]


def chunk_size(time: int) -> int:
    """The number of steps of a chunk, of a run of `time` steps.

    Chunks of at most 64, all of one size but the last. Measured on a CPU of 2 cores, in
    float32, with heads of 64 and 128, 1 and 8 rows, and up to 8192 steps: training with
    chunks of 32 to 128 differs by little more than the noise, and longer ones are
    slower and round more where gates are shut. Training step by step is never faster,
    and takes 6 to 20 times as long from 256 steps on.
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
    steps: Steps, size: int, project: Project, inputs: Array, state: MLSTMState
) -> tuple[Array, MLSTMState]:
    """`(outputs, state)` of all steps.

    Args:
        steps: Which steps there are; no restarts.
        size: The number of steps of a chunk.
        project: `project(inputs) -> (o, projected)` of one step, `[batch, depth]`; o is
            the output gate, `[batch, heads * d]`.
        inputs: `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, of the dtype of what `project` returns.

    Returns:
        The outputs, `[batch, time, heads * d]` with the axes of `inputs`, of any value
        in rows that are not alive; the state after each row's last step.
    """

    def run_chunk(
        inputs: Array, state: MLSTMState, steps: Steps
    ) -> tuple[Array, MLSTMState]:
        o, projected = at_each_step(project, steps.fill_dead(inputs))
        projected = _masked(steps, projected)
        by_head = jax.tree.map(lambda x: jnp.moveaxis(x, steps.axis, 2), projected)
        state, h = _attend(state, by_head)
        return o * jnp.moveaxis(h, 2, steps.axis).reshape(o.shape), state

    # What is saved for derivatives are the inputs, and the states before the chunks.
    # The products of a chunk are large enough: those of all steps at once are slower,
    # and take several times the memory.
    return run_in_segments(size, run_chunk, inputs, state, steps)


def _masked(steps: Steps, projected: Projected) -> Projected:
    """A step that is not alive forgets nothing and adds nothing."""
    alive = steps.alive_steps()
    if alive is None:
        return projected
    i = jnp.where(alive[..., None], projected.i, -jnp.inf)
    return projected._replace(i=i, log_f=steps.zero_dead(projected.log_f))


def _attend(state: MLSTMState, chunk: Projected) -> tuple[MLSTMState, Array]:
    """The state after a chunk, and h, `[batch, heads, steps, d]`, of its steps."""
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
