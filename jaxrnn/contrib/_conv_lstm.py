"""LSTMs over images and other grids: convolutions in place of products."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform

from .._base.arguments import as_axis_size, as_count
from .._base.cell_keys import check_key, check_key_of_step
from .._base.errors import describe, is_array
from .._base.tensor_shape import TensorShape
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.affine import param_dtype
from .._cells.base import RNNCell, scope_name
from .._cells.hyperparameters import set_common_fields, set_field
from .._cells.initializers import ParamSpec, make_params, zeros
from .._cells.states import LSTMStateTuple
from .._cells.step_checks import (
    check_floating,
    check_one_dtype,
    check_params,
    check_state,
)
from ._convolution import convolve


class ConvLSTM(RNNCell):
    """What the four classes share; each declares its fields in contrib's order."""

    conv_ndims: int
    input_shape: Any
    output_channels: int
    kernel_shape: Any
    use_bias: bool
    skip_connection: bool
    forget_bias: float
    name: str | None
    dtype: DType | None

    def __post_init__(self) -> None:
        set_common_fields(self)
        where = type(self).__name__
        ndims = as_count(where, "conv_ndims", self.conv_ndims, fix="", most=3)
        lengths = {"input_shape": ndims + 1, "kernel_shape": ndims}
        for field, length in lengths.items():
            sizes = _sizes(where, field, getattr(self, field))
            if len(sizes) != length:
                ends = " It ends with the channels, and has no batch."
                raise ValueError(
                    f"{where}: `{field}` must have {length} entries for "
                    f"{ndims} axes of convolution, got {sizes}."
                    f"{ends if field == 'input_shape' else ''}"
                )
            set_field(self, **{field: sizes})
        channels = as_count(where, "output_channels", self.output_channels, fix="")
        set_field(self, output_channels=channels)

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers: it does not."""
        return False

    @property
    def state_size(self) -> LSTMStateTuple:
        """Those of c and h, both `TensorShape([*grid, output_channels])`."""
        size = TensorShape([*self.input_shape[:-1], self.output_channels])
        return LSTMStateTuple(size, size)

    @property
    def output_size(self) -> TensorShape:
        """That of h; with a skip connection it has the channels of the inputs too."""
        more = self.input_shape[-1] if self.skip_connection else 0
        return TensorShape([*self.input_shape[:-1], self.output_channels + more])

    def param_specs(self, depth: int) -> dict[str, ParamSpec]:
        """The parameters for inputs of `depth` channels."""
        columns = 4 * self.output_channels
        shape = (*self.kernel_shape, depth + self.output_channels, columns)
        specs = {"kernel": ParamSpec(shape, glorot_uniform())}
        if self.use_bias:
            specs["biases"] = ParamSpec((columns,), zeros)
        return specs

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not of `input_shape`, or the dtype is not
                floating.
            TypeError: If `key` is not a random key.
        """
        check_key(type(self).__name__, key)
        dtype = param_dtype(self, self._checked_inputs(inputs), dtype)
        return make_params(self.param_specs(self.input_shape[-1]), key, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell
                requires.
            TypeError: If a dtype, or the kind of state, is not what it requires.
        """
        check_key_of_step(type(self).__name__, key)
        inputs, state = self._checked(params, inputs, state)
        with jax.named_scope(scope_name(self)):
            z = self._product(params, jnp.concatenate([inputs, state.h], -1))
            state = self._gates(z.astype(state.c.dtype), state)
            if not self.skip_connection:
                return state.h, state
            return jnp.concatenate([state.h, inputs], -1), state

    def _product(self, params: Params, x: Array) -> Array:
        z = convolve(x, params["kernel"])
        if not self.use_bias:
            return z
        return z + jnp.expand_dims(params["biases"], tuple(range(x.ndim - 1)))

    def _gates(self, z: Array, state: LSTMStateTuple) -> LSTMStateTuple:
        sigmoid = jax.nn.sigmoid
        i, j, f, o = jnp.split(z, 4, axis=-1)
        c = sigmoid(f + self.forget_bias) * state.c + sigmoid(i) * jnp.tanh(j)
        h = jnp.tanh(c) * sigmoid(o)
        return LSTMStateTuple(c, h.astype(state.h.dtype))

    def _checked_inputs(self, inputs: Any) -> Any:
        name, shape = type(self).__name__, ", ".join(map(str, self.input_shape))
        is_shape = isinstance(inputs, jax.ShapeDtypeStruct)
        if not (is_shape or is_array(inputs)):
            is_nest = not jax.tree_util.all_leaves([inputs])
            raise (ValueError if is_nest else TypeError)(
                f"{name}: `inputs` must be one array [batch, {shape}], got "
                f"{describe(inputs)}."
            )
        check_floating(name, "inputs", inputs.dtype)
        if len(inputs.shape) < 1 or tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(
                f"{name}: `inputs` of one step must be [batch, {shape}], by "
                f"`input_shape`, got {describe(inputs)}."
            )
        return inputs if is_shape else jnp.asarray(inputs)

    def _checked(
        self, params: Params, inputs: Any, state: PyTree
    ) -> tuple[Array, LSTMStateTuple]:
        name = type(self).__name__
        inputs = self._checked_inputs(inputs)
        state = check_state(name, state, self.state_size, inputs.shape[0])
        check_params(name, params, self.param_specs, inputs)
        state = LSTMStateTuple(*state)
        check_one_dtype(name, self.dtype, inputs, state.h)
        return inputs, state


def _sizes(where: str, field: str, value: Any) -> tuple[int, ...]:
    """A list of sizes as a tuple; those of a kernel are positive."""
    check = as_count if field == "kernel_shape" else as_axis_size
    try:
        sizes = list(value)
    except TypeError:
        raise TypeError(
            f"{where}: `{field}` must be a list of integers, got {describe(value)}. "
            "With one axis it is a list as well: `kernel_shape=[3]`."
        ) from None
    return tuple(check(where, f"{field}[{k}]", n, fix="") for k, n in enumerate(sizes))


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ConvLSTMCell(ConvLSTM):
    """A long short-term memory (LSTM) whose products are convolutions.

        i, j, f, o = split([x, h] * kernel + biases)
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
        h' = tanh(c') * sigmoid(o)

    The first `*` is a convolution over the grid with stride 1, padded by zeros so that
    the grid keeps its size. `[x, h]` and the four blocks are of channels.

    Shapes, for a grid `G` of 1, 2 or 3 axes, `I` input channels and `C =
    output_channels`: inputs `[batch, *G, I]`; c and h `[batch, *G, C]`, sizes
    `TensorShape([*G, C])`; output h, or `[h, x]` with `skip_connection`; `kernel`
    `[*kernel_shape, I + C, 4C]`, blocks i, j, f, o; `biases` `[4C]`.

    contrib puts the output with skip connection, of `C + I` channels, into the state as
    well, where h has `C`: so it runs for one step alone. Here the state is h.

    Attributes:
        conv_ndims: The number of axes of the grid, 1, 2 or 3.
        input_shape: `(*G, I)`, the shape of one row of the inputs.
        output_channels: `C`.
        kernel_shape: The shape of the kernel's window, as many entries as axes.
        use_bias: Whether there are `biases`.
        skip_connection: Whether the output is h followed by the inputs.
        forget_bias: Added to f at each step; not part of the stored biases.
        initializers: Accepted for compatibility with TensorFlow; not used. The kernel
            is drawn by Glorot uniform, and biases are zeros.
        name: The name of the step in profiles.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `input_shape` or `kernel_shape` does not fit `conv_ndims`, or
            `dtype` is not floating.

    Source: arXiv:1506.04214; `tf.contrib.rnn.ConvLSTMCell`.
    """

    conv_ndims: int
    input_shape: Any
    output_channels: int
    kernel_shape: Any
    use_bias: bool = True
    skip_connection: bool = False
    forget_bias: float = 1.0
    initializers: Any = dataclasses.field(default=None, compare=False)
    name: str | None = "conv_lstm_cell"
    dtype: DType | None = None


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class FixedAxesConvLSTM(ConvLSTM):
    """A `ConvLSTMCell` whose class fixes `conv_ndims`."""

    name: str | None = None
    _: dataclasses.KW_ONLY
    input_shape: Any
    output_channels: int
    kernel_shape: Any
    use_bias: bool = True
    skip_connection: bool = False
    forget_bias: float = 1.0
    initializers: Any = dataclasses.field(default=None, compare=False)
    dtype: DType | None = None


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Conv1DLSTMCell(FixedAxesConvLSTM):
    """`ConvLSTMCell` over one axis, `input_shape` `(width, channels)`.

    Attributes:
        name: See `ConvLSTMCell`, as for all others.
        input_shape: `(width, I)`.
        output_channels: `C`.
        kernel_shape: `(width,)`.
        use_bias: Whether there are `biases`.
        skip_connection: Whether the output is h followed by the inputs.
        forget_bias: Added to f at each step.
        initializers: Not used.
        dtype: The required dtype of parameters and inputs; None for any.

    Source: arXiv:1506.04214; `tf.contrib.rnn.Conv1DLSTMCell`.
    """

    conv_ndims = 1
    name: str | None = "conv_1d_lstm_cell"


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Conv2DLSTMCell(FixedAxesConvLSTM):
    """`ConvLSTMCell` over images, `input_shape` `(height, width, channels)`.

    Attributes:
        name: See `ConvLSTMCell`, as for all others.
        input_shape: `(height, width, I)`.
        output_channels: `C`.
        kernel_shape: `(height, width)`.
        use_bias: Whether there are `biases`.
        skip_connection: Whether the output is h followed by the inputs.
        forget_bias: Added to f at each step.
        initializers: Not used.
        dtype: The required dtype of parameters and inputs; None for any.

    Source: arXiv:1506.04214; `tf.contrib.rnn.Conv2DLSTMCell`.
    """

    conv_ndims = 2
    name: str | None = "conv_2d_lstm_cell"


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Conv3DLSTMCell(FixedAxesConvLSTM):
    """`ConvLSTMCell` over volumes, `input_shape` `(depth, height, width, channels)`.

    Attributes:
        name: See `ConvLSTMCell`, as for all others.
        input_shape: `(depth, height, width, I)`.
        output_channels: `C`.
        kernel_shape: `(depth, height, width)`.
        use_bias: Whether there are `biases`.
        skip_connection: Whether the output is h followed by the inputs.
        forget_bias: Added to f at each step.
        initializers: Not used.
        dtype: The required dtype of parameters and inputs; None for any.

    Source: arXiv:1506.04214; `tf.contrib.rnn.Conv3DLSTMCell`.
    """

    conv_ndims = 3
    name: str | None = "conv_3d_lstm_cell"
