"""`GatedDeltaNet`: the layer of Gated DeltaNet and Qwen3-Next."""

import dataclasses

import jax

from ..._base.hints import with_hints
from ..._base.typing import Array
from ..._cells import fields
from ..._cells.matrix.delta_rule import DeltaInputs
from ..._cells.matrix.memories import DeltaMemoryCell
from . import parts
from .layer import (
    LinearAttentionLayer,
    PastInputsState as State,
    Results,
    StepArguments,
)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class GatedDeltaNet(LinearAttentionLayer):
    """The recurrent layer of Gated DeltaNet and Qwen3-Next.

    Queries q, keys k and values v pass through a short convolution and silu, and q and
    k are scaled to length 1. The memory, a `jaxrnn.DeltaMemoryCell`, has one decay for
    each head. The memory's outputs are RMS-normalized in each head and multiplied by a
    silu gate.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of q and k in each head.
        value_size: The size of v in each head.
        num_key_heads: The number of heads of q and k, which must divide `num_heads`. By
            default, `num_heads`.
        conv_width: The number of steps that the convolution reads.
        norm_epsilon: The number that the RMS norm adds to the mean square.
        allow_neg_eigval: Whether beta, the strength of an update, is in [0, 2] instead
            of [0, 1]. With beta = 2, a step replaces the decayed value u that the
            memory holds for a key by 2v - u.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the convolution also runs step by step.
        dtype: The dtype of the computation. By default, the widest dtype of the inputs
            and the parameters. Decays are computed in at least float32.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxrnn.nnx
        >>> from flax import nnx
        >>> layer = jaxrnn.nnx.GatedDeltaNet(8, 2, 4, 4, rngs=nnx.Rngs(0))
        >>> x = jnp.ones((3, 5, 8), jnp.float32)
        >>> y, state = layer(x, sequence_length=[5, 2, 0])
        >>> y, state = layer(x, state)  # The next steps.
        >>> y.shape
        (3, 5, 8)

    Source: arXiv:2412.06464, and arXiv:2411.12537 for `allow_neg_eigval`; the initial
    values are from the package `flash-linear-attention`, with decay rates of at least
    0.01, and the epsilon is from Qwen3-Next.
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()
    _: dataclasses.KW_ONLY
    num_key_heads: int | None = fields.count(default=None)
    conv_width: int = fields.count(default=4, least=2)
    norm_epsilon: float = fields.number(1e-6, low=1e-12)
    allow_neg_eigval: bool = fields.flag(False)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, values = self.in_features, self.num_heads * self.value_size
        keys = (self.num_key_heads or self.num_heads) * self.key_size
        self.qkv_proj = new.linear(depth, 2 * keys + values)
        self.conv = parts.ShortConv(new, 2 * keys + values, self.conv_width)
        self._make_memory(new)
        self.norm = new.norm(self.value_size, self.norm_epsilon)
        self.out_proj = new.linear(values, depth)

    def _make_memory(self, new: parts.ModuleFactory) -> None:
        """Creates the memory, and the modules for beta, the decays and the gate."""
        depth, heads, key_heads = self.in_features, self.num_heads, self.num_key_heads
        self.memory = DeltaMemoryCell(heads, self.key_size, self.value_size, key_heads)
        self.a_proj = new.linear(depth, heads)
        self.b_proj = new.linear(depth, heads)
        self.A_log = new.a_log(heads, least=0.01)
        self.dt_bias = new.dt_bias(heads)
        self.gate_proj = new.linear(depth, heads * self.value_size)

    def _run(self, x: Array, state: State, steps: StepArguments) -> Results:
        qkv, past = self.conv(
            self.qkv_proj(x), state.past_inputs, steps, self.implementation
        )
        q, k, v = parts.split_heads(jax.nn.silu(qkv), self.memory.input_sizes[:3])
        q, k = parts.l2_normalized(q), parts.l2_normalized(k)
        beta = jax.nn.sigmoid(self.b_proj(x))
        beta = 2 * beta if self.allow_neg_eigval else beta
        inputs = DeltaInputs(q, k, v, self._decay(x), beta)
        h, last = parts.run_memory(self, inputs, state.cell_state, steps)
        h = parts.join_heads(self.norm(h))
        return self.out_proj(h * self._gate(x)), State(past, last)

    def _decay(self, x: Array) -> Array:
        """Computes the logarithms of the decays, the memory's input g."""
        dt = parts.softplus(self.a_proj(x), self.dt_bias)
        return -parts.decay_rates(self.A_log, dt) * dt

    def _gate(self, x: Array) -> Array:
        return jax.nn.silu(self.gate_proj(x))
