"""Runs the cells of a module over sequences: `run`.

The drivers (`dynamic_rnn` and the other functions that run cells) require one batch
axis and arrays of one dtype. `run` merges the batch axes, casts to the dtype of the
computation, calls the driver, and splits the batch axes again. Arrays that have one
batch axis are not reshaped, so they keep their sharding.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import (
    as_bool,
    as_dtype,
    check_both_lists,
    check_instance,
    is_list_of,
)
from .._base.cell_keys import fold_in
from .._base.errors import counted, describe
from .._base.expect import expect
from .._base.inputs import OF_A_LIST, as_array, named_inputs, to_all_rows
from .._base.lengths import as_integer_lengths, check_not_inputs
from .._base.math import is_float
from .._base.trees import map_named
from .._base.typing import Array, ArrayLike, DType, Key, Lengths, Params, PyTree
from .._batching.packed_sequences import check_not_packed
from .._cells.base import RNNCell, any_is_random, check_rnn_cell, scope_name
from .._drivers.bidirectional import (
    bidirectional_dynamic_rnn,
    joined,
    run_backward,
)
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.stack_bidirectional import run_layers
from .._wrappers.base import unwrapped

Shape: TypeAlias = tuple[int, ...]
Options: TypeAlias = dict[str, Any]
Cells: TypeAlias = RNNCell | tuple[Any, Any]
"""The cells of a module: one cell, a forward and a backward cell, or a pair of tuples
with the forward and the backward cell of each layer."""
BoundCells: TypeAlias = Any
"""Bound cells in the structure of `Cells`."""
NamedCells: TypeAlias = Mapping[str, "RNNCell | NamedCells"]
"""Cells in nested dicts with the keys of their parameters."""


def run(
    module: Any,
    params: Params,
    key: Key | None,
    inputs: PyTree,
    sequence_length: Lengths | None,
    *,
    initial_state: PyTree,
    resets: ArrayLike | None,
    reset_state: PyTree,
    mask: ArrayLike | None,
    return_carry: bool | None,
    return_states: bool | None,
    implementation: str | None,
) -> PyTree:
    """Runs the cells of a module.

    Args:
        module: The module; its attributes are the options of its constructor.
        params: The parameters of the module's cells, in nested dicts.
        key: The key for random numbers, or None.
        inputs: As in the module's call.
        sequence_length: As in the module's call.
        initial_state: As in the module's call.
        resets: As in the module's call.
        reset_state: As in the module's call.
        mask: As in the module's call.
        return_carry: As in the module's call.
        return_states: As in the module's call.
        implementation: As in `jaxrnn.dynamic_rnn`.

    Returns:
        The outputs, `(state, outputs)` or `(outputs, state, states)`.
    """
    cells = module._cells()
    start = 1 if module.time_major else 0
    inputs, lengths, shape = merge_inputs(module, inputs, sequence_length)
    dtype = compute_dtype(module.dtype, (inputs, params))
    cast = functools.partial(in_dtype, dtype)
    options = {
        "sequence_length": lengths,
        "initial_state": cast(merge("initial_state", initial_state, shape)),
        "dtype": dtype,
        "parallel_iterations": module.parallel_iterations,
        "swap_memory": module.swap_memory,
        "time_major": module.time_major,
        "resets": merge("resets", resets, shape, start),
        "reset_state": cast(merge("reset_state", reset_state, shape)),
        "implementation": implementation,
        "mask": merge("mask", mask, shape, start),
        "return_states": flag("return_states", return_states, module.return_states),
    }
    bound = bind_cells(cells, cast(params), key)
    drive = _run_stack if is_stack(cells) else _run_two
    drive = _run_one if isinstance(cells, RNNCell) else drive
    outputs, state, *states = drive(module, bound, cast(inputs), options)
    outputs, states = split((outputs, states), shape, start)
    has_carry = flag("return_carry", return_carry, module.return_carry)
    return _results(outputs, split(state, shape), states, has_carry)


def _results(
    outputs: PyTree, state: PyTree, states: list[PyTree], has_carry: bool
) -> PyTree:
    """What a call returns; `states` is empty unless they are returned too."""
    if states:
        return outputs, state, *states
    return (state, outputs) if has_carry else outputs


def flag(name: str, of_call: bool | None, of_module: bool | None) -> bool:
    """The flag of a call or, if None, of the module; None means False."""
    value = of_module if of_call is None else of_call
    return value is not None and as_bool(name, value)


def _run_one(
    module: Any, cell: BoundCells, inputs: PyTree, options: Options
) -> tuple[PyTree, ...]:
    """Calls `dynamic_rnn`, for reversed rows if the module's `reverse` is True."""
    keep_order = as_bool("keep_order", module.keep_order)
    if not as_bool("reverse", module.reverse):
        return dynamic_rnn(cell, inputs, **options)
    return run_backward(cell, inputs, keep_order=keep_order, **options)


