"""Base classes of contrib's LSTMs, with projections, layer normalization and shards."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import AffineCell, LSTMCell, LSTMStateTuple, ParamSpec, Stage, extend
from jaxrnn.typing import Activation, Array, Initializer, Params, PyTree, Size, Specs

from .._base.math import clip_symmetric as clip_symmetric
from .._cells.lstm import (
    add_peephole as add_peephole,
    as_lstm_state,
    new_lstm_state,
    projection,
)

NO_PROJECTION = "For no projection, omit the argument."


class ContribLSTM(AffineCell):
    """The base class of contrib's LSTMs, with an optional projection.

    Attributes:
        num_proj: The size of the projected output, positive; None for no projection.
    """

    num_units: int
    activation: Activation
    # Defaults for cells that lack these fields.
    num_proj: int | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None
    initializer: Initializer | None = None
    state_is_tuple: bool = True
    kernel_initializer: Any = property(
        lambda self: self.initializer or extend.glorot_uniform
    )

    @property
    def output_size(self) -> int:
        """The size of h, `num_proj` or, without a projection, `num_units`."""
        return self.num_units if self.num_proj is None else self.num_proj

    @property
    def state_size(self) -> Size:
        """The sizes of c and h; their sum for one array `[c, h]`."""
        sizes = LSTMStateTuple(self.num_units, self.output_size)
        return sizes if self.state_is_tuple else sum(sizes)

    def with_projection(self, gates: Stage) -> tuple[Stage, ...]:
        """The stage of the gates, then the projection stage if there is one."""
        if self.num_proj is None:
            return (gates,)
        kernel = self.kernel_initializer
        return gates, projection(self._project, self.num_units, self.num_proj, kernel)

    def enter(self, state: PyTree) -> tuple[Array, PyTree]:
        """Returns h as the operand and the state as the carry.

        If no matrix product uses h, the operand has no columns.
        """
        state = as_lstm_state(state, self.num_units)
        return (state.h if self.stages[0].rows else state.h[:, :0]), state

    def emit(self, c: Array, m: Array, state: LSTMStateTuple) -> tuple[Array, PyTree]:
        """The result of the gates' update; m becomes h' if there is no projection."""
        m = m.astype(state.h.dtype)
        if self.num_proj is None:
            return m, new_lstm_state(c, m, self.state_is_tuple)
        return m, LSTMStateTuple(c, state.h)

    def _project(
        self, params: Params, z: Array, carry: LSTMStateTuple
    ) -> tuple[Array, PyTree]:
        h = clip_symmetric(z, self.proj_clip).astype(carry.h.dtype)
        return h, new_lstm_state(carry.c, h, self.state_is_tuple)


class LayerNormedLSTM(ContribLSTM):
    """An LSTM with optional layer normalization of each gate and of c'.

    With `layer_norm`, `gamma` and `beta` `[num_units]` are stored under the scope of
    each gate and under the scope `state`. In this case, no bias is added to the matrix
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
    _gates: Callable[..., tuple[Array, PyTree]]
    """The update of the first stage."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of all gates, then the projection stage if there is one."""
        count = len(self.gate_scopes)
        gates = Stage(
            self._gates,
            rows=self.output_size,
            columns=count * self.num_units,
            kernel=self.kernel_initializer,
            blocks=count,
        )
        return self.with_projection(gates)

    def elementwise_specs(self) -> Specs:
        """Specs of the peepholes, and of each normalization's `gamma` and `beta`."""
        shape = (self.num_units,)
        specs: Specs = {}
        if self.use_peepholes:
            spec = ParamSpec(shape, self.kernel_initializer)
            specs |= dict.fromkeys(self.peepholes, spec)
        if self.layer_norm:
            gamma = ParamSpec(shape, constant(self.norm_gain))
            beta = ParamSpec(shape, constant(self.norm_shift))
            for scope in (*self.gate_scopes, "state"):
                specs[scope] = {"gamma": gamma, "beta": beta}
        return specs

    def normalized_gates(self, params: Params, z: Array) -> list[Array]:
        """The blocks of z, each normalized if `layer_norm` is True."""
        blocks = jnp.split(z, len(self.gate_scopes), axis=-1)
        return [
            self.normalized(params, scope, block)
            for scope, block in zip(self.gate_scopes, blocks, strict=True)
        ]

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
        wide = x.astype(extend.at_least_float32(x.dtype))
        centered = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(centered * centered, -1, keepdims=True)
        normal = centered * jax.lax.rsqrt(variance + epsilon)
        gamma = params[scope]["gamma"].astype(wide.dtype)[None, :]
        beta = params[scope]["beta"].astype(wide.dtype)[None, :]
        return (normal * gamma + beta).astype(x.dtype)


def core_lstm(cell: Any, **fields: Any) -> LSTMCell:
    """An `LSTMCell` with `fields`.

    All other fields that `LSTMCell` and `cell` share are copied from `cell`.
    """
    names = {field.name for field in dataclasses.fields(LSTMCell)}
    common = {name: getattr(cell, name) for name in names if hasattr(cell, name)}
    return LSTMCell(**common | fields)


def shard_specs(cell: Any, name: str, rows: int, columns: int, shards: int) -> Specs:
    """Specs of a kernel whose rows are split into variables `<name>_0`, `<name>_1`, ...

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    must = f"have at least as many rows as shards ({shards})"
    extend.expect(shards <= rows, name, must, rows, "Choose fewer shards.")
    kernel = cell.initializer or extend.glorot_uniform
    least, longer = divmod(rows, shards)
    sizes = [least + (i < longer) for i in range(shards)]
    return {
        f"{name}_{i}": ParamSpec((size, columns), kernel)
        for i, size in enumerate(sizes)
    }


def joined(params: Params, name: str, shards: int) -> Array:
    """The kernel `name`, concatenated from its shards."""
    return jnp.concatenate([params[f"{name}_{i}"] for i in range(shards)])
