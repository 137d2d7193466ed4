"""`GatedDeltaNet`: the layer of Gated DeltaNet and Qwen3-Next."""

import dataclasses

import jax

from ..._base.typing import Array
from ..._cells import fields
from ..._cells.matrix.delta_rule import DeltaInputs
from ..._cells.matrix.memories import DeltaMemoryCell
from ..._hints import with_hints
from ..._wrappers.past_inputs import PastInputsState as State
from . import parts
from .layer import LinearAttentionLayer, Marks, Results


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class GatedDeltaNet(LinearAttentionLayer):
    """The layer of Gated DeltaNet, also used in Qwen3-Next.

    A short convolution precedes a `jaxrnn.DeltaMemoryCell` with one decay for each
    head, whose outputs are normalized in each head, and gated with silu.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of q and k in each head.
        value_size: The size of v in each head.
        num_key_heads: The number of heads of q and k, which must divide `num_heads`;
            None for `num_heads`.
        conv_width: The number of steps that the convolution reads.
        dtype: The dtype of the computation; None for the widest dtype of the inputs and
            the parameters. Decays are computed in at least float32.
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

    Source: arXiv:2412.06464; initial values of the package `flash-linear-attention`.
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()
    _: dataclasses.KW_ONLY
    num_key_heads: int | None = fields.count(default=None)

    def _make(self, make: parts.Parts) -> None:
        depth, heads, key_heads = self.in_features, self.num_heads, self.num_key_heads
        keys, values = (key_heads or heads) * self.key_size, heads * self.value_size
        self.memory = DeltaMemoryCell(heads, self.key_size, self.value_size, key_heads)
        self.qkv_proj = make.linear(depth, 2 * keys + values)
        self.conv = make.conv(2 * keys + values, self.conv_width)
        self.a_proj = make.linear(depth, heads)
        self.b_proj = make.linear(depth, heads)
        self.A_log = make.a_log(heads, least=0.01)
        self.dt_bias = make.dt_bias(heads)
        self.gate_proj = make.linear(depth, values)
        self.norm = make.norm(self.value_size, epsilon=1e-6)
        self.out_proj = make.linear(values, depth)

    def _run(self, x: Array, state: State, marks: Marks) -> Results:
        qkv, past = self.conv(self.qkv_proj(x), state.past_inputs, marks)
        q, k, v = parts.split_heads(jax.nn.silu(qkv), self.memory.input_sizes[:3])
        g = parts.log_decay(self.A_log, parts.softplus(self.a_proj(x), self.dt_bias))
        beta = jax.nn.sigmoid(self.b_proj(x))
        inputs = DeltaInputs(parts.unit(q), parts.unit(k), v, g, beta)
        h, last = parts.run_memory(self.memory, {}, inputs, state.cell_state, marks)
        h = parts.join_heads(parts.normalized(self.norm, h)) * jax.nn.silu(
            self.gate_proj(x)
        )
        return self.out_proj(h), State(past, last)
