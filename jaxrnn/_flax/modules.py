"""The code that modules of linen and nnx share: a call over sequences, and a step.

`dynamic_rnn` and the other functions that run cells require one batch axis and arrays
of one dtype. A call of a module merges several batch axes into one, casts the arrays,
calls the function, and splits the batch axes again. Arrays with one batch axis are not
reshaped, so they keep their sharding.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool, as_count, as_dtype, check_function, is_list_of
from .._base.cell_keys import fold_in
from .._base.errors import counted, error_note, expect, is_array
from .._base.inputs import as_array, named_inputs
from .._base.math import is_float
from .._base.trees import (
    TensorShape,
    is_tensor_array,
    map_named,
    named_leaves,
    size_shapes,
)
from .._base.typing import (
    Array,
    ArrayLike,
    AxisName,
    DType,
    Implementation,
    Key,
    Lengths,
    Params,
    PyTree,
    Size,
    State,
)
from .._cells.base import RNNCell, any_is_random, check_rnn_cell, scope_name
from .._cells.wrappers.base import unwrapped
from .._drivers.arguments import OF_A_LIST, check_both_lists, check_is_no_record
from .._drivers.bidirectional import bidirectional_dynamic_rnn, joined, run_backward
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.stack_bidirectional import run_dynamic_layers
from .._run.arguments import as_integer_lengths
from .._run.memory import Strategy

FIX = (
    "If the parameters come from another program, use the same kind of cell, and name "
    "the modules as in the parameters, such as `RNN(cell, name='rnn')`."
)

Shape: TypeAlias = tuple[int, ...]
Merge: TypeAlias = Callable[[PyTree, PyTree], PyTree]
Cells: TypeAlias = RNNCell | tuple[Any, Any]
"""The cells of a module: one cell, a forward and a backward cell, or a pair of tuples
with the forward and the backward cell of each layer."""
BoundCells: TypeAlias = Any
"""Bound cells, e.g. a pair for two directions, in the structure of `Cells`."""
Rngs: TypeAlias = Any
"""A random key. For a module of nnx, also a stream or `nnx.Rngs`."""
NamedCells: TypeAlias = Mapping[str, "RNNCell | NamedCells"]
"""Nested dicts of cells, such as `{"fw": {"lstm_cell": cell}, ...}`."""

StateBw = TypeVar("StateBw", covariant=True)
"""The state of a backward cell."""


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Recurrent(Generic[State]):
    """The base class of the modules of linen and nnx: common options, and a call.

    A module adds fields for its cells, which `_cells` returns. The subclasses
    `Recurrent` of linen and nnx add the parameters and the random stream.
    """

    time_major: bool = False
    return_carry: bool = False
    return_states: bool = False
    swap_memory: bool | Strategy = False
    parallel_iterations: int | None = None
    implementation: Implementation | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    rng_collection: str = "dropout"
    deterministic: bool | None = None

    def _cells(self) -> Cells:
        raise NotImplementedError

    def _params(self, inputs: PyTree, sequence_length: Lengths | None) -> Params:
        raise NotImplementedError

    def _draw_key(self, deterministic: bool | None, rngs: Rngs | None) -> Key | None:
        """The key for one call, or None if the call draws no random numbers."""
        raise NotImplementedError

    def _is_init(self) -> bool:
        """Whether a call only creates parameters."""
        return False

    @overload
    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: Literal[True],
        rngs: Rngs | None = None,
        axis_name: AxisName | None = None,
    ) -> tuple[State, PyTree, PyTree]: ...

    @overload
    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: Literal[True],
        return_states: Literal[False] | None = None,
        rngs: Rngs | None = None,
        axis_name: AxisName | None = None,
    ) -> tuple[State, PyTree]: ...

    @overload
    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: bool | None = None,
        rngs: Rngs | None = None,
        axis_name: AxisName | None = None,
    ) -> PyTree: ...

    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: bool | None = None,
        rngs: Rngs | None = None,
        axis_name: AxisName | None = None,
    ) -> PyTree:
        """Runs the module over sequences.

        Args:
            inputs: `[*batch, time, ...]`, or `[time, *batch, ...]` if `time_major`, or
                a nest of such arrays. The number of batch axes may be 0, 1 or more. For
                a cell without `feature_axes`, such as a `FunctionCell`, the inputs must
                have as many batch axes as `sequence_length`, or one batch axis without
                lengths.
            sequence_length: The length of each row, `[*batch]`, integers, clamped to
                `[0, time]`. Default: all steps. Inputs past the length have no effect,
                and outputs past the length are zero. Flax calls this argument
                `seq_lengths`.
            initial_state: The state before the first step, each leaf `[*batch, ...]`.
                Default: the zero state. With two directions, pass a pair of states, in
                which None stands for a zero state. Real leaves are cast to `dtype`, and
                complex leaves stay complex. Flax calls this argument `initial_carry`.
            resets: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`. True
                resets the state of a row before the step, e.g. at the start of an
                episode. See `jaxrnn.dynamic_rnn` and
                `jaxrnn.bidirectional_dynamic_rnn`.
            reset_state: The state after a reset, each leaf `[*batch, ...]`. Default:
                the zero state. Only `RNN` supports this argument. Bidirectional modules
                always reset to zeros.
            mask: An alternative to `sequence_length`: bool `[*batch, time]`, or
                `[time, *batch]` if `time_major`. True at valid steps, which need not be
                adjacent. See `jaxrnn.dynamic_rnn`. A reversed run reverses all steps,
                including masked steps.
            deterministic: Whether to run without random numbers. By default, the
                module's attribute, which `train()` and `eval()` of nnx set.
            return_carry: Whether to also return the state. By default, the module's
                attribute.
            return_states: Whether to return `(state, outputs, states)`, where `states`
                contains the state after every step. By default, the module's attribute.
            rngs: A random key in place of the module's stream. For an nnx module, also
                a stream or `nnx.Rngs`. If a function under `jax.jit` closes over an nnx
                module, pass a key. Otherwise, the module's stream raises
                `TraceContextError`, because it cannot advance there.
            axis_name: The mesh axis of `jax.shard_map` over which time is divided; see
                `jaxrnn.dynamic_rnn`. Only `RNN` without `reverse` supports this
                argument. Linen's `init` ignores `axis_name`.

        Returns:
            The outputs, `[*batch, time, ...]`, or `[time, *batch, ...]` if
            `time_major`. With `return_carry`, the pair `(state, outputs)`. With
            `return_states`, `(state, outputs, states)`, also if `return_carry` is
            False. The state comes first, as in Flax, whereas `jaxrnn.dynamic_rnn`
            returns the outputs first. With two directions, `states` is a pair, as in
            `jaxrnn.bidirectional_dynamic_rnn`.

        Raises:
            TypeError: If an option has the wrong type, or if `rngs` of an nnx module is
                neither a stream nor a key; see also `jaxrnn.dynamic_rnn`.
            ValueError: As in `jaxrnn.dynamic_rnn`.
            flax.errors.InvalidRngError: In linen, if a cell draws random numbers, but
                neither the stream `rng_collection` nor the stream "params" is there.
        """
        params = self._params(inputs, sequence_length)
        cells = bind_cells(self._cells(), params, self._draw_key(deterministic, rngs))

        # Merge the batch axes, and cast to the dtype of the computation.
        start = 1 if self.time_major else 0
        inputs, lengths, shape = merge_inputs(self, inputs, sequence_length)
        if not shape:
            marks = {"resets": resets, "mask": mask}
            states = {"initial_state": initial_state, "reset_state": reset_state}
            _check_one_sequence(self, marks, states)
        dtype = compute_dtype(self.dtype, (inputs, cells))
        initial_state = merge("initial_state", initial_state, shape)
        reset_state = merge("reset_state", reset_state, shape)
        arrays = cells, inputs, initial_state, reset_state
        cells, inputs, initial_state, reset_state = in_dtype(dtype, arrays)

        # Run the cells. In `init`, ignore `axis_name` and `implementation`, because
        # users call `init` outside of `shard_map` and possibly on another device.
        is_init = self._is_init()
        return_carry = flag("return_carry", return_carry, self.return_carry)
        options = {
            "sequence_length": lengths,
            "dtype": dtype,
            "parallel_iterations": self.parallel_iterations,
            "swap_memory": self.swap_memory,
            "time_major": self.time_major,
            "resets": merge("resets", resets, shape, start),
            "implementation": None if is_init else self.implementation,
            "mask": merge("mask", mask, shape, start),
            "return_states": flag("return_states", return_states, self.return_states),
        }
        run = _run_two_ways if isinstance(cells, tuple) else _run_one_way
        axis_name = None if is_init else axis_name
        states = initial_state, reset_state
        results = run(self, cells, inputs, *states, axis_name, options)

        # Split the batch axes.
        outputs, state, *all_states = results
        outputs, all_states = split((outputs, all_states), shape, start)
        state = split(state, shape)
        if all_states:
            return state, outputs, *all_states
        return (state, outputs) if return_carry else outputs


def flag(name: str, of_call: bool | None, of_module: bool | None) -> bool:
    """Returns the call's flag or, if None, the module's flag. None becomes False."""
    value = of_module if of_call is None else of_call
    return value is not None and as_bool(name, value)


def _run_one_way(
    module: Any,
    cell: Any,
    inputs: PyTree,
    initial_state: PyTree,
    reset_state: PyTree,
    axis_name: AxisName | None,
    options: dict[str, Any],
) -> tuple:
    """Calls `dynamic_rnn`, or `run_backward` if the module's `reverse` is True."""
    options |= {"initial_state": initial_state, "reset_state": reset_state}
    keep_order = as_bool("keep_order", module.keep_order)
    if not as_bool("reverse", module.reverse):
        return dynamic_rnn(cell, inputs, axis_name=axis_name, **options)
    _check_no_axis_name(axis_name, "a module with `reverse`")
    return run_backward(cell, inputs, keep_order=keep_order, **options)


def _run_two_ways(
    module: Any,
    cells: Any,
    inputs: PyTree,
    initial_state: PyTree,
    reset_state: PyTree,
    axis_name: AxisName | None,
    options: dict[str, Any],
) -> tuple:
    """Runs one or several bidirectional layers, and merges the outputs."""
    must = "be None for a bidirectional module, which always resets to zeros"
    expect(reset_state is None, "reset_state", must, reset_state)
    _check_no_axis_name(axis_name, "a bidirectional module")
    what = "a pair (state_fw, state_bw)"
    if is_stack(cells):
        what = "a pair (states_fw, states_bw), each with one state per layer"
    states = (None, None) if initial_state is None else initial_state
    expect(is_list_of(states, 2), "initial_state", f"be {what}", states)

    if is_stack(cells):
        return run_dynamic_layers(inputs, cells, states, None, **options)
    fix = "To add the outputs, pass `jnp.add`."
    join = check_function("merge", module.merge, "a function of both outputs", fix)
    options |= {"initial_state_fw": states[0], "initial_state_bw": states[1]}
    fw, bw = cells
    outputs, *found = bidirectional_dynamic_rnn(fw, bw, inputs, **options)
    return join(*outputs), *found


def _check_no_axis_name(axis_name: AxisName | None, what: str) -> None:
    """Raises ValueError for `axis_name`, because each device has only part of a row."""
    fix = "To divide time, shard the inputs on an explicit mesh."
    expect(axis_name is None, "axis_name", f"be None for {what}", axis_name, fix)


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Concatenates the outputs of both directions along the last axis of each leaf."""
    return joined(outputs_fw, outputs_bw, axis=-1)


# Cells.


def as_layers(cells_fw: Sequence[RNNCell], cells_bw: Sequence[RNNCell]) -> Cells:
    """Checks two lists of cells, one per layer, and returns them as tuples."""
    check_both_lists(cells_fw, cells_bw)
    for i, (cell_fw, cell_bw) in enumerate(zip(cells_fw, cells_bw, strict=True)):
        check_rnn_cell(f"cells_fw[{i}]", cell_fw)
        check_rnn_cell(f"cells_bw[{i}]", cell_bw)
    return tuple(cells_fw), tuple(cells_bw)


def is_stack(cells: Cells) -> bool:
    """Whether the cells are a pair of tuples, with one cell for each layer."""
    return isinstance(cells, tuple) and isinstance(cells[0], tuple)


def list_cells(cells: Cells) -> list[RNNCell]:
    """Returns all cells in one list. The first cell reads the inputs."""
    return jax.tree.leaves(cells, is_leaf=lambda each: isinstance(each, RNNCell))


def are_random(cells: Cells) -> bool | None:
    """Whether a cell draws random numbers; None if unknown."""
    return any_is_random(list_cells(cells))


def named_cells(cells: Cells) -> NamedCells:
    """The cells in nested dicts with the keys of their parameters.

    The innermost keys are TensorFlow's scope names. One cell gives
    `{"lstm_cell": cell}`, two directions give `{"fw": {...}, "bw": {...}}`, and
    bidirectional layers give `{"cell_0": {"fw": {...}, "bw": {...}}, "cell_1": ...}`.
    """
    if isinstance(cells, RNNCell):
        return {scope_name(unwrapped(cells)): cells}
    if is_stack(cells):
        layers = enumerate(zip(*cells, strict=True))
        return {f"cell_{i}": named_cells(pair) for i, pair in layers}
    return {"fw": named_cells(cells[0]), "bw": named_cells(cells[1])}


def bind_cells(cells: Cells, params: Params, key: Key | None = None) -> BoundCells:
    """Binds the cells to their parameters, each with a random key of its own."""

    def bind(named: NamedCells, params: Params, key: Key | None) -> BoundCells:
        bound: list[BoundCells] = []
        for i, (name, part) in enumerate(named.items()):
            own = params.get(name, {})  # Flax drops empty dicts.
            if isinstance(part, RNNCell):  # A cell is the only entry.
                must = f"hold {name!r}, the parameters of the module's cell"
                expect(name in params or not params, "params", must, list(params), FIX)
                return part.bind(own, key)
            bound.append(bind(part, own, fold_in(key, i)))
        return tuple(bound)

    bound = bind(named_cells(cells), params, key)
    return tuple(zip(*bound, strict=True)) if is_stack(cells) else bound


# Dtypes.


def compute_dtype(dtype: DType | None, arrays: PyTree) -> DType:
    """Returns `dtype`, or the widest floating-point dtype in `arrays`, or float32.

    Complex dtypes count as floating-point dtypes that are wider than real ones.
    """
    if dtype is not None:
        return as_dtype(dtype)
    floats = [x.dtype for x in jax.tree.leaves(arrays) if is_float(x)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floats) if floats else jnp.dtype(jnp.float32)


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """Casts the floating-point arrays of a nest to `dtype`.

    Complex arrays stay complex: a `dtype` of double precision casts them to complex128,
    any other to complex64. An integer `dtype` casts nothing.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        return tree
    is_double = jnp.finfo(dtype).bits == 64
    of_complex = jnp.dtype(jnp.complex128 if is_double else jnp.complex64)

    def cast(x: Array) -> Array:
        wanted = of_complex if jnp.iscomplexobj(x) else dtype
        return x.astype(wanted) if is_float(x) else x

    return jax.tree.map(cast, tree)


def cast_integers(cell: RNNCell, dtype: DType | None, inputs: PyTree) -> PyTree:
    """Casts integers and bools to `dtype`, if the cell reads vectors (not ids)."""
    if dtype is None or getattr(cell, "feature_axes", None) != 1:
        return inputs

    def cast(x: Array) -> Array:
        return x.astype(dtype) if x.dtype.kind in "iub" else x

    return jax.tree.map(cast, inputs)


# Batch axes.


def merge_inputs(
    module: Recurrent, inputs: PyTree, sequence_length: Lengths | None
) -> tuple[PyTree, Array | np.ndarray | None, Shape]:
    """Returns the inputs and lengths with one batch axis, and the sizes that it merges.

    Raises:
        TypeError: If the lengths are not integers.
        ValueError: If the inputs do not have the axes that the cell and the lengths
            require.
    """
    first, *_ = list_cells(module._cells())  # The first cell reads the inputs.
    start = 1 if module.time_major else 0
    check_is_no_record(inputs)
    inputs = map_named("inputs", as_array, inputs)
    inputs = cast_integers(first, module.dtype, inputs)
    given = sequence_length
    lengths = None if given is None else as_integer_lengths(given)
    shape = _batch_shape(first, inputs, lengths, start)
    inputs = merge("inputs", inputs, shape, start)
    return inputs, merge("sequence_length", lengths, shape), shape


def first_step(module: Recurrent, inputs: PyTree, lengths: Lengths | None) -> PyTree:
    """The shapes and dtypes of one step of a module's inputs, `[batch, ...]`."""
    inputs, _, _ = merge_inputs(module, inputs, lengths)
    axis = 1 if module.time_major else 0

    def of_leaf(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[axis], *x.shape[2:]), x.dtype)

    return jax.tree.map(of_leaf, inputs)


def merge(name: str, tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Merges the batch axes, which have sizes `shape` and begin at axis `start`.

    None and scalars, which all rows share, stay unchanged.

    Raises:
        ValueError: If `shape` has several axes, and an array has other batch axes. A
            single batch axis is checked later, by functions such as `dynamic_rnn`.
    """
    end = start + len(shape)

    def merged(name: str, leaf: ArrayLike | None) -> Array | np.ndarray | None:
        if leaf is None:
            return None
        # Keep NumPy arrays, so that `dynamic_rnn` can read the values of lengths and
        # masks.
        array = leaf if type(leaf) is np.ndarray else as_array(name, leaf)
        if len(shape) == 1 or (end and not array.ndim):
            return array
        must = f"have the batch axes {list(shape)}{' after the time axis' * start}"
        expect(array.shape[start:end] == shape, name, must, array)
        rows = math.prod(shape)
        return array.reshape(*array.shape[:start], rows, *array.shape[end:])

    return map_named(name, merged, tree)


def _check_one_sequence(
    module: Recurrent, marks: dict[str, PyTree], states: dict[str, PyTree]
) -> None:
    """Raises ValueError if inputs without a batch axis come with arrays that have one.

    Then the inputs probably are one step of each row, `[batch, depth]`, but would run
    as one sequence, `[time, depth]`.
    """
    index = "None" if module.time_major else ":, None"
    must = "have no batch axis, because the inputs are one sequence [time, ...]"
    fix = f"For one step of each row, pass `inputs[{index}]`"
    for name, mark in marks.items():
        also = f"{fix} and `{name}[{index}]`."
        expect(mark is None or np.ndim(mark) < 2, name, must, mark, also)
    shapes = [size_shapes(cell.state_size) for cell in list_cells(module._cells())]
    ranks = [len(shape) for shape in itertools.chain(*shapes)]
    for name, state in states.items():
        named = list(named_leaves(name, state, is_tensor_array))
        if len(named) == len(ranks):
            for (full, leaf), rank in zip(named, ranks, strict=True):
                expect(np.ndim(leaf) <= rank, full, must, leaf, f"{fix}.")


def split(tree: PyTree, shape: Shape, start: int = 0) -> PyTree:
    """Splits the batch axis again; the inverse of `merge`."""

    def split(array: Array) -> Array:
        if array.ndim <= start:
            return array
        return array.reshape(*array.shape[:start], *shape, *array.shape[start + 1 :])

    return tree if len(shape) == 1 else jax.tree.map(split, tree)


def _batch_shape(
    cell: RNNCell, inputs: PyTree, lengths: Array | np.ndarray | None, start: int
) -> Shape:
    """Infers the batch axes from `lengths`, or else from the cell's `feature_axes`."""
    (name, first), *_ = named_inputs(inputs)
    features = getattr(cell, "feature_axes", None)
    count = 1 if features is None else max(0, first.ndim - 1 - features)
    count = count if lengths is None else lengths.ndim
    own = first.ndim - 1 - count
    axes = "[time, *batch, ...]" if start else "[*batch, time, ...]"
    rows = counted(count, "batch axis", "batch axes")
    rows += " as in `sequence_length`" * (lengths is not None)
    of_row = counted(features or 1, "feature axis", "feature axes")
    must = f"be {axes} with {rows}, 1 time axis and {of_row}"
    fix = f"For one number per step, pass `{name}[..., None]`." if own < 1 else ""
    fix = OF_A_LIST if isinstance(inputs, list) else fix
    rows_of_inputs = first.shape[start : start + count]
    if own < 1 and lengths is not None and lengths.shape != rows_of_inputs:
        fix = "For one sequence, pass an int as `sequence_length`."
    fits = own > 0 if features is None else own == features
    expect(fits, name, must, first, fix)
    return first.shape[start : start + count]


# Cells in Flax's RNN, and cells of Flax.


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
    arrays = params, as_step(module, inputs)
    shape = inputs.shape[:-1]
    params, step = in_dtype(_step_dtype(module), arrays)
    output, state = module.cell.apply(params, step, merge("carry", carry, shape))
    return split((state, output), shape)


def as_step(module: Any, inputs: Array) -> Array:
    """The inputs of one step, `[batch, features]`; integers are cast to `dtype`."""
    must = "be one array [*batch, features]"
    fix = "For a nest of inputs, use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`."
    expect(is_array(inputs), "inputs", must, inputs, fix, TypeError)
    step = merge("inputs", inputs, inputs.shape[:-1])
    return cast_integers(module.cell, module.dtype, step)


