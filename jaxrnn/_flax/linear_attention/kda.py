"""`KimiDeltaAttention`: the recurrent layer of Kimi Linear."""

import dataclasses
from collections.abc import Callable

import jax

from ..._base.hints import with_hints
from ..._base.typing import Array
from ..._cells import fields
from ..._cells.matrix.memories import DeltaMemoryCell
from . import parts
from .gated_deltanet import GatedDeltaNet


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class KimiDeltaAttention(GatedDeltaNet):
    """Kimi delta attention (KDA), the recurrent layer of Kimi Linear.

    This layer differs from `GatedDeltaNet` in three ways. Each of the `key_size`
    entries of a head has its own decay, decays and gates come from low-rank
    projections, and the gate is a sigmoid.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads.
        key_size: The size of q and k in each head.
        value_size: The size of v in each head, and the rank of the projections for
            decays and gates.
        num_key_heads: As in `GatedDeltaNet`.
        conv_width: The number of steps that the convolution reads.
        norm_epsilon: The number that the RMS norm adds to the mean square.
        allow_neg_eigval: As in `GatedDeltaNet`.
        gate_lower_bound: The least logarithm of a decay, at most 0, as in GLM-5 and
            Ling. The logarithm is then this number times a sigmoid. Default: no limit.
        use_full_rank: Whether decays and gates come from one full projection each, as
            in Ling, instead of two low-rank projections.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the convolution also runs step by step.
        dtype: The dtype of the computation; see `GatedDeltaNet`.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    Source: arXiv:2510.26692; the initial values are from `KimiLinearForgetGate` of the
    package `transformers`.
    """

    _: dataclasses.KW_ONLY
    norm_epsilon: float = fields.number(1e-5, low=1e-12)
    gate_lower_bound: float | None = fields.number(None, high=0.0)
    use_full_rank: bool = fields.flag(False)

    def _make_memory(self, new: parts.ModuleFactory) -> None:
        depth, heads, rank = self.in_features, self.num_heads, self.value_size
        sizes = heads, self.key_size, self.value_size, self.num_key_heads
        self.memory = DeltaMemoryCell(*sizes, key_decay=True)
        decays, values = heads * self.key_size, heads * self.value_size

        def projection(size: int) -> Callable[[Array], Array]:
            if self.use_full_rank:
                return new.linear(depth, size)
            return parts.LowRank(new.linear(depth, rank), new.linear(rank, size))

        self.a_proj = projection(decays)
        self.b_proj = new.linear(depth, heads)
        self.A_log = new.a_log(heads)
        self.dt_bias = new.dt_bias(decays)
        self.gate_proj = projection(values)

    def _decay(self, x: Array) -> Array:
        x = parts.with_bias(self.a_proj(x), self.dt_bias)
        x = parts.in_heads(x, self.memory.input_sizes.g)
        rates = parts.decay_rates(self.A_log, x)
        if self.gate_lower_bound is None:
            return -rates * jax.nn.softplus(x)
        return self.gate_lower_bound * jax.nn.sigmoid(rates * x)

    def _gate(self, x: Array) -> Array:
        return jax.nn.sigmoid(self.gate_proj(x))
