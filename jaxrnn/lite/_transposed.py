"""Cells of the core with TensorFlow Lite's layout of parameters."""

import abc
import dataclasses
from typing import Any, ClassVar

from .._base.errors import noting
from .._base.typing import DType, Key, Params, PyTree, Shaped, Size
from .._cells.affine import AffineCell, init_by_specs
from .._cells.base import RNNCell
from .._cells.hyperparameters import set_field
from .._cells.step_checks import check_params, check_step_inputs
from .._time.run import Run


class TransposedCell(RNNCell):
    """A cell that computes the same as one of the core, from separate parameters.

    Not a dataclass itself: each cell declares the fields of its cell of the core.
    """

    core_class: ClassVar[type[AffineCell]]
    dtype: DType | None

    @abc.abstractmethod
    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of initialization."""

    @abc.abstractmethod
    def core_params(self, params: Params) -> Params:
        """The parameters in the layout of the cell of the core."""

    def __post_init__(self) -> None:
        kind = self.core_class.__name__
        with noting(f"{type(self).__name__}: raised by the {kind} that it is made of."):
            core = self.core
        # Normalized: the function in place of an activation's name.
        set_field(self, **{f.name: getattr(core, f.name) for f in self._fields()})

    @property
    def core(self) -> AffineCell:
        """The cell of the core."""
        return self.core_class(
            **{f.name: getattr(self, f.name) for f in self._fields()}
        )

    def _fields(self) -> tuple[dataclasses.Field, ...]:
        return dataclasses.fields(self)

    @property
    def state_size(self) -> Size:
        """The sizes of the state, as in the cell of the core."""
        return self.core.state_size

    @property
    def output_size(self) -> Size:
        """The sizes of the output, as in the cell of the core."""
        return self.core.output_size

    @property
    def is_random(self) -> bool | None:
        """As in the cell of the core; see `RNNCell.is_random`."""
        return self.core.is_random

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not of rank 2, or the dtype is not floating.
            TypeError: If `key` is not a random key, or an initializer does not return
                an array.
        """
        return init_by_specs(self, key, inputs, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require. If the state has the wrong number of arrays, the
                error is an IndexError as well, as in TensorFlow.
            TypeError: If a dtype, or the kind of state, is not what they require.
        """
        name = type(self).__name__
        inputs = check_step_inputs(name, inputs)
        check_params(name, params, self.param_specs, inputs)
        return self.core.apply(self.core_params(params), inputs, state, key=key)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """All steps at once, the weights joined once; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the cell of the core declines.
        """
        return self.core.apply_sequence(self.core_params(params), run)
