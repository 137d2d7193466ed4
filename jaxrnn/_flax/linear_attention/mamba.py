"""`Mamba`: the layer of Mamba (S6)."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.hints import with_hints
from ..._base.typing import Array
from ..._cells import fields
from ..._cells.linear.selective_scan import S6Inputs, S6MemoryCell
from . import parts
from .layer import (
    LinearAttentionLayer,
    PastInputsState as State,
    Results,
    StepArguments,
)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Mamba(LinearAttentionLayer):
    """The layer of Mamba, whose memory is a `jaxrnn.S6MemoryCell`.

    Args:
        in_features: The size of inputs and outputs.
        num_units: The number of channels of the memory; None for `2 * in_features`.
        num_states: The number of states of each channel.
        rank: The rank of the projection for the step sizes dt; None for
            `in_features / 16`, rounded up.
        conv_width: The number of steps that the convolution reads.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. "scan"
            also runs the convolution step by step.
        dtype: The dtype of the computation; see `GatedDeltaNet`.
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
    conv_width: int = fields.count(default=4, least=2)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, states = self.in_features, self.num_states
        units, rank = self.num_units or 2 * depth, self.rank or math.ceil(depth / 16)
        self.memory = S6MemoryCell(units, states)
        self.in_proj = new.linear(depth, 2 * units)
        self.conv = parts.ShortConv(new, units, self.conv_width, bias=True)
        self.x_proj = new.linear(units, rank + 2 * states)
        self.dt_proj = new.linear(rank, units)
        self.dt_bias = new.dt_bias(units)
        self.A_log = new.full([units, states], np.log(np.arange(1, states + 1)))
        self.D = new.full([units])
        self.out_proj = new.linear(units, depth)

    def _run(self, x: Array, state: State, steps: StepArguments) -> Results:
        u, gate = jnp.split(self.in_proj(x), 2, axis=-1)
        u, past = self.conv(u, state.past_inputs, steps, self.implementation)
        u = jax.nn.silu(u)
        ends = np.cumsum([self.dt_proj.in_features, self.num_states])
        dt, b, c = jnp.split(self.x_proj(u), ends, axis=-1)
        inputs = S6Inputs(u, parts.softplus(self.dt_proj(dt), self.dt_bias), b, c)
        params = {"A_log": self.A_log[...], "D": self.D[...]}
        h, last = parts.run_memory(self, inputs, state.cell_state, steps, params)
        return self.out_proj(h * jax.nn.silu(gate)), State(past, last)
