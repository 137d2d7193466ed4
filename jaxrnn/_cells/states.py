"""Base classes of cells with vector and LSTM states, and `LSTMStateTuple`."""

import abc
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._base.errors import InvalidType
from .._base.serialization import serializable
from .._base.typing import Array, DType, Params, PyTree, Size
from .affine import AffineCell
from .hyperparameters import CommonFields
from .specs_cell import VectorState


class VectorStateCell(VectorState, AffineCell):
    """An affine cell whose state and output are one array `[batch, num_units]`."""

    def enter(self, state: Array) -> tuple[Array, Array]:
        """The state as the carry, and also as the operand if stage 0 has one."""
        return (state if self.stages[0].rows else state[:, :0]), state


@serializable
class LSTMStateTuple(NamedTuple):
    """The state of an LSTM: the cell state `c`, then the output `h`.

    Source: `tf.compat.v1.nn.rnn_cell.LSTMStateTuple`.
    """

    c: Any
    h: Any

    @property
    def dtype(self) -> DType:
        """The common dtype of `c` and `h`.

        Raises:
            TypeError: If the dtypes of `c` and `h` differ.
        """
        if self.c.dtype != self.h.dtype:
            raise InvalidType(
                "`dtype` requires `c` and `h` of one dtype, got "
                f"{self.c.dtype} and {self.h.dtype}. Read `c.dtype` or `h.dtype`."
            )
        return self.c.dtype


def add_peephole(params: Params, name: str, z: Array, c: Array) -> Array:
    """`z + params[name] * c`, or z if `params` has no such peephole."""
    if name not in params:
        return z
    return z + params[name].astype(c.dtype)[None, :] * c


class LSTMFamily(CommonFields, AffineCell):
    """A cell with the state c and h, in a tuple or concatenated in one array.

    Attributes:
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The bound on the magnitude of c', at least 0; None for no bound.
        initializer: For kernels and peepholes; None for Glorot uniform.
        num_proj: `P`; None for no projection.
        proj_clip: The bound on the magnitude of h' after a projection, at least 0; None
            for no bound.
        state_is_tuple: False for a state `[batch, H + P]` that holds `[c, h]`.
    """

    @property
    @abc.abstractmethod
    def sizes(self) -> LSTMStateTuple:
        """The sizes of c and of h."""

    state_is_tuple: bool
    activation: Any

    @property
    def state_size(self) -> Size:
        """The sizes as an `LSTMStateTuple`, or their sum for one array `[c, h]`."""
        return self.sizes if self.state_is_tuple else sum(self.sizes)

    output_size = property(lambda self: self.sizes.h)

    def enter(self, state: PyTree) -> tuple[Array, LSTMStateTuple]:
        """The state as the carry, and `h` as the operand if the first stage has one."""
        if not self.state_is_tuple:
            state = jnp.split(state, [self.sizes.c], axis=-1)
        state = LSTMStateTuple(*state)
        return (state.h if self.stages[0].rows else state.h[:, :0]), state

    def leave(self, c: Array, h: Array) -> tuple[Array, PyTree]:
        """The result of a step, `(output, new_state)`."""
        if self.state_is_tuple:
            return h, LSTMStateTuple(c, h)
        return h, jnp.concatenate([c, h], axis=-1)
