"""The LSTM with a matrix memory (mLSTM), part of the xLSTM.

Whole sequences are run chunk by chunk. Let `F_t` be the sum of `log f` up to step t of
a chunk that starts from `(c, n, m)`. Then

    c_t = exp(m + F_t) c + sum over s <= t of exp(F_t - F_s + i_s) outer(k_s, v_s)

so `q_t c_t` is the sum of two terms: an attention from step t over the steps of the
chunk, and a product with c. Both terms are divided by `exp(m_t)`, where
`m_t = F_t + a_t` and

    a_t = max(m, max over s <= t of i_s - F_s)

Single steps compute the same m. `F_t` cancels in all weights.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.math import affine, at_least_float32, widest_dtype
from .._base.trees import TensorShape, serializable
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from .._loops.scans import run_in_segments
from .._loops.steps import DeclinedError, Run, Steps, at_each_step
from . import fields
from .base import SpecsCell, scope_name
from .linear_recurrence import for_many_steps
from .params import ParamSpec, Specs, glorot_uniform, head_size, zeros


@serializable
class MLSTMState(NamedTuple):
    """The state of an mLSTM: the memory `c`, its normalizer `n`, and their scale `m`.

    The actual memory and normalizer are `exp(m) * c` and `exp(m) * n`, which could
    overflow. The order of the fields matches the package `xlstm`.
    """

    c: PyTree
    n: PyTree
    m: PyTree


# Forget gates are clipped to this minimum, because a sigmoid in float32 cannot be much
# smaller. A chunk subtracts sums of the gates' logarithms. Without the clip, a very
# large logarithm would round away the terms of other steps, and an infinite one would
# give NaN.
_SHUT = -87.0


class Projected(NamedTuple):
    """The values that depend only on the inputs of a step, except the output gate.

    `q`, `k` (scaled) and `v` are `[batch, heads, d]`; `i` and `log_f` are
    `[batch, heads]`. In a chunk, an axis of steps follows the axis of heads.
    """

    q: Array
    k: Array
    v: Array
    i: Array
    log_f: Array


InputsAlone = tuple[Array, Projected]
"""The output gate, then the other values that depend only on the inputs."""


@final
@fields.dataclass
class MLSTMCell(SpecsCell):
    """An LSTM with a matrix memory (mLSTM): a linear attention with gates.

    For each head, with `k` scaled by `1 / sqrt(d)`:

        q, k, v, o, i, f = split(x kernel + bias)
        c'     = sigmoid(f) * c + exp(i) * outer(k, v)
        n'     = sigmoid(f) * n + exp(i) * k
        output = sigmoid(o) * (q c') / max(|q n'|, 1)

    Each head has one scalar for each of the gates i and f; o has the size of the
    output. To keep exp(i) in range, the state holds c and n divided by exp(m):

        m'     = max(log(sigmoid(f)) + m, i)

    f is clipped to at least -87, a value at which float32 forgets everything.

    Only the update reads the state. Whole sequences are therefore run in chunks, with
    attention within each chunk and this recurrence between chunks. Avoid packed
    sequences: the cell runs them step by step, which is several times slower and keeps
    the matrix of each step.

    Shapes, for input size `I`, `H = num_units`, `N = num_heads` and `d = H / N`: inputs
    `[batch, I]`; state `MLSTMState(c, n, m)` with c `[batch, N, d, d]` (the axis of k
    before the axis of v), n `[batch, N, d]` and m `[batch, N]`; output `[batch, H]`;
    `kernel` `[I, 4H + 2N]` and `bias` `[4H + 2N]`, blocks q, k, v, o of size H, ordered
    by head, then i, f of size N.

    Arithmetic is done in at least float32. The state may be wider than the inputs; for
    bfloat16 inputs, use a float32 state.

    Attributes:
        num_units: `H`, the total size of all heads.
        num_heads: `N`.
        kernel_initializer: For the kernel; None for Glorot uniform, drawn separately
            for each of the blocks q, k, v and o, and zeros in i and f.
        bias_initializer: For the bias; None for zeros in q, k, v and o, draws from
            `N(0, 0.1^2)` in i, and values from 3 to 6 in f, evenly spaced over heads.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_heads` is not positive or does not
            divide `num_units`, or `dtype` is not floating-point.

    Source: arXiv:2405.04517, section 2.3 and appendix A; `mLSTMCell` of the package
    `xlstm`, which defines the scaling of k, the order of c and the 1e-6 that is added
    to the denominator.
    """

    num_units: int = fields.size()
    num_heads: int = fields.count(default=1)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> MLSTMState:
        """The sizes of the state, an `MLSTMState`."""
        heads = self.num_heads
        size = head_size(self)
        return MLSTMState(
            c=TensorShape([heads, size, size]),
            n=TensorShape([heads, size]),
            m=TensorShape([heads]),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        head_size(self)  # Raises if the heads do not divide the units.

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` and `bias`."""
        columns = 4 * self.num_units + 2 * self.num_heads
        kernel = self.kernel_initializer or self._kernel
        bias = self.bias_initializer or self._bias
        return {
            "kernel": ParamSpec((depth, columns), kernel, depth),
            "bias": ParamSpec((columns,), bias),
        }

    def step(
        self, params: Params, inputs: Array, state: MLSTMState
    ) -> tuple[Array, MLSTMState]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        dtype = _arithmetic_dtype(inputs, state)
        o, (q, k, v, i, log_f) = self._project(params, inputs, dtype)
        c, n, m = (leaf.astype(dtype) for leaf in state)
        new_m = jnp.maximum(log_f + m, i)
        keep = jnp.exp(log_f + m - new_m)
        added = k * jnp.exp(i - new_m)[..., None]
        n = keep[..., None] * n + added
        c = keep[..., None, None] * c + added[..., :, None] * v[..., None, :]
        values = jnp.einsum("bnk,bnkv->bnv", q, c)
        dot = jnp.einsum("bnk,bnk->bn", q, n)
        h = normalized(values, dot, new_m)
        output = o * h.reshape(o.shape)
        return output.astype(inputs.dtype), _stored(MLSTMState(c, n, new_m), state)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps in chunks; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the "native" or "cudnn" implementation is requested, the
                number of steps is symbolic, a row restarts, or the states of all steps
                are requested.
        """
        params, run = for_many_steps(self, params, run)
        steps = run.steps
        if steps.restarts is not None:
            raise DeclinedError("rows restart within a chunk")
        if steps.returns_states:
            raise DeclinedError("a chunk does not compute the state of each step")
        dtype = _arithmetic_dtype(run.inputs, run.state)
        # Parameter gradients are summed over chunks in this dtype.
        wide_params = _cast(params, dtype)

        def project(x: Array) -> InputsAlone:
            return self._project(_cast(wide_params, x.dtype), x, dtype)

        with jax.named_scope(scope_name(self)):
            wide_state = _cast(run.state, dtype)
            outputs, wide_state = run_chunks(steps, project, run.inputs, wide_state)
            outputs = steps.zero_dead(outputs.astype(run.inputs.dtype))
            return outputs, _stored(wide_state, run.state)

    def _project(self, params: Params, inputs: Array, dtype: DType) -> InputsAlone:
        """The values of a step that depend only on its inputs; see `InputsAlone`."""
        z = affine(params, [inputs], dtype)
        heads = self.num_heads
        units = self.num_units
        ends = [units, 2 * units, 3 * units, 4 * units, 4 * units + heads]
        *vectors, o, i, f = jnp.split(z, ends, axis=-1)
        shape = (inputs.shape[0], heads, head_size(self))
        q, k, v = (x.reshape(shape) for x in vectors)
        k = k / math.sqrt(max(1, head_size(self)))
        log_f = jax.nn.log_sigmoid(jnp.maximum(f, _SHUT))
        return jax.nn.sigmoid(o), Projected(q, k, v, i, log_f)

    def _kernel(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        depth = shape[0]
        block = (depth, self.num_units)
        keys = jax.random.split(key, 4)
        blocks = [glorot_uniform(key, block, dtype) for key in keys]
        gates = jnp.zeros((depth, 2 * self.num_heads), dtype)
        return jnp.concatenate([*blocks, gates], axis=-1)

    def _bias(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        heads = self.num_heads
        i = jax.random.normal(key, (heads,), dtype) * 0.1
        f = jnp.linspace(3, 6, heads, dtype=dtype)
        return jnp.concatenate([zeros(key, (4 * self.num_units,), dtype), i, f])


def _arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def _stored(state: MLSTMState, like: MLSTMState) -> MLSTMState:
    """The state, cast to the dtypes of `like`.

    If m is rounded, c and n are rescaled to represent the same memory.
    """
    m = state.m.astype(like.m.dtype)
    scale = jnp.exp(state.m - m.astype(state.m.dtype))
    c = state.c * scale[..., None, None]
    n = state.n * scale[..., None]
    return MLSTMState(c.astype(like.c.dtype), n.astype(like.n.dtype), m)


def _cast(tree: PyTree, dtype: DType) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def chunk_size(time: int) -> int:
    """The number of steps per chunk in a run of `time` steps.

    Chunks have at most 64 steps; all but the last have the same size. The limit was
    chosen by measurements on a 2-core CPU in float32, with heads of size 64 and 128, 1
    and 8 rows, and up to 8192 steps. Training times with chunks of 32 to 128 steps
    differed by little more than noise. Longer chunks were slower, and had larger
    rounding errors where forget gates were almost 0. Training step by step was never
    faster, and took 6 to 20 times as long for 256 steps or more.
    """
    return -(-time // -(-time // 64))


def normalized(values: Array, dot: Array, m: Array) -> Array:
    """Computes `values / max(|dot|, exp(-m))`.

    c and n are stored divided by `exp(m)`, so `exp(-m)` replaces the 1 of
    `max(|q n|, 1)`.

    Args:
        values: The product q c, `[..., d]`.
        dot: The product q n, `[...]`.
        m: The scale of c and n, `[...]`.
    """
    # A larger exponent would overflow float32; the quotient is 0 in either case.
    least = jnp.exp(-jnp.maximum(m, -80.0))
    # The package `xlstm` also adds 1e-6. Both terms may be 0, because `least` may
    # underflow.
    return values / (jnp.maximum(jnp.abs(dot), least) + 1e-6)[..., None]


def run_chunks(
    steps: Steps, project: Callable, inputs: Array, state: MLSTMState
) -> tuple[Array, MLSTMState]:
    """Runs all steps in chunks; returns `(outputs, state)`.

    Args:
        steps: The time axis, without restarts.
        project: `project(inputs) -> (o, projected)` for one step, `[batch, depth]`; o
            is the output gate, `[batch, heads * d]`.
        inputs: `[batch, time, depth]`, with time along `steps.axis`.
        state: The initial state, in the dtype of the results of `project`.

    Returns:
        The outputs, `[batch, time, heads * d]` in the axis order of `inputs`, with
        arbitrary values in finished rows; and the state after each row's last step.
    """

    def run_chunk(
        inputs: Array, state: MLSTMState, steps: Steps
    ) -> tuple[Array, MLSTMState]:
        o, projected = at_each_step(project, steps.fill_dead(inputs))
        projected = _masked(steps, projected)
        by_head = jax.tree.map(lambda x: jnp.moveaxis(x, steps.axis, 2), projected)
        state, h = _attend(state, by_head)
        return o * jnp.moveaxis(h, 2, steps.axis).reshape(o.shape), state

    # Only the inputs and the states before the chunks are saved for derivatives. The
    # products of a chunk are large enough: products of all steps at once are slower and
    # take several times the memory.
    return run_in_segments(chunk_size(steps.time), run_chunk, inputs, state, steps)


def _masked(steps: Steps, projected: Projected) -> Projected:
    """Makes the steps of finished rows forget nothing and add nothing."""
    alive = steps.alive_steps()
    if alive is None:
        return projected
    i = jnp.where(alive[..., None], projected.i, -jnp.inf)
    return projected._replace(i=i, log_f=steps.zero_dead(projected.log_f))


def _attend(state: MLSTMState, chunk: Projected) -> tuple[MLSTMState, Array]:
    """The state after a chunk, and h at its steps, `[batch, heads, steps, d]`."""
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
    k = k * weights[..., -1, :, None]
    keep = keep[..., -1, None]
    c = keep[..., None] * c + jnp.einsum("bnsk,bnsv->bnkv", k, v)
    n = keep * n + jnp.sum(k, axis=-2)
    return MLSTMState(c, n, forgotten[..., -1] + a[..., -1]), h


def _causal_weights(added: Array, a: Array) -> Array:
    """`exp(added_s - a_t)` for s <= t, otherwise 0; `[batch, heads, t, s]`."""
    size = a.shape[-1]
    causal = jnp.tril(jnp.ones((size, size), bool))[None, None]
    weights = added[..., None, :] - a[..., :, None]
    return jnp.exp(jnp.where(causal, weights, -jnp.inf))