def _run_two(
    module: Any, cells: BoundCells, inputs: PyTree, options: Options
) -> tuple[PyTree, ...]:
    """Calls `bidirectional_dynamic_rnn`, and merges the outputs of both directions."""
    fix = "To add the outputs, pass `jnp.add`."
    what = "a function of both outputs"
    check_instance("merge", module.merge, Callable, what, fix)
    fw, bw = _pop_states("a pair (state_fw, state_bw)", options)
    options |= {"initial_state_fw": fw, "initial_state_bw": bw}
    outputs, *states = bidirectional_dynamic_rnn(cells[0], cells[1], inputs, **options)
    return module.merge(*outputs), *states


def _run_stack(
    module: Any, cells: BoundCells, inputs: PyTree, options: Options
) -> tuple[PyTree, ...]:
    """Runs layers of `bidirectional_dynamic_rnn`.

    In contrast to `stack_bidirectional_dynamic_rnn`, the states are pairs, and the
    states of all steps may be returned.
    """

    def run_layer(fw: Any, bw: Any, xs: PyTree, **given: Any) -> tuple[PyTree, ...]:
        outputs, *states = bidirectional_dynamic_rnn(fw, bw, xs, **given, **options)
        return concatenate(*outputs), *zip(*states, strict=True)

    what = "a pair (states_fw, states_bw), each with one state per layer"
    states = _pop_states(what, options)
    outputs, fw, bw = run_layers(run_layer, inputs, cells, states, None)
    # For each layer, `fw` and `bw` hold the final state and, if requested, the states
    # of all steps.
    of_layers = (zip(*direction, strict=True) for direction in (fw, bw))
    return outputs, *zip(*of_layers, strict=True)


def _pop_states(what: str, options: Options) -> tuple[Any, Any]:
    """The initial states of both directions, or two Nones."""
    must = "be None for a bidirectional module, which always resets to zeros"
    reset_state = options.pop("reset_state")
    expect(reset_state is None, "reset_state", must, reset_state)
    state = options.pop("initial_state")
    pair = (None, None) if state is None else state
    expect(is_list_of(pair, 2), "initial_state", f"be {what}", pair)
    return pair


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Concatenates the outputs of both directions along the last axis of each leaf."""
    return joined(outputs_fw, outputs_bw, axis=-1)


# Cells.


def as_layers(cells_fw: Any, cells_bw: Any) -> Cells:
    """The cells of bidirectional layers; raises an error unless they are two lists."""
    check_both_lists(cells_fw, cells_bw)
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        for i, cell in enumerate(cells):
            check_rnn_cell(f"{name}[{i}]", cell)
    return tuple(cells_fw), tuple(cells_bw)


def is_stack(cells: Cells) -> bool:
    """Whether the cells are a pair of tuples, with one cell for each layer."""
    return isinstance(cells, tuple) and isinstance(cells[0], tuple)


def list_cells(cells: Cells) -> list[RNNCell]:
    """All cells; the first cell reads the inputs."""
    return jax.tree.leaves(cells, is_leaf=lambda each: isinstance(each, RNNCell))


def are_random(cells: Cells) -> bool | None:
    """Whether a cell draws random numbers; None if unknown."""
    return any_is_random(list_cells(cells))


def named_cells(cells: Cells) -> NamedCells:
    """The cells in nested dicts with the keys of their parameters.

    The innermost keys are TensorFlow's scope names: `{"lstm_cell": cell}` for one cell,
    `{"fw": {...}, "bw": {...}}` for two directions, and `{"cell_0": {"fw": {...}, "bw":
    {...}}, "cell_1": ...}` for layers of two directions.
    """
    if isinstance(cells, RNNCell):
        return {scope_name(unwrapped(cells)): cells}
    if is_stack(cells):
        layers = enumerate(zip(*cells, strict=True))
        return {f"cell_{i}": named_cells(pair) for i, pair in layers}
    return {"fw": named_cells(cells[0]), "bw": named_cells(cells[1])}


def bind_cells(cells: Cells, params: Params, key: Key | None = None) -> BoundCells:
    """The cells with their parameters; different cells get different keys."""

    def bind(named: NamedCells, params: Params, key: Key | None) -> BoundCells:
        bound: list[BoundCells] = []
        for i, (name, part) in enumerate(named.items()):
            if isinstance(part, RNNCell):  # The cell is then the only entry.
                return part.bind(params[name], key)
            bound.append(bind(part, params[name], fold_in(key, i)))
        return tuple(bound)

    bound = bind(named_cells(cells), params, key)
    return tuple(zip(*bound, strict=True)) if is_stack(cells) else bound


# Dtypes.


def compute_dtype(dtype: DType | None, arrays: PyTree) -> DType:
    """`dtype`; by default the widest floating-point dtype in `arrays`, or float32.

    Complex dtypes count as floating-point, and are wider than real dtypes.
    """
    if dtype is not None:
        return as_dtype(dtype)
    floats = [x.dtype for x in jax.tree.leaves(arrays) if is_float(x)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating-point arrays cast to `dtype`.

    A real `dtype` sets only the precision of complex arrays, which stay complex. An
    integer `dtype` casts nothing.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        return tree
    is_double = jnp.finfo(dtype).bits == 64
    of_complex = jnp.dtype(jnp.complex128 if is_double else jnp.complex64)

    def cast(x: Array) -> Array:
        if not is_float(x):
            return x
        return x.astype(of_complex if jnp.iscomplexobj(x) else dtype)

    return jax.tree.map(cast, tree)


def cast_integers(cell: RNNCell, dtype: DType | None, inputs: PyTree) -> PyTree:
    """The inputs; if the cell reads vectors, integers and bools are cast to `dtype`."""
    if dtype is None or getattr(cell, "feature_axes", None) != 1:
        return inputs

    def cast(x: Array) -> Array:
        return x.astype(dtype) if x.dtype.kind in "iub" else x

    return jax.tree.map(cast, inputs)


# Batch axes.


def merge_inputs(
    module: Any, inputs: PyTree, sequence_length: Lengths | None
) -> tuple[PyTree, Array | np.ndarray | None, Shape]:
    """The inputs and lengths with merged batch axes, and the sizes before merging.

    Raises:
        TypeError: If the lengths are not integers.
        ValueError: If the inputs do not have the axes that the cell and the lengths
            require.
    """
    check_not_packed(inputs)
    first, *_ = list_cells(module._cells())  # This cell reads the inputs.
    start = 1 if module.time_major else 0
    inputs = map_named("inputs", as_array, inputs)
    inputs = cast_integers(first, module.dtype, inputs)
    lengths = None
    if sequence_length is not None:
        check_not_inputs(sequence_length, "rnn(inputs, lengths, initial_state=state)")
        lengths = as_integer_lengths(sequence_length)
    shape = _batch_shape(first, inputs, lengths, start)
    inputs = merge("inputs", inputs, shape, start)
    return inputs, merge("sequence_length", lengths, shape), shape


def first_step(module: Any, inputs: PyTree, lengths: Lengths | None) -> PyTree:
    """The types of one step of a module's inputs, with merged batch axes."""
    inputs, _, _ = merge_inputs(module, inputs, lengths)
    axis = 1 if module.time_major else 0

    def of_leaf(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[axis], *x.shape[2:]), x.dtype)

    return jax.tree.map(of_leaf, inputs)


