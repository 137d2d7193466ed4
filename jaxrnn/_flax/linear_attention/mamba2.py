"""`Mamba2`: the layer of Mamba-2."""

import dataclasses
import math
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from ..._base.arguments import is_list_of
from ..._base.errors import expect
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

Norm: TypeAlias = Literal["after_gate", "before_gate"]
Limits: TypeAlias = tuple[float, float]


def _as_norm(name: str, value: Any) -> Norm | None:
    must = 'be "after_gate", "before_gate" or None'
    expect(value in (*get_args(Norm), None), name, must, value)
    return value


def _as_limits(name: str, value: Any) -> Limits | None:
    """Checks the pair of limits. Converts `(0, inf)` to None."""
    must, fix = "be a pair of numbers", "For example, pass `(0.001, float('inf'))`."
    expect(is_list_of(value, 2), name, must, value, fix, TypeError)
    low = fields.check_number(f"{name}[0]", value[0], 0)
    high = fields.check_number(f"{name}[1]", value[1], low)
    return None if (low, high) == (0, math.inf) else (low, high)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Mamba2(LinearAttentionLayer):
    """The recurrent layer of Mamba-2.

    The memory is a `jaxrnn.LinearAttentionMemoryCell`. Mamba's C is its query, B is its
    key, and the step size dt scales its values and the logarithm of its decay.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of B and C in each head, which the authors call the state
            size.
        value_size: The size of the values in each head. The authors' layers have
            `num_heads * value_size == 2 * in_features`.
        num_key_heads: The number of heads of B and C, which must divide `num_heads`.
            The authors call these heads groups, and compute the norm in each group.
        conv_width: The number of steps that the convolution reads.
        norm: Whether the memory's outputs are RMS-normalized "after_gate" or, as in
            some models of Falcon-H1, "before_gate". If None, there is no norm.
        norm_epsilon: The number that the RMS norm adds to the mean square.
        time_step_limit: The least and the largest step size dt, as in Zamba2. Default:
            no limits.
        use_bias: Whether the projections of the inputs and of the outputs have biases.
        use_conv_bias: Whether the convolution has a bias.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the convolution also runs step by step.
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
    norm: Norm | None = fields.checked(_as_norm, default="after_gate")
    norm_epsilon: float = fields.number(1e-5, low=1e-12)
    time_step_limit: Limits | None = fields.checked(_as_limits, default=None)
    use_bias: bool = fields.flag(False)
    use_conv_bias: bool = fields.flag(True)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, heads, groups = self.in_features, self.num_heads, self.num_key_heads
        sizes = heads, self.key_size, self.value_size, groups
        self.memory = LinearAttentionMemoryCell(*sizes, scale=1.0)
        values = heads * self.value_size
        channels = values + 2 * groups * self.key_size
        outputs = values + channels + heads
        self.in_proj = new.linear(depth, outputs, bias=self.use_bias)
        self.conv = parts.ShortConv(new, channels, self.conv_width, self.use_conv_bias)
        self.A_log = new.a_log(heads)
        self.dt_bias = new.dt_bias(heads)
        self.D = new.full([heads])
        if self.norm is not None:
            size = values // groups
            self.norm_of_group = new.norm(size, self.norm_epsilon, scale=False)
            self.norm_scale = new.full([values])
        self.out_proj = new.linear(values, depth, bias=self.use_bias)

    def _run(self, x: Array, state: State, steps: StepArguments) -> Results:
        sizes = self.memory.input_sizes
        values = self.num_heads * self.value_size
        projected = self.in_proj(x)
        ends = [values, projected.shape[-1] - self.num_heads]
        gate, vkq, dt = jnp.split(projected, ends, axis=-1)
        vkq, past = self.conv(vkq, state.past_inputs, steps, self.implementation)
        v, k, q = parts.split_heads(jax.nn.silu(vkq), [sizes.v, sizes.k, sizes.q])
        dt = parts.softplus(dt, self.dt_bias)
        if self.time_step_limit is not None:
            dt = jnp.clip(dt, *self.time_step_limit)
        g = -parts.decay_rates(self.A_log, dt) * dt
        inputs = LinearAttentionInputs(q, k, dt[..., None] * v.astype(dt.dtype), g)
        h, last = parts.run_memory(self, inputs, state.cell_state, steps)
        h += parts.broadcast_param(self.D, dt).astype(h.dtype)[..., None] * v
        h = self._gated(parts.join_heads(h), jax.nn.silu(gate))
        return self.out_proj(h), State(past, last)

    def _gated(self, h: Array, gate: Array) -> Array:
        """Multiplies h by the gate, and normalizes it before, after or not at all."""
        if self.norm is None:
            return h * gate
        if self.norm == "before_gate":
            return self._normalized(h) * gate
        return self._normalized(h * gate)

    def _normalized(self, h: Array) -> Array:
        groups = self.num_key_heads
        by_group = parts.in_heads(h, (groups, h.shape[-1] // groups))
        h = parts.join_heads(self.norm_of_group(by_group))
        return h * parts.broadcast_param(self.norm_scale, h)
