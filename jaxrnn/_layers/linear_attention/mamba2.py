"""`Mamba2`: the layer of Mamba-2."""

import dataclasses

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from ..._cells import fields
from ..._cells.matrix.linear_attention_rule import LinearAttentionInputs
from ..._cells.matrix.memories import LinearAttentionMemoryCell
from ..._hints import with_hints
from ..._wrappers.past_inputs import PastInputsState as State
from . import parts
from .layer import LinearAttentionLayer, Marks, Results


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Mamba2(LinearAttentionLayer):
    """The layer of Mamba-2.

    In its memory, a `jaxrnn.LinearAttentionMemoryCell`, C is the query, B is the key,
    and the step size dt scales the values and the decay.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of B and C, which the authors call the state size.
        value_size: The size of the values in each head. The authors' layers have
            `num_heads * value_size == 2 * in_features`.
        num_key_heads: The number of heads of B and C (groups), which must divide
            `num_heads`. The norm is computed in each group.
        conv_width: The number of steps that the convolution reads.
        dtype: As in `GatedDeltaNet`, like the arguments that follow.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    Source: arXiv:2405.21060; `Mamba2` of the package `mamba-ssm`.
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()
    _: dataclasses.KW_ONLY
    num_key_heads: int = fields.count(default=1)

    def _make(self, make: parts.Parts) -> None:
        depth, heads, groups = self.in_features, self.num_heads, self.num_key_heads
        values = heads * self.value_size
        channels = values + 2 * groups * self.key_size
        self.memory = LinearAttentionMemoryCell(
            heads, self.key_size, self.value_size, groups, scale=1.0
        )
        self.in_proj = make.linear(depth, values + channels + heads)
        self.conv = make.conv(channels, self.conv_width, bias=True)
        self.A_log = make.a_log(heads)
        self.dt_bias = make.dt_bias(heads)
        self.D = make.full([heads])
        self.norm = make.norm(values // groups, epsilon=1e-5, scale=False)
        self.norm_scale = make.full([values])
        self.out_proj = make.linear(values, depth)

    def _run(self, x: Array, state: State, marks: Marks) -> Results:
        sizes, values = self.memory.input_sizes, self.num_heads * self.value_size
        projected = self.in_proj(x)
        ends = [values, projected.shape[-1] - self.num_heads]
        gate, vkq, dt = jnp.split(projected, ends, axis=-1)
        vkq, past = self.conv(vkq, state.past_inputs, marks)
        v, k, q = parts.split_heads(jax.nn.silu(vkq), [sizes.v, sizes.k, sizes.q])
        dt = parts.softplus(dt, self.dt_bias)
        g = parts.log_decay(self.A_log, dt)
        inputs = LinearAttentionInputs(q, k, dt[..., None] * v.astype(dt.dtype), g)
        h, last = parts.run_memory(self.memory, {}, inputs, state.cell_state, marks)
        h = parts.join_heads(h + parts.value(self.D, h.mT).mT * v)
        h = parts.in_heads(h * jax.nn.silu(gate), (self.num_key_heads, -1))
        h = parts.join_heads(parts.normalized(self.norm, h)) * parts.value(
            self.norm_scale, x
        )
        return self.out_proj(h), State(past, last)
