"""`Mamba`: the layer of Mamba (S6)."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.errors import expect
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
    """The recurrent layer of Mamba, with a `jaxrnn.S6MemoryCell` as memory.

    Args:
        in_features: The size of inputs and outputs.
        num_units: The number of channels of the memory. By default, `2 * in_features`.
        num_states: The number of states of each channel.
        rank: The rank of the projection for the step sizes dt. By default,
            `in_features / 16`, rounded up.
        conv_width: The number of steps that the convolution reads.
        use_bias: Whether the projections of the inputs and of the outputs have biases.
        use_conv_bias: Whether the convolution has a bias.
        norm_epsilon: The number that the RMS norms of dt, B and C add to the mean
            square, in models with norms such as Falcon Mamba and Jamba. Default: no
            norms.
        use_norm_scale: Whether these norms have scales, as in Jamba.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the convolution also runs step by step.
        dtype: The dtype of the computation; see `GatedDeltaNet`.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range, or `use_norm_scale` is True without
            norms.

    Source: arXiv:2312.00752; `Mamba` of the package `mamba-ssm`.
    """

    num_units: int | None = fields.count(default=None)
    num_states: int = fields.count(default=16)
    _: dataclasses.KW_ONLY
    rank: int | None = fields.count(default=None)
    conv_width: int = fields.count(default=4, least=2)
    use_bias: bool = fields.flag(False)
    use_conv_bias: bool = fields.flag(True)
    norm_epsilon: float | None = fields.number(None, low=1e-12)
    use_norm_scale: bool = fields.flag(False)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, states = self.in_features, self.num_states
        units, rank = self.num_units or 2 * depth, self.rank or math.ceil(depth / 16)
        self.memory = S6MemoryCell(units, states)
        self.in_proj = new.linear(depth, 2 * units, bias=self.use_bias)
        self.conv = parts.ShortConv(new, units, self.conv_width, self.use_conv_bias)
        self.x_proj = new.linear(units, rank + 2 * states)
        self.dt_norm, self.b_norm, self.c_norm = (
            self._make_norm(new, size) for size in (rank, states, states)
        )
        self.dt_proj = new.linear(rank, units)
        self.dt_bias = new.dt_bias(units)
        self.A_log = new.full([units, states], np.log(np.arange(1, states + 1)))
        self.D = new.full([units])
        self.out_proj = new.linear(units, depth, bias=self.use_bias)

    def _make_norm(
        self, new: parts.ModuleFactory, size: int
    ) -> Callable[[Array], Array]:
        """Creates a norm, or the identity if `norm_epsilon` is None."""
        if self.norm_epsilon is None:
            must = "be False if `norm_epsilon` is None"
            fix = "Pass `norm_epsilon` to add norms."
            expect(not self.use_norm_scale, "use_norm_scale", must, True, fix)
            return _unchanged
        return new.norm(size, self.norm_epsilon, scale=self.use_norm_scale)

    def _run(self, x: Array, state: State, steps: StepArguments) -> Results:
        u, gate = jnp.split(self.in_proj(x), 2, axis=-1)
        u, past = self.conv(u, state.past_inputs, steps, self.implementation)
        u = jax.nn.silu(u)
        ends = np.cumsum([self.dt_proj.in_features, self.num_states])
        dt, b, c = jnp.split(self.x_proj(u), ends, axis=-1)
        dt = parts.softplus(self.dt_proj(self.dt_norm(dt)), self.dt_bias)
        inputs = S6Inputs(u, dt, self.b_norm(b), self.c_norm(c))
        params = {"A_log": self.A_log[...], "D": self.D[...]}
        h, last = parts.run_memory(self, inputs, state.cell_state, steps, params)
        return self.out_proj(h * jax.nn.silu(gate)), State(past, last)


def _unchanged(x: Array) -> Array:
    return x
