"""`RWKV7TimeMix`: the recurrent layer of RWKV-7."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.arguments import as_count
from ..._base.errors import expect
from ..._base.hints import with_hints
from ..._base.inputs import as_array, as_like
from ..._base.math import at_least_float32
from ..._base.modules import import_optional
from ..._base.typing import Array, ArrayLike, DType, Key, Lengths, PyTree
from ..._cells import fields
from ..._cells.matrix.dplr_rule import DPLRInputs
from ..._cells.matrix.memories import DPLRMemoryCell
from . import parts
from .layer import (
    LinearAttentionLayer,
    PastInputsState as State,
    Results,
    StepArguments,
)

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")

_WIDE, _NARROW = parts.uniform(0.5), parts.uniform(0.05)
_ZEROS = jax.nn.initializers.zeros


def _orthogonal(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws 0.1 times an orthogonal matrix, in at least float32."""
    draw = jax.nn.initializers.orthogonal(0.1)
    return draw(key, shape, at_least_float32(dtype)).astype(dtype)


def _as_ranks(name: str, value: Sequence[int]) -> tuple[int, ...]:
    is_four = isinstance(value, Sequence) and len(value) == 4
    expect(is_four, name, "be four numbers, for w, a, v and g", value, error=TypeError)
    return tuple(as_count(f"{name}[{i}]", rank) for i, rank in enumerate(value))


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RWKV7TimeMix(LinearAttentionLayer):
    """The recurrent layer of RWKV-7 (time mix).

    The memory is a `jaxrnn.DPLRMemoryCell`. Each projection reads a learned
    interpolation of the current and the previous input (token shift). All layers but
    the first interpolate their values with the values of the first layer (value
    residual)::

        first = layers[0].values(x0, state0, sequence_length=lengths)
        y, state = layers[3](x, state, first_values=first, sequence_length=lengths)

    Under `jit`, `values` adds no work, because XLA merges this computation with the
    same computation in the call of the first layer.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads, which must divide `in_features`. The authors use
            `in_features / 64`.
        layer_index: The index of the layer in its network. Layers with an index above 0
            have a projection for the value residual, and require `first_values`.
        num_layers: The number of layers of the network. The initial values depend on
            this number.
        ranks: The ranks of the low-rank projections (LoRA) for w, a, v and g, in this
            order. By default, the authors' ranks for `in_features`.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the token shift also runs step by step.
        dtype: The dtype of the computation; see `GatedDeltaNet`.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range, or `num_heads` does not divide
            `in_features`.

    Source: arXiv:2503.14456, section 4; the initial values are from `RWKV_Tmix_x070` in
    the authors' repository. The authors' training script draws other initial values for
    `norm_scale` and for the projections for r, k and v.
    """

    num_heads: int = fields.count()
    _: dataclasses.KW_ONLY
    layer_index: int = fields.size(default=0)
    num_layers: int = fields.count(default=1)
    ranks: Sequence[int] | None = fields.checked(_as_ranks, default=None)

    def _make(self, new: parts.ModuleFactory) -> None:
        depth, heads, index = self.in_features, self.num_heads, self.layer_index
        size = depth // heads
        must = f"divide `in_features` ({depth})"
        expect(depth == size * heads, "num_heads", must, heads)
        must = f"be less than `num_layers` ({self.num_layers})"
        expect(index < self.num_layers, "layer_index", must, index)
        self.memory = DPLRMemoryCell(heads, size, size, scale=1.0)
        late, early = index / max(self.num_layers - 1, 1), 1 - index / self.num_layers
        powers = early * np.array([0.2, 0.9, 0.7, 0.7, 0.9, 0.2])[:, None]
        # The weights of the previous input in the inputs of r, w, k, v, a and g.
        self.mix = new.full([6, depth], 1 - (np.arange(depth) / depth) ** powers)
        self.r_proj = new.linear(depth, depth, _WIDE)
        self.k_proj = new.linear(depth, depth, _NARROW)
        self.v_proj = new.linear(depth, depth, _WIDE)
        ramp, wave = np.linspace(0, 1, depth), np.linspace(-1, 1, size)
        wave = np.tile(wave * np.abs(wave), heads)

        def low_rank(rank: int, activation: Any = None, bias: Any = None) -> Any:
            layers = (
                new.linear(depth, rank, _ZEROS),
                new.linear(rank, depth, _orthogonal),
            )
            param = None if bias is None else new.full([depth], bias)
            return parts.LowRank(*layers, activation, param)

        rank_w, rank_a, rank_v, rank_g = self.ranks or _ranks(depth)
        w = -5.5 + 6 * ramp ** (1 + late**0.3) + 2.5 * wave
        self.w = low_rank(rank_w, jax.lax.tanh, w)  # `jnp.tanh` cannot be pickled.
        self.a = low_rank(rank_a, None, -0.39 + 0.3 * wave + 0.4 * ramp)
        self.v = low_rank(rank_v, None, 0.93 - 0.4 * ramp) if index else None
        self.g = low_rank(rank_g, jax.lax.logistic)
        self.k_k = new.full([depth], 0.76 - 0.1 * ramp)
        self.k_a = new.full([depth], 1.02)
        self.r_k = new.full([heads, size], -0.04)
        # Use a `LayerNorm` per head, because Flax's `GroupNorm` would merge the axes of
        # rows and steps, which may be sharded.
        options = {"use_scale": False, "use_bias": False, **vars(new)}
        self.norm = nnx.LayerNorm(size, epsilon=64e-5, **options)
        self.norm_scale, self.norm_bias = new.full([depth]), new.full([depth], 0)
        self.out_proj = new.linear(depth, depth, _ZEROS)

    @with_hints
    def __call__(
        self,
        inputs: ArrayLike,
        state: PyTree = None,
        *,
        first_values: ArrayLike | None = None,
        sequence_length: Lengths | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Results:
        """Runs the layer over sequences; see `GatedDeltaNet.__call__`.

        Args:
            inputs: `[batch, time, in_features]`.
            state: The state that a previous call returned. Default: start new
                sequences.
            first_values: The result of the first layer's method `values`,
                `[batch, time, in_features]`. Omit it in the first layer.
            sequence_length: Integers `[batch]`, the number of valid steps of each row.
                Default: all steps.
            mask: Bool `[batch, time]`, true at valid steps. Default: all steps.
            resets: Bool `[batch, time]`, true where a row begins a new sequence.
                Default: nowhere.
            axis_name: In `jax.shard_map`, the mesh axis that divides time. Default:
                time is not divided.

        Returns:
            `(outputs, state)`.

        Raises:
            ValueError: If `first_values` is given in the first layer, or missing in a
                later layer; see also `GatedDeltaNet`.
        """
        given = "be given, because `layer_index` is not 0"
        must = "be None, because `layer_index` is 0" if self.v is None else given
        fix = "" if self.v is None else "Pass the result of the first layer's `values`."
        fits = (first_values is None) == (self.v is None)
        expect(fits, "first_values", must, first_values, fix)
        others = []
        if first_values is not None:
            shape = as_array("inputs", inputs)
            others = [as_like("first_values", first_values, shape, any_dtype=True)]
        steps = StepArguments(sequence_length, mask, resets, axis_name)
        return self._over_sequences(self._run, inputs, state, steps, *others)

    @with_hints
    def values(
        self,
        inputs: ArrayLike,
        state: PyTree = None,
        *,
        sequence_length: Lengths | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Array:
        """Computes the values of the first layer, for `first_values` of later layers.

        Args:
            inputs: `[batch, time, in_features]`, the inputs of the first layer.
            state: The state that you also pass to the first layer's call. Default:
                start new sequences.
            sequence_length: Integers `[batch]`, the number of valid steps of each row.
                Default: all steps.
            mask: Bool `[batch, time]`, true at valid steps. Default: all steps.
            resets: Bool `[batch, time]`, true where a row begins a new sequence.
                Default: nowhere.
            axis_name: In `jax.shard_map`, the mesh axis that divides time. Default:
                time is not divided.

        Returns:
            `[batch, time, in_features]`, zeros at padding.

        Raises:
            ValueError: If the layer is not the first one; see also `GatedDeltaNet`.
        """
        index, must = self.layer_index, "be 0 for `values`"
        fix = "Call `values` on the network's first layer, and pass its result to this "
        fix += "layer as `first_values`."
        expect(index == 0, "layer_index", must, index, fix)
        steps = StepArguments(sequence_length, mask, resets, axis_name)
        run = lambda *given: (self.v_proj(self._mixed(*given)[0][3]), None)
        return self._over_sequences(run, inputs, state, steps)[0]

    def _mixed(self, x: Array, state: State, steps: StepArguments) -> Any:
        """Returns `[6, batch, time, depth]` interpolated inputs, and the last input."""
        shift = jnp.zeros((2, x.shape[-1]), x.dtype).at[0].set(1)
        given = state.past_inputs, steps, self.implementation
        before, past = parts.run_conv(x, shift, None, *given)
        mix = self.mix[...].astype(x.dtype)[:, None, None]
        return x[None] + (before - x)[None] * mix, past

    def _run(
        self, x: Array, state: State, steps: StepArguments, first: Any = None
    ) -> Results:
        (xr, xw, xk, xv, xa, xg), past = self._mixed(x, state, steps)
        r, k, v = self.r_proj(xr), self.k_proj(xk), self.v_proj(xv)
        rate = jax.nn.sigmoid(self.a(xa))
        if self.v is not None and first is not None:  # `zero_state` has none.
            v = v + (first - v) * jax.nn.sigmoid(self.v(xv))
        w = self.w(xw).astype(at_least_float32(x.dtype))
        g = -math.exp(-0.5) * jax.nn.sigmoid(w)
        removed = k * parts.broadcast_param(self.k_k, x)
        k = k * (1 + (rate - 1) * parts.broadcast_param(self.k_a, x))
        by_head = lambda x: parts.in_heads(x, self.memory.output_size)
        r, k, v, rate, g, removed = map(by_head, (r, k, v, rate, g, removed))
        wide = removed.astype(g.dtype)
        squares = jnp.sum(wide * wide, axis=-1, keepdims=True)
        removed = wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
        removed = removed.astype(x.dtype)
        inputs = DPLRInputs(r, k, v, -removed, removed * rate, g)
        h, last = parts.run_memory(self, inputs, state.cell_state, steps)
        h = parts.join_heads(self.norm(h)) * parts.broadcast_param(self.norm_scale, x)
        h += parts.broadcast_param(self.norm_bias, x)
        own = jnp.sum(r * k * parts.broadcast_param(self.r_k, r), -1, keepdims=True)
        h = (h + parts.join_heads(own * v)) * self.g(xg)
        return self.out_proj(h), State(past, last)


def _ranks(depth: int) -> list[int]:
    """The authors' ranks of the projections for w, a, v and g."""
    factors = 2.5, 2.5, 1.7, 5
    return [max(32, 32 * round(factor * depth**0.5 / 32)) for factor in factors]
