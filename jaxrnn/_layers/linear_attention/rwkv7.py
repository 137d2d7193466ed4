"""`RWKV7TimeMix`: the recurrent layer of RWKV-7."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.errors import expect
from ..._base.math import at_least_float32
from ..._base.modules import import_optional
from ..._base.typing import Array, ArrayLike, Lengths, PyTree
from ..._cells import fields
from ..._cells.matrix.dplr_rule import DPLRInputs
from ..._cells.matrix.memories import DPLRMemoryCell
from ..._drivers.short_conv import short_conv
from ..._hints import with_hints
from ..._wrappers.past_inputs import PastInputsState as State
from . import parts
from .layer import LinearAttentionLayer, Marks, Results

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")

_WIDE, _NARROW = parts.uniform(0.5), parts.uniform(0.05)
_ORTHOGONAL = jax.nn.initializers.orthogonal(0.1)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RWKV7TimeMix(LinearAttentionLayer):
    """The time mix of RWKV-7, whose memory is a `jaxrnn.DPLRMemoryCell`.

    Each projection reads its own mean of the current and the previous input (a token
    shift). In all layers of a network but the first, the values move towards those of
    the first layer:

        first = layers[0].values(x0, state0, sequence_length=lengths)
        y, state = layers[3](x, state, first, sequence_length=lengths)

    Under `jit`, XLA computes only once what `values` and the call of a layer share.

    Args:
        in_features: The size of inputs and outputs.
        num_heads: The number of heads, which must divide `in_features`; in the
            authors' networks `in_features / 64`.
        layer_index: The index of the layer in its network. Only later layers than 0
            have the parts of `v`, and read `first_values`.
        num_layers: The number of layers of the network, which initial values depend on.
        ranks: The ranks of the parts of w, a, v and g; None for the authors'.
        dtype: As in `GatedDeltaNet`, like the arguments that follow.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range, or `num_heads` does not divide
            `in_features`.

    Source: arXiv:2503.14456, section 4; initial values of `RWKV_Tmix_x070` in the
    authors' repository.
    """

    num_heads: int = fields.count()
    _: dataclasses.KW_ONLY
    layer_index: int = fields.size(default=0)
    num_layers: int = fields.count(default=1)
    ranks: Sequence[int] | None = None

    def _make(self, make: parts.Parts) -> None:
        depth, heads = self.in_features, self.num_heads
        size = depth // heads
        must = f"divide `in_features` ({depth})"
        expect(depth == size * heads, "num_heads", must, heads)
        self.memory = DPLRMemoryCell(heads, size, size, scale=1.0)
        late = self.layer_index / max(self.num_layers - 1, 1)
        early = 1 - self.layer_index / self.num_layers
        powers = early * np.array([0.2, 0.9, 0.7, 0.7, 0.9, 0.2])[:, None]
        # The shares of the previous input in r, w, k, v, a and g.
        self.mix = make.full([6, depth], 1 - (np.arange(depth) / depth) ** powers)
        self.r_proj = make.linear(depth, depth, _WIDE)
        self.k_proj = make.linear(depth, depth, _NARROW)
        self.v_proj = make.linear(depth, depth, _WIDE)
        ramp, wave = np.linspace(0, 1, depth), np.linspace(-1, 1, size)
        wave = np.tile(wave * np.abs(wave), heads)
        w = -5.5 + 6 * ramp ** (1 + late**0.3) + 2.5 * wave
        low_rank = functools.partial(_low_rank, make, depth)
        of_w, of_a, of_v, of_g = self.ranks or _ranks(depth)
        self.w = low_rank(of_w, w, jnp.tanh)
        self.a = low_rank(of_a, -0.39 + 0.3 * wave + 0.4 * ramp)
        self.v = low_rank(of_v, 0.93 - 0.4 * ramp) if self.layer_index else None
        self.g = low_rank(of_g, None, jax.nn.sigmoid)
        self.k_k = make.full([depth], 0.76 - 0.1 * ramp)
        self.k_a = make.full([depth], 1.02)
        self.r_k = make.full([heads, size], -0.04)
        self.norm = nnx.GroupNorm(depth, heads, epsilon=64e-5, **vars(make))
        self.out_proj = make.linear(depth, depth, jax.nn.initializers.zeros)

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
        """What the later layers of the network read, if this layer is the first.

        Args:
            inputs: As in a call, like the other arguments.
            state: The state, or None.
            sequence_length: The lengths, or None.
            mask: The valid steps, or None.
            resets: The resets, or None.
            axis_name: The axis that divides time, or None.
        """
        marks = Marks(sequence_length, mask, resets, axis_name)
        run = lambda *given: (self.v_proj(self._mixed(*given)[0][3]), None)
        return self._over_sequences(run, inputs, state, marks)[0]

    def _mixed(self, x: Array, state: State, marks: Marks) -> Any:
        """The six means of the current and the previous inputs, and the last inputs."""
        kernel = jnp.zeros((2, x.shape[-1]), x.dtype).at[0].set(1)
        before, past = short_conv(
            x, kernel, initial_state=state.past_inputs, **vars(marks)
        )
        mix = self.mix[...].astype(x.dtype)[:, None, None]
        return x[None] + (before - x)[None] * mix, past

    def _run(self, x: Array, state: State, marks: Marks, first: Any = None) -> Results:
        must = "be given if `layer_index` is not 0, and only then"
        expect((first is None) == (self.v is None), "first_values", must, first)
        (xr, xw, xk, xv, xa, xg), past = self._mixed(x, state, marks)
        r, k, v = self.r_proj(xr), self.k_proj(xk), self.v_proj(xv)
        rate = jax.nn.sigmoid(self.a(xa))
        if self.v is not None:
            v = v + (first - v) * jax.nn.sigmoid(self.v(xv))
        w = self.w(xw).astype(at_least_float32(x.dtype))
        g = -jnp.exp(-0.5).astype(w.dtype) * jax.nn.sigmoid(w)
        removed = k * parts.value(self.k_k, x)
        k = k * (1 + (rate - 1) * parts.value(self.k_a, x))
        by_head = lambda x: parts.in_heads(x, self.memory.output_size)
        r, k, v, rate, g, removed = map(by_head, (r, k, v, rate, g, removed))
        squares = jnp.sum(removed * removed, axis=-1, keepdims=True)
        removed *= jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
        inputs = DPLRInputs(r, k, v, -removed, removed * rate, g)
        h, last = parts.run_memory(self.memory, {}, inputs, state.cell_state, marks)
        h = parts.normalized(self.norm, h.reshape(-1, x.shape[-1])).reshape(x.shape)
        bonus = jnp.sum(r * k * parts.value(self.r_k, r), axis=-1, keepdims=True) * v
        h = (h + parts.join_heads(bonus)) * self.g(xg)
        return self.out_proj(h), State(past, last)


def _low_rank(
    make: parts.Parts, depth: int, rank: int, bias: Any, activation: Any = None
) -> nnx.Sequential:
    """`activation(x @ down) @ up + bias`; `down` is 0 at first."""
    down = make.linear(depth, rank, jax.nn.initializers.zeros)
    up = make.linear(rank, depth, _ORTHOGONAL, bias)
    return nnx.Sequential(*filter(None, (down, activation, up)))


def _ranks(depth: int) -> list[int]:
    """The authors' ranks of the parts of w, a, v and g."""
    factors = 2.5, 2.5, 1.7, 5
    return [max(32, 32 * round(factor * depth**0.5 / 32)) for factor in factors]