def zero_carry(module: Any, input_shape: tuple[int, ...]) -> PyTree:
    """The zero state for inputs `[*batch, features]`, each leaf `[*batch, ...]`."""
    shape = input_shape[:-1]
    return split(module.cell.zero_state(math.prod(shape), _step_dtype(module)), shape)


def _step_dtype(module: Any) -> DType:
    return as_dtype(module.param_dtype if module.dtype is None else module.dtype)


def check_no_noise(cell: RNNCell) -> RNNCell:
    """Returns the cell; raises ValueError if it draws random numbers.

    Flax's RNN passes no random keys to its cells.
    """
    fix = "Use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`."
    must = "not draw random numbers, because Flax's RNN passes no keys"
    expect(not check_rnn_cell("cell", cell).is_random, "cell", must, cell, fix)
    return cell


def check_no_variables(others: Iterable[str]) -> None:
    """Raises ValueError for variables of a Flax cell other than parameters."""
    got = sorted(map(str, others))
    fix = "Keep values that change from step to step in the carry."
    expect(not got, "module", "have no variables other than parameters", got, fix)


def sizes_of_cell(
    step: Callable[[Shape], tuple[PyTree, PyTree]], in_features: int | Shape
) -> tuple[Size, Size]:
    """Traces a step of a Flax cell to find its `(state_size, output_size)`.

    Args:
        step: `step(shape) -> (carry, output)` for one row of inputs, `[1, ...]`.
        in_features: The size of the inputs, or their shape without the batch axis.

    Raises:
        TypeError: If `in_features` is neither an int nor a tuple of ints.
        ValueError: If `in_features`, or one of its sizes, is below 1.
    """
    sizes = in_features if isinstance(in_features, tuple) else (in_features,)
    shape = (1, *(as_count("in_features", size, fix="") for size in sizes))
    note = f"Raised by a step with inputs {list(shape)}, which `in_features` sets."
    with error_note(note):
        types = jax.eval_shape(lambda: step(shape))
    return jax.tree.map(lambda x: TensorShape(x.shape[1:]), types)
