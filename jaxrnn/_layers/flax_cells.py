"""Cells of jaxrnn for Flax's RNN, and checks of Flax's cells for `as_cell`."""

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp

from .._base.arguments import as_count, as_dtype, check_instance
from .._base.errors import describe, error_note
from .._base.trees import TensorShape
from .._base.typing import Array, DType, PyTree, Size
from .._cells.fields import as_floating
from .batch_axes import cast_integers, merge, split
from .cells import Cells, HoldsCell, in_dtype, list_cells


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class StepModule(HoldsCell):
    """A cell of jaxrnn with the interface of Flax's cells.

    Flax's RNN gives its cells no random keys.
    """

    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    @property
    def num_feature_axes(self) -> int:
        """Always 1, because the inputs of one row at one step are a vector."""
        return 1

    def _cells(self) -> Cells:
        cells = super()._cells()
        if self.cell.is_random:
            raise ValueError(
                "`cell` must not draw random numbers, because Flax's RNN passes no "
                f"keys, got {self.cell!r}. Use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`."
            )
        return cells

    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, PyTree]:
        """Runs one step; returns `(carry, output)`, each leaf `[*batch, ...]`.

        Args:
            carry: The cell's state, each leaf `[*batch, ...]`.
            inputs: `[*batch, features]`.
        """
        shape = inputs.shape[:-1]
        step = cast_integers(self.cell, self.dtype, merge("inputs", inputs, shape))
        (params,) = self._params(step).values()
        params, step = in_dtype(self._compute_dtype(), (params, step))
        output, state = self.cell.apply(params, step, merge("carry", carry, shape))
        return split((state, output), shape)

    def _zero_carry(self, input_shape: tuple[int, ...]) -> PyTree:
        """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
        (cell,) = list_cells(self._cells())
        shape = input_shape[:-1]
        return split(cell.zero_state(math.prod(shape), self._compute_dtype()), shape)

    def _compute_dtype(self) -> DType:
        if self.dtype is None:
            return as_floating("param_dtype", self.param_dtype)
        return as_dtype(self.dtype)


def check_is_flax_cell(module: object, base: type, example: str) -> None:
    """Raises TypeError unless `module` has the interface of a Flax cell.

    Args:
        module: The module.
        base: `RNNCellBase` of linen or nnx, whose `initialize_carry` only raises an
            error. The parent class of `base` is the `Module` of linen or nnx.
        example: A description of a valid cell, for messages.
    """
    is_module = isinstance(module, base.__bases__) and callable(module)
    initialize = getattr(type(module), "initialize_carry", None)
    if not is_module or initialize in (None, base.initialize_carry):
        kind = type(module)
        got = describe(module)
        # Show the Python module too, because several libraries have an `LSTMCell`.
        if got == kind.__name__:
            got = f"{kind.__module__}.{got}"
        raise TypeError(
            f"`module` must be {example}, with a method `initialize_carry`, got {got}."
        )


def check_no_variables(others: Collection[str]) -> None:
    """Raises ValueError for a Flax cell with variables other than parameters."""
    if others:
        names = ", ".join(map(str, sorted(others)))
        raise ValueError(
            f"`module` must have no variables other than parameters, got {names}. Keep "
            "values that change from step to step in the carry."
        )


def as_names(name: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """Converts a string or a list of strings to a tuple; else raises TypeError."""
    several = [names] if isinstance(names, str) else names
    what = "the name of a stream, or a list of names"
    for each in check_instance(name, several, Sequence, what):
        check_instance(name, each, str, what)
    return tuple(several)


def sizes_of_cell(
    step: Callable[[tuple[int, ...]], tuple[PyTree, PyTree]],
    in_features: int | tuple[int, ...],
) -> tuple[Size, Size]:
    """`(state_size, output_size)` of a Flax cell, found by tracing a step.

    Args:
        step: `step(shape) -> (carry, output)` for one row of inputs, `[1, ...]`.
        in_features: The size of the inputs, or their shape without the batch axis.

    Raises:
        TypeError: If `in_features` is neither an int nor a tuple of ints.
        ValueError: If a size is below 1.
    """
    fix = "Pass the size of the inputs, or their shape without batch axis as a tuple."
    sizes = in_features if isinstance(in_features, tuple) else (in_features,)
    shape = (1, *(as_count("in_features", n, fix=fix) for n in sizes))
    note = f"Raised by a step with inputs {list(shape)}, which `in_features` sets."
    with error_note(note):
        state, output = jax.eval_shape(lambda: step(shape))
    return jax.tree.map(_size, state), jax.tree.map(_size, output)


def _size(x: jax.ShapeDtypeStruct) -> TensorShape:
    return TensorShape(x.shape[1:])
