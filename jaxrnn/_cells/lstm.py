"""The basic LSTM, and the LSTM with peepholes, clips and a projection."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.math import clip_symmetric
from .._base.trees import serializable
from .._base.typing import Array, DType, Initializer, Leaf, Params, PyTree, Size
from . import fields
from .affine import AffineCell, Stage, StageResult
from .equations import Equations
from .params import ParamSpec, bias_initializer, glorot_uniform, zeros


@serializable
class LSTMStateTuple(NamedTuple, Generic[Leaf]):
    """The state of an LSTM: the cell state `c`, then the output `h`.

    Functions that also accept a plain pair read the pair as `(c, h)`, and warn.
    PyTorch's pairs are `(h, c)`; convert them with
    `LSTMStateTuple(h=pair[0], c=pair[1])`. These functions also accept other named
    tuples with the fields `c` and `h`, such as TensorFlow's, without a warning.

    Source: `tf.compat.v1.nn.rnn_cell.LSTMStateTuple`.
    """

    c: Leaf
    h: Leaf

    @property
    def dtype(self: "LSTMStateTuple[Array]") -> DType:
        """The common dtype of `c` and `h`.

        Raises:
            TypeError: If the dtypes of `c` and `h` differ.
        """
        if self.c.dtype != self.h.dtype:
            raise TypeError(
                "`c` and `h` must have the same dtype, got "
                f"{self.c.dtype} and {self.h.dtype}. Use `c.dtype` or `h.dtype`."
            )
        return self.c.dtype


def add_peephole(params: Params, name: str, z: Array, c: Array) -> Array:
    """Returns `z + params[name] * c`, or z if `params` has no peephole `name`."""
    if name not in params:
        return z
    return z + params[name].astype(c.dtype)[None, :] * c


class LSTM(AffineCell[LSTMStateTuple[Array]]):
    """The base class of LSTMs, with their sizes, states and optional projection.

    A subclass passes the update of its gates to `_gate_stages`. The update returns
    `_emit(c', m, state)`. Without a projection, `h' = m`; otherwise,
    `h' = clip(m projection/kernel, -proj_clip, proj_clip)`.
    """

    num_units: int
    # Defaults for cells that lack these fields.
    initializer: Initializer | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    state_is_tuple: bool = True

    @property
    def state_size(self) -> Size:
        """The sizes of c and h; if `state_is_tuple` is False, their sum."""
        sizes = LSTMStateTuple(self.num_units, self.output_size)
        return sizes if self.state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> int:
        """The size of h: `num_proj`, or `num_units` if there is no projection."""
        return self.num_units if self.num_proj is None else self.num_proj

    def _gate_stages(
        self,
        update: Callable[..., StageResult],
        blocks: int = 4,
        path: str | None = None,
        takes_inputs: bool = True,
    ) -> tuple[Stage, ...]:
        """One product for all blocks, then the projection if there is one."""
        kernel = self.initializer or glorot_uniform
        gates = Stage(
            update,
            operand_size=self.output_size,
            columns=blocks * self.num_units,
            kernel=kernel,
            bias=bias_initializer(kernel, zeros),
            path=path,
            takes_inputs=takes_inputs,
            blocks=blocks,
        )
        if self.num_proj is None:
            return (gates,)
        project = Stage(
            self._project,
            operand_size=self.num_units,
            columns=self.num_proj,
            kernel=kernel,
            bias=None,
            path="projection",
            takes_inputs=False,
            blocks=1,
        )
        return gates, project

    def enter(self, state: PyTree) -> tuple[Array, LSTMStateTuple]:
        """Returns `(h, state)`; h is `[batch, 0]` if no product reads h."""
        if not isinstance(state, tuple | list):
            state = jnp.split(state, [self.num_units], axis=-1)
        state = LSTMStateTuple(*state)
        return super().enter(state.h)[0], state

    def _emit(self, c: Array, m: Array, state: LSTMStateTuple) -> StageResult:
        """Returns `(h', new_state)` or, before a projection, `(m, carry)`."""
        m = m.astype(state.h.dtype)
        if self.num_proj is None:
            return m, self._new_state(c, m)
        return m, LSTMStateTuple(c, state.h)

    def _project(self, params: Params, z: Array, carry: LSTMStateTuple) -> StageResult:
        h = clip_symmetric(z, self.proj_clip).astype(carry.h.dtype)
        return h, self._new_state(carry.c, h)

    def _new_state(self, c: Array, h: Array) -> PyTree:
        if self.state_is_tuple:
            return LSTMStateTuple(c, h)
        return jnp.concatenate([c, h], axis=-1)


@final
@fields.dataclass
class BasicLSTMCell(LSTM):
    """A long short-term memory (LSTM) without peepholes, clips or projection.

    Each step computes::

        i, j, f, o = split([x, h] kernel + bias)
        c' = c * sigmoid(f + forget_bias) + sigmoid(i) * activation(j)
        h' = activation(c') * sigmoid(o)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`. c may be
    float32 while h and the parameters are 16-bit; in that case, pass an `initial_state`
    with these dtypes.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: A number that each step adds to f; not stored in the bias.
        state_is_tuple: Whether the state is an `LSTMStateTuple`. If False, the state is
            one array `[batch, 2H]`, c and h concatenated.
        activation: A function or the name of a Keras activation. Default: tanh.
        project_inputs: Whether the cell multiplies the inputs by `kernel`. If False, a
            layer before the cell must project the inputs to `[batch, 4H]` with a
            kernel of its own, without a bias. The cell adds them to
            `h @ kernel + bias`; `kernel` is `[H, 4H]`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1409.2329; `tf.compat.v1.nn.rnn_cell.BasicLSTMCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    state_is_tuple: bool = fields.flag(True)
    activation: fields.ActivationLike = fields.activation()
    reuse: fields.Unused = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    project_inputs: bool = fields.flag(True)

    @property
    def equations(self) -> Equations:
        """The equations of a plain LSTM; see `AffineCell`."""
        return Equations("lstm", self.activation, self.forget_bias)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product for all four blocks."""
        return self._gate_stages(self._update)

    def _update(self, params: Params, z: Array, state: LSTMStateTuple) -> StageResult:
        i, j, f, o = jnp.split(z, 4, axis=-1)
        c = state.c * jax.nn.sigmoid(f + self.forget_bias)
        c = c + jax.nn.sigmoid(i) * self.activation(j)
        return self._emit(c, self.activation(c) * jax.nn.sigmoid(o), state)


def _as_clip(name: str, value: object) -> float:
    # As in TensorFlow, a bool counts as a number.
    bound = float(value) if isinstance(value, bool) else value
    return fields.check_number(name, bound, low=0)


@fields.dataclass
class LSTMCell(LSTM):
    """A long short-term memory (LSTM) with optional peepholes, clips and projection.

    Each step computes::

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * activation(j)
        c' = clip(c', -cell_clip, cell_clip)
        m  = sigmoid(o + w_o_diag c') * activation(c')
        h' = clip(m projection/kernel, -proj_clip, proj_clip)

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` (`P = H` without a
    projection): inputs `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`;
    `kernel` `[I + P, 4H]`, blocks i, j, f, o; `bias` `[4H]`; the peepholes `w_f_diag`,
    `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel` `[H, P]`. c may be float32 while h
    and the parameters are 16-bit; in that case, pass an `initial_state` with these
    dtypes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The largest magnitude of c', at least 0. If None, c' is not clipped.
        initializer: Initializes kernels and peepholes. Default: Glorot uniform. The
            bias is initially zeros, unless `initializer` is an `initializers.by_part`
            with a `bias`.
        num_proj: `P`, the size of h after a projection. If None, h is not projected.
        proj_clip: The largest magnitude of h' after a projection, at least 0. If None,
            h' is not clipped.
        forget_bias: A number that each step adds to f; not stored in the bias.
        state_is_tuple: Whether the state is an `LSTMStateTuple`. If False, the state is
            one array `[batch, H + P]`, c and h concatenated.
        activation: A function or the name of a Keras activation. Default: tanh.
        project_inputs: Whether the cell multiplies the inputs by `kernel`. If False, a
            layer before the cell must project the inputs to `[batch, 4H]` with a
            kernel of its own, without a bias. The cell adds them to
            `h @ kernel + bias`; `kernel` is `[P, 4H]`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: Sak, Senior and Beaufays, Interspeech 2014;
    `tf.compat.v1.nn.rnn_cell.LSTMCell`.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    cell_clip: float | None = fields.checked(_as_clip, default=None)
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None)
    proj_clip: float | None = fields.checked(_as_clip, default=None)
    num_unit_shards: fields.Unused = fields.unused()
    num_proj_shards: fields.Unused = fields.unused()
    forget_bias: float = fields.number(1.0)
    state_is_tuple: bool = fields.flag(True)
    activation: fields.ActivationLike = fields.activation()
    reuse: fields.Unused = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    project_inputs: bool = fields.flag(True)

    _gate_activation: ClassVar[Any] = staticmethod(jax.nn.sigmoid)

    @property
    def equations(self) -> Equations:
        """The equations of an LSTM; see `AffineCell`."""
        return Equations(
            "lstm",
            self.activation,
            self.forget_bias,
            has_peepholes=self.use_peepholes,
            has_projection=self.num_proj is not None,
            cell_clip=self.cell_clip,
            proj_clip=self.proj_clip,
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product for all four blocks, then the projection if there is one."""
        return self._gate_stages(self._gates)

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """Specs of the peepholes; empty without peepholes."""
        if not self.use_peepholes:
            return {}
        spec = ParamSpec((self.num_units,), self.initializer or glorot_uniform)
        return dict.fromkeys(("w_f_diag", "w_i_diag", "w_o_diag"), spec)

    def _gates(self, params: Params, z: Array, state: LSTMStateTuple) -> StageResult:
        c = state.c
        i, j, f, o = jnp.split(z, 4, axis=-1)
        f = add_peephole(params, "w_f_diag", f + self.forget_bias, c)
        i = add_peephole(params, "w_i_diag", i, c)
        gate = self._gate_activation
        c = gate(f) * c + gate(i) * self.activation(j)
        c = clip_symmetric(c, self.cell_clip)
        # The output gate reads the new c after clipping.
        o = add_peephole(params, "w_o_diag", o, c)
        return self._emit(c, gate(o) * self.activation(c), state)
