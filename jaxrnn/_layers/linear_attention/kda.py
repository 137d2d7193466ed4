"""`KimiDeltaAttention`: the recurrent layer of Kimi Linear."""

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
class KimiDeltaAttention(LinearAttentionLayer):
    """Kimi delta attention (KDA), the recurrent layer of Kimi Linear.

    As `GatedDeltaNet`, but each key entry decays separately, decays and gates come from
    products of low rank, and the gate is a sigmoid.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of q and k in each head.
        value_size: The size of v in each head, and the rank of decays and gates.
        conv_width: The number of steps that the convolution reads.
        dtype: As in `GatedDeltaNet`, like the arguments that follow.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    Source: arXiv:2510.26692; initial values of the package `flash-linear-attention`.
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()

    def _make(self, make: parts.Parts) -> None:
        depth, heads, size = self.in_features, self.num_heads, self.value_size
        keys, values = heads * self.key_size, heads * size
        self.memory = DeltaMemoryCell(heads, self.key_size, size, key_decay=True)
        self.qkv_proj = make.linear(depth, 2 * keys + values)
        self.conv = make.conv(2 * keys + values, self.conv_width)
        self.decay_proj = make.low_rank(depth, size, keys)
        self.b_proj = make.linear(depth, heads)
        self.A_log = make.a_log(heads)
        self.dt_bias = make.dt_bias(keys)
        self.gate_proj = make.low_rank(depth, size, values)
        self.norm = make.norm(size, epsilon=1e-5)
        self.out_proj = make.linear(values, depth)

    def _run(self, x: Array, state: State, marks: Marks) -> Results:
        sizes = self.memory.input_sizes
        qkv, past = self.conv(self.qkv_proj(x), state.past_inputs, marks)
        q, k, v = parts.split_heads(jax.nn.silu(qkv), sizes[:3])
        dt = parts.softplus(self.decay_proj(x), self.dt_bias)
        g = parts.log_decay(self.A_log, parts.in_heads(dt, sizes.g).mT).mT
        beta = jax.nn.sigmoid(self.b_proj(x))
        inputs = DeltaInputs(parts.unit(q), parts.unit(k), v, g, beta)
        h, last = parts.run_memory(self.memory, {}, inputs, state.cell_state, marks)
        h = parts.join_heads(parts.normalized(self.norm, h)) * jax.nn.sigmoid(
            self.gate_proj(x)
        )
        return self.out_proj(h), State(past, last)