def merge(name: str, tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Merges batch axes of sizes `shape` that follow `start` axes.

    None stays None, as in a pair of initial states. Scalars are shared by all rows, and
    stay unchanged.

    Raises:
        ValueError: If `shape` has several axes, and an array has other batch axes. The
            drivers check a single batch axis.
    """
    end = start + len(shape)

    def merged(name: str, leaf: ArrayLike | None) -> Array | np.ndarray | None:
        if leaf is None:
            return None
        # Keep NumPy arrays, because functions such as `dynamic_rnn` read the values of
        # lengths and masks that are not traced.
        array = leaf if type(leaf) is np.ndarray else as_array(name, leaf)
        if len(shape) == 1 or (end and not array.ndim):
            return array
        is_one_state = array.ndim == 1 and not start
        fix = to_all_rows((*shape, *array.shape)) if is_one_state else ""
        must = f"have the batch axes {list(shape)}{' after the time axis' * start}"
        expect(array.shape[start:end] == shape, name, must, array, fix)
        rows = math.prod(shape)
        return array.reshape(*array.shape[:start], rows, *array.shape[end:])

    return map_named(name, merged, tree)


def split(tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Splits the merged axis again; the inverse of `merge`."""

    def split(array: Array) -> Array:
        if array.ndim <= start:
            return array
        return array.reshape(*array.shape[:start], *shape, *array.shape[start + 1 :])

    return tree if len(shape) == 1 else jax.tree.map(split, tree)


def _batch_shape(
    cell: RNNCell, inputs: PyTree, lengths: Array | np.ndarray | None, start: int
) -> Shape:
    """The batch axes: the axes of `lengths`, or all axes except time and features."""
    (name, first), *_ = named_inputs(inputs)
    features = getattr(cell, "feature_axes", None)
    if lengths is not None:
        count = lengths.ndim
    else:
        count = 1 if features is None else max(0, first.ndim - 1 - features)
    own = first.ndim - 1 - count
    if own < 1 if features is None else own != features:
        axes = "[time, *batch, ...]" if start else "[*batch, time, ...]"
        least = "at least " if features is None else ""
        of_row = f"{least}{counted(features or 1, 'feature axis', 'feature axes')}"
        lacks_one = own == (features or 1) - 1
        fix = f"For one number per step, pass `{name}[..., None]`." * lacks_one
        if lengths is not None:
            batch = counted(lengths.ndim, "batch axis", "batch axes")
            fix = f"`sequence_length`, {describe(lengths)}, is for {batch}. {fix}"
        fix = OF_A_LIST if isinstance(inputs, list) else fix
        expect(False, name, f"be {axes} with 1 time axis and {of_row}", first, fix)
    return first.shape[start : start + count]
