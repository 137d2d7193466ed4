"""Linear recurrences whose gates are blocks of one matrix product with the inputs.

The cells are the minimal GRU, the minimal LSTM and the quasi-recurrent neural network.
"""

from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from ..._base.errors import expect
from ..._base.math import at_least_float32
from ..._base.products import affine
from ..._base.typing import Array, DType, Initializer, Params
from .. import fields
from ..params import Specs, input_specs
from .cell import Coefficients, LinearRecurrenceCell

# The number of blocks in the kernel's columns for each kind of pooling.
_BLOCKS = {"f": 2, "fo": 3, "ifo": 4}


def _check_pooling(name: str, pooling: str) -> str:
    must, fix = f"be one of {', '.join(_BLOCKS)}", fields.fix_of_size(pooling)
    expect(pooling in _BLOCKS, name, must, pooling, fix)
    return pooling


def positive(x: Array) -> Array:
    """`x + 1/2` for x >= 0, otherwise `sigmoid(x)`; continuous and positive."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


class GatedLinearCell(LinearRecurrenceCell[Array]):
    """A linear recurrence with `num_blocks` gates `[batch, H]`, for `H = num_units`."""

    num_units: int
    num_blocks: ClassVar[Any]

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of `kernel` `[depth, num_blocks * H]` and `bias`."""
        blocks = self.num_blocks
        return input_specs(self, depth, blocks * self.num_units, blocks)

    def gates(self, params: Params, inputs: Array) -> list[Array]:
        """The blocks of `inputs kernel + bias`, in at least float32."""
        z = affine(params, [inputs], at_least_float32(inputs.dtype))
        return jnp.split(z, self.num_blocks, axis=-1)


@fields.dataclass
class MinimalCell(GatedLinearCell):
    """The fields of `MinGRUCell` and `MinLSTMCell`."""

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation(none=positive)
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()


@final
@fields.dataclass
class MinGRUCell(MinimalCell):
    """A minimal gated recurrent unit (minGRU); only the inputs determine its gate.

    Each step computes::

        z, c = split(x kernel + bias)
        h'   = sigmoid(-z) * h + sigmoid(z) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I, 2H]` and `bias` `[2H]`, blocks z, c.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation, such as "linear" for
            the paper's simplest form. Default: the paper's activation, which is
            `c + 1/2` where c is at least 0, and `sigmoid(c)` elsewhere.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:2410.01201, section 3.1 and appendix B.
    """

    num_blocks = 2

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """Returns `1 - gate`, and the candidate times the gate."""
        z, c = self.gates(params, inputs)
        candidate = jax.nn.sigmoid(z) * self.activation(c)
        # 1 - sigmoid(z) would cancel to 0 where the gate is almost 1.
        return jax.nn.sigmoid(-z), candidate, None


@final
@fields.dataclass
class MinLSTMCell(MinimalCell):
    """A minimal long short-term memory (minLSTM); only the inputs determine its gates.

    Each step computes::

        f, i, c = split(x kernel + bias)
        f, i    = sigmoid(f), sigmoid(i)
        h'      = f / (f + i) * h + i / (f + i) * activation(c)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I, 3H]` and `bias` `[3H]`, blocks f, i, c. As in the
    paper, the quotients are computed from logarithms, so they are accurate even where
    both gates are closed.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation, such as "linear" for
            the paper's simplest form. Default: the paper's activation, which is
            `c + 1/2` where c is at least 0, and `sigmoid(c)` elsewhere.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:2410.01201, section 3.2 and appendix B.
    """

    num_blocks = 3

    def coefficients(self, params: Params, inputs: Array) -> tuple[Array, Array, None]:
        """Returns `f / (f + i)`, and `i / (f + i)` times the activated candidate."""
        f, i, c = self.gates(params, inputs)
        # `ratio` is log(sigmoid(i) / sigmoid(f)).
        ratio = jax.nn.softplus(-f) - jax.nn.softplus(-i)
        sigmoid = jax.nn.sigmoid
        return sigmoid(-ratio), sigmoid(ratio) * self.activation(c), None


@final
@fields.dataclass
class QRNNCell(GatedLinearCell):
    """The recurrent cell of a quasi-recurrent neural network (QRNN).

    Each step computes::

        z, f, o, i = split(x kernel + bias)
        z          = activation(z)
        c'         = sigmoid(f) * c + (1 - sigmoid(f)) * z    # pooling "f" and "fo"
                   = sigmoid(f) * c + sigmoid(i) * z          # pooling "ifo"
        output     = sigmoid(o) * c'                          # c' for pooling "f"

    In the paper, a convolution over the last inputs replaces `x kernel`. To compute
    this convolution, concatenate the inputs of each step with the previous inputs,
    which `short_conv` with the kernel `[[1], [0]]` returns.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state c and
    output `[batch, H]`; `kernel` `[I, GH]` and `bias` `[GH]`. G is the number of
    blocks: 2 (z, f) for pooling "f", 3 (z, f, o) for "fo", 4 (z, f, o, i) for "ifo".

    Attributes:
        num_units: `H`, at least 0.
        pooling: "f", "fo" or "ifo".
        activation: A function or the name of a Keras activation. Default: tanh.
        kernel_initializer: Initializes the kernel. Default: Glorot uniform.
        bias_initializer: Initializes the bias. Default: zeros.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `pooling` or the activation is unknown,
            or `dtype` is not floating-point.

    Source: arXiv:1611.01576, section 2.
    """

    num_units: int = fields.size()
    pooling: str = fields.checked(_check_pooling, default="fo")
    activation: fields.ActivationLike = fields.activation()
    kernel_initializer: Initializer | None = fields.initializer()
    bias_initializer: Initializer | None = fields.initializer()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    num_blocks = property(lambda self: _BLOCKS[self.pooling])

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Returns the forget gate, the addend of c, and the output gate or None."""
        z, f, *rest = self.gates(params, inputs)
        input_gate = rest[1] if self.pooling == "ifo" else -f
        added = jax.nn.sigmoid(input_gate) * self.activation(z)
        output_gate = None if self.pooling == "f" else jax.nn.sigmoid(rest[0])
        return jax.nn.sigmoid(f), added, output_gate

    def output(self, params: Params, state: Array, rest: Array | None) -> Array:
        """Returns the state c, multiplied by the output gate if there is one."""
        return state if rest is None else rest * state.astype(rest.dtype)
