"""`Mamba2`: the layer of Mamba-2."""

import dataclasses

import jax
import jax.numpy as jnp

from ..._base.hints import with_hints
from ..._base.typing import Array
from ..._cells import fields
from ..._cells.matrix.linear_attention_rule import LinearAttentionInputs
from ..._cells.matrix.memories import LinearAttentionMemoryCell
from . import parts
from .layer import (
    LinearAttentionLayer,
    PastInputsState as State,
    Results,
    StepArguments,
)


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
        norm_epsilon: What the norm adds to the mean square.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. "scan"
            also runs the convolution step by step.
        dtype: The dtype of the computation; see `GatedDeltaNet`.
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
    conv_width: int = fields.count(default=4, least=2)
    norm_epsilon: float = fields.number(1e-5, low=1e-12)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, heads, groups = self.in_features, self.num_heads, self.num_key_heads
        sizes = heads, self.key_size, self.value_size, groups
        self.memory = LinearAttentionMemoryCell(*sizes, scale=1.0)
        values = heads * self.value_size
        channels = values + 2 * groups * self.key_size
        self.in_proj = new.linear(depth, values + channels + heads)
        self.conv = parts.ShortConv(new, channels, self.conv_width, bias=True)
        self.A_log = new.a_log(heads)
        self.dt_bias = new.dt_bias(heads)
        self.D = new.full([heads])
        self.norm = new.norm(values // groups, self.norm_epsilon, scale=False)
        self.norm_scale = new.full([values])
        self.out_proj = new.linear(values, depth)

    def _run(self, x: Array, state: State, steps: StepArguments) -> Results:
        sizes, groups = self.memory.input_sizes, self.num_key_heads
        values = self.num_heads * self.value_size
        projected = self.in_proj(x)
        ends = [values, projected.shape[-1] - self.num_heads]
        gate, vkq, dt = jnp.split(projected, ends, axis=-1)
        vkq, past = self.conv(vkq, state.past_inputs, steps, self.implementation)
        v, k, q = parts.split_heads(jax.nn.silu(vkq), [sizes.v, sizes.k, sizes.q])
        dt = parts.softplus(dt, self.dt_bias)
        g = -parts.decay_rates(self.A_log, dt) * dt
        inputs = LinearAttentionInputs(q, k, dt[..., None] * v.astype(dt.dtype), g)
        h, last = parts.run_memory(self, inputs, state.cell_state, steps)
        h += parts.broadcast_param(self.D, dt).astype(h.dtype)[..., None] * v
        h = parts.join_heads(h) * jax.nn.silu(gate)
        h = self.norm(parts.in_heads(h, (groups, values // groups)))
        h = parts.join_heads(h) * parts.broadcast_param(self.norm_scale, x)
        return self.out_proj(h), State(past, last)
