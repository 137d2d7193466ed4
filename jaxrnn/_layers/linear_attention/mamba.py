"""`Mamba`: the layer of Mamba (S6)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ..._base.typing import Array
from ..._cells import fields
from ..._cells.linear.selective_scan import S6Inputs, S6MemoryCell
from ..._hints import with_hints
from ..._wrappers.past_inputs import PastInputsState as State
from . import parts
from .layer import LinearAttentionLayer, Marks, Results


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Mamba(LinearAttentionLayer):
    """The layer of Mamba, whose memory is a `jaxrnn.S6MemoryCell`.

    Args:
        in_features: The size of inputs and outputs.
        num_units: The number of channels of the memory; None for `2 * in_features`.
        num_states: The number of states of each channel.
        rank: The rank of the step sizes; None for `in_features / 16`, rounded up.
        conv_width: The number of steps that the convolution reads.
        dtype: As in `GatedDeltaNet`, like the arguments that follow.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    Source: arXiv:2312.00752; `Mamba` of the package `mamba-ssm`.
    """

    num_units: int | None = fields.count(default=None)
    num_states: int = fields.count(default=16)
    _: dataclasses.KW_ONLY
    rank: int | None = fields.count(default=None)

    def _make(self, make: parts.Parts) -> None:
        depth, states = self.in_features, self.num_states
        units, rank = self.num_units or 2 * depth, self.rank or math.ceil(depth / 16)
        self.memory = S6MemoryCell(units, states)
        self.in_proj = make.linear(depth, 2 * units)
        self.conv = make.conv(units, self.conv_width, bias=True)
        self.x_proj = make.linear(units, rank + 2 * states)
        self.dt_proj = make.linear(rank, units)
        self.dt_bias = make.dt_bias(units)
        self.A_log, self.D = make.params_of(self.memory)
        self.out_proj = make.linear(units, depth)

    def _run(self, x: Array, state: State, marks: Marks) -> Results:
        u, gate = jnp.split(self.in_proj(x), 2, axis=-1)
        u, past = self.conv(u, state.past_inputs, marks)
        u = jax.nn.silu(u)
        states, rank = self.memory.num_states, self.dt_proj.in_features
        dt, b, c = jnp.split(self.x_proj(u), [rank, rank + states], axis=-1)
        dt = parts.softplus(self.dt_proj(dt), self.dt_bias)
        params, inputs = (
            {"A_log": self.A_log[...], "D": self.D[...]},
            S6Inputs(u, dt, b, c),
        )
        h, last = parts.run_memory(self.memory, params, inputs, state.cell_state, marks)
        return self.out_proj(h * jax.nn.silu(gate)), State(past, last)
