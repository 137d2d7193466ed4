"""Base classes of contrib's LSTMs, with projections, layer normalization and shards."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import LSTMCell, LSTMStateTuple, ParamSpec, Stage

from .._base.errors import InvalidValue
from .._base.math import clip_symmetric, widened
from .._base.typing import Array, Initializer, Params, PyTree
from .._cells.hyperparameters import set_counts, set_numbers
from .._cells.initializers import glorot_uniform, zeros
from .._cells.states import LSTMFamily, add_peephole


class ContribLSTM(LSTMFamily):
    """The base class of contrib's LSTMs, with an optional projection.

    Attributes:
        num_proj: The size of the projected output, positive; None for no projection.
    """

    num_units: int
    num_proj: int | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None
    initializer: Initializer | None = None
    state_is_tuple = True
    kernel_initializer: Any = property(lambda self: self.initializer or glorot_uniform)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "cell_clip", "proj_clip", low=0)
        set_counts(self, "num_proj", fix="Omit it for no projection.")

    @property
    def sizes(self) -> LSTMStateTuple:
        """Sizes: `num_units` for c; `num_proj` or, by default, `num_units` for h."""
        h = self.num_units if self.num_proj is None else self.num_proj
        return LSTMStateTuple(self.num_units, h)

    def with_projection(self, gates: Stage) -> tuple[Stage, ...]:
        """The stage of the gates, then the projection stage if there is one."""
        if self.num_proj is None:
            return (gates,)
        (c, h), make = self.sizes, self.kernel_initializer
        return gates, Stage(self._project, c, h, make, None, "projection", False, 1)

    def emit(self, c: Array, m: Array, state: LSTMStateTuple) -> tuple[Array, PyTree]:
        """The result of the gates' update; m becomes h' if there is no projection."""
        m = m.astype(state.h.dtype)
        return self.leave(c, m) if self.num_proj is None else (m, (c, state))

    def _project(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        c, state = carry
        return self.leave(c, clip_symmetric(z, self.proj_clip).astype(state.h.dtype))


class LayerNormedLSTM(ContribLSTM):
    """An LSTM with optional layer normalization of each gate and of c'.

    With `layer_norm`, `gamma` and `beta` `[num_units]` are stored under the scope of
    each gate and under the scope `state`. In this case, no bias is added to the
    product, even if a bias is stored.

    Attributes:
        layer_norm: Whether to use layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
    """

    forget_bias: float
    layer_norm: bool
    norm_gain: float
    norm_shift: float
    use_peepholes: bool = False
    gate_scopes: tuple[str, ...]
    peepholes: tuple[str, ...]
    _gates: Any
    """The update of the first stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "norm_gain", "norm_shift")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of all gates, then the projection stage if there is one."""
        (c, h), count = self.sizes, len(self.gate_scopes)
        kernel = self.kernel_initializer
        gates = Stage(self._gates, h, count * c, kernel, zeros, blocks=count)
        return self.with_projection(gates)

    def elementwise_specs(self) -> dict[str, Any]:
        """Specs of the peepholes, and of each normalization's `gamma` and `beta`."""
        spec = lambda make: ParamSpec((self.num_units,), make)
        pair = {"gamma": constant(self.norm_gain), "beta": constant(self.norm_shift)}
        peepholes = self.peepholes if self.use_peepholes else ()
        scopes = (*self.gate_scopes, "state") if self.layer_norm else ()
        specs: dict[str, Any] = dict.fromkeys(peepholes, spec(self.kernel_initializer))
        return specs | dict.fromkeys(scopes, jax.tree.map(spec, pair))

    def normalized_gates(self, params: Params, z: Array) -> list[Array]:
        """The blocks of z, each normalized if `layer_norm` is True."""
        blocks = jnp.split(z, len(self.gate_scopes), axis=-1)
        pairs = zip(self.gate_scopes, blocks, strict=True)
        return [self.normalized(params, *pair) for pair in pairs]

    def normalized_memory(
        self, params: Params, peephole: str, o: Array, c: Array
    ) -> tuple[Array, Array]:
        """Computes `(c', m)` from the block o and the unnormalized c'."""
        c = clip_symmetric(self.normalized(params, "state", c), self.cell_clip)
        o = jax.nn.sigmoid(add_peephole(params, peephole, o, c))
        return c, o * self.activation(c)

    def normalized(self, params: Params, scope: str, x: Array) -> Array:
        """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

        Epsilon is 1e-12 (1e-3 in float16). The result is computed in at least float32.
        Without `layer_norm`, x is returned unchanged.

        Source: arXiv:1607.06450; `tf.contrib.layers.layer_norm`.
        """
        if not self.layer_norm:
            return x
        epsilon = 1e-3 if x.dtype == jnp.float16 else 1e-12
        wide = widened(x)
        centered = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(centered * centered, -1, keepdims=True)
        normal = centered * jax.lax.rsqrt(variance + epsilon)
        names, own = ("gamma", "beta"), params[scope]
        gamma, beta = (own[name].astype(wide.dtype)[None, :] for name in names)
        return (normal * gamma + beta).astype(x.dtype)


def core_lstm(cell: Any, **fields: Any) -> LSTMCell:
    """An `LSTMCell` with `fields`.

    All other fields that both cells have are copied from `cell`.
    """
    names = {field.name for field in dataclasses.fields(LSTMCell)}
    common = {name: getattr(cell, name) for name in names if hasattr(cell, name)}
    return LSTMCell(**common | fields)


def shard_specs(
    cell: Any, name: str, rows: int, columns: int, shards: int
) -> dict[str, Any]:
    """Specs of a kernel whose rows are split into variables `<name>_0`, `<name>_1`, ...

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    if shards > rows:
        raise InvalidValue(
            f"the number of shards of `{name}` must not exceed "
            f"its {rows} rows, got {shards}. Use fewer shards."
        )
    make, (least, longer) = cell.initializer or glorot_uniform, divmod(rows, shards)
    sizes = [least + (i < longer) for i in range(shards)]
    return {f"{name}_{i}": ParamSpec((n, columns), make) for i, n in enumerate(sizes)}


def joined(params: Params, name: str, shards: int) -> Array:
    """The kernel `name`, concatenated from its shards."""
    return jnp.concatenate([params[f"{name}_{i}"] for i in range(shards)])
