"""Steps of jaxrnn cells for Flax's RNN, and checks of Flax's cells for `as_cell`."""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax

from .._base.arguments import as_count, as_dtype
from .._base.errors import error_note
from .._base.expect import expect
from .._base.trees import TensorShape
from .._base.typing import Array, DType, Params, PyTree, Size
from .._cells.base import RNNCell, check_rnn_cell
from .._cells.fields import as_floating
from .modules import cast_integers, in_dtype, merge, split


def check_no_noise(cell: RNNCell) -> RNNCell:
    """Returns the cell; raises ValueError if it draws random numbers.

    Flax's RNN gives its cells no random keys.
    """
    fix = "Use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`."
    must = "not draw random numbers, because Flax's RNN passes no keys"
    expect(not check_rnn_cell("cell", cell).is_random, "cell", must, cell, fix)
    return cell


def run_step(
    module: Any, params: Params, carry: PyTree, inputs: Array
) -> tuple[PyTree, PyTree]:
    """Runs one step of a `Cell` of linen or nnx; returns `(carry, output)`.

    Args:
        module: The `Cell`.
        params: The parameters of its cell.
        carry: The cell's state, each leaf `[*batch, ...]`.
        inputs: `[*batch, features]`.
    """
    shape = inputs.shape[:-1]
    arrays = params, as_step(module, inputs)
    params, step = in_dtype(_step_dtype(module), arrays)
    output, state = module.cell.apply(params, step, merge("carry", carry, shape))
    return split((state, output), shape)


def as_step(module: Any, inputs: Array) -> Array:
    """The inputs of one step, `[batch, features]`; integers are cast to `dtype`."""
    step = merge("inputs", inputs, inputs.shape[:-1])
    return cast_integers(module.cell, module.dtype, step)


def zero_carry(module: Any, input_shape: tuple[int, ...]) -> PyTree:
    """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
    shape = input_shape[:-1]
    rows = math.prod(shape)
    return split(module.cell.zero_state(rows, _step_dtype(module)), shape)


def _step_dtype(module: Any) -> DType:
    if module.dtype is None:
        return as_floating("param_dtype", module.param_dtype)
    return as_dtype(module.dtype)


def check_is_flax_cell(module: object, base: type, example: str) -> None:
    """Raises TypeError unless `module` has the interface of a Flax cell.

    Args:
        module: The module.
        base: `RNNCellBase` of linen or nnx, whose `initialize_carry` only raises an
            error. The parent class of `base` is the `Module` of linen or nnx.
        example: A description of a valid cell, for messages.
    """
    initialize = getattr(type(module), "initialize_carry", base.initialize_carry)
    is_module = isinstance(module, base.__bases__) and callable(module)
    is_cell = is_module and initialize is not base.initialize_carry
    must = f"be {example}, with a method `initialize_carry`"
    expect(is_cell, "module", must, module, error=TypeError)


def check_no_variables(others: Collection[str]) -> None:
    """Raises ValueError for a Flax cell with variables other than parameters."""
    if others:
        names = ", ".join(map(str, sorted(others)))
        raise ValueError(
            f"`module` must have no variables other than parameters, got {names}. Keep "
            "values that change from step to step in the carry."
        )


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
