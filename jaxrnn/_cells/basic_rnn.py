"""The basic recurrent cell."""

import dataclasses

from .._base.typing import Array, DType, Params
from . import fields
from .affine import AffineCell, Stage, StageResult
from .equations import Equations


@fields.dataclass
class BasicRNNCell(AffineCell[Array]):
    """The basic (Elman) recurrent cell: one matrix product and one activation.

    Each step computes::

        h' = activation([x, h] kernel + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[I + H, H]`; `bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: The name of a Keras activation, or a function defined at module
            level (JAX compiles again for each new lambda). Default: tanh.
        project_inputs: Whether the cell multiplies the inputs by `kernel`. If False, a
            layer before the cell must project the inputs to `[batch, H]` with a
            kernel of its own, without a bias. The cell adds them to
            `h @ kernel + bias`; `kernel` is `[H, H]`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.nn.rnn_cell.BasicRNNCell`.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    reuse: fields.Unused = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()
    _: dataclasses.KW_ONLY
    project_inputs: bool = fields.flag(True)

    @property
    def equations(self) -> Equations:
        """The equations of a basic RNN; see `AffineCell`."""
        return Equations("rnn", self.activation)

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A single stage: one product, then the activation."""
        n = self.num_units
        return (Stage(self._update, operand_size=n, columns=n, blocks=1),)

    def _update(self, params: Params, z: Array, state: Array) -> StageResult:
        new_state = self.activation(z)
        return new_state, new_state
