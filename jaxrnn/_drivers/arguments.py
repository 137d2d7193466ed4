"""Checks of the arguments of drivers, and of the values that `loop_fn` returns."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import (
    as_dtype,
    check_given,
    check_instance,
    check_rank,
    check_time_major,
    is_list_of,
)
from .._base.errors import (
    EntryError,
    KindError,
    counted,
    error_note,
    expect,
    is_array,
    is_key,
)
from .._base.inputs import (
    as_array,
    as_arrays,
    as_booleans,
    as_like,
    check_like,
    check_same_size,
    check_structure,
    named_inputs,
)
from .._base.math import concrete_or_none
from .._base.trees import (
    is_tensor_array,
    map_named,
    opaque,
    types_of_size,
    with_tuples_of,
    without_read_only,
)
from .._base.typing import Array, DType, Lengths, PyTree, RNNCellLike, UnboundCellLike
from .._batching.packing import Packed
from .._batching.windows import Window
from .._run.arguments import as_integer_lengths, as_lengths, check_rows_of_state
from .._run.until_finished import Carry

# The limit keeps compilation fast. With 32 unrolled steps (TensorFlow's default of
# `parallel_iterations`), compilation would take ten times as long as without unrolling,
# and on CPUs the larger program would be no faster.
MAX_UNROLL = 4
OF_A_LIST = (
    "Each element of a list or tuple is a separate input. To make one array, call "
    "`jnp.asarray`; for sequences of different lengths, use `pack_sequences`."
)


def as_scope(scope: str | None, default: str) -> str:
    """The name under which profiles show the loop's operations.

    Raises:
        TypeError: If `scope` is neither None nor a string.
    """
    scope = check_instance("scope", scope, str | None, "a string or None")
    return default if scope is None else scope


def as_unroll(parallel_iterations: object) -> int:
    """The number of steps to unroll per loop iteration, at most `MAX_UNROLL`.

    None and 0 select the default, which is one step. Unrolling may change results by
    rounding.

    Raises:
        TypeError: If `parallel_iterations` is negative or not an integer. For a
            non-integer, the error is also an `AssertionError`, as in TensorFlow.
    """
    name = "parallel_iterations"
    steps: Any = 0 if parallel_iterations is None else parallel_iterations
    is_integer = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    expect(is_integer, name, "be an integer", steps, error=KindError)
    expect(steps >= 0, name, "be at least 0", steps, error=TypeError)
    return min(max(1, int(steps)), MAX_UNROLL)


def check_is_cell(name: str, cell: object) -> None:
    """Raises TypeError unless `cell` has the attributes of a bound cell."""

    def has(*names: str) -> bool:
        # Look at the class first, because an AttributeError that a property raises
        # would look like a missing attribute.
        return any(hasattr(type(cell), n) or hasattr(cell, n) for n in names)

    has_sizes = has("output_size") and has("state_size")
    is_like = has_sizes and callable(cell) and has("zero_state", "get_initial_state")
    # A bound cell may have `init` and `bind`, but no `apply`.
    is_unbound = isinstance(cell, type) or (has("init") and has("apply"))
    fix = _fix_of_cell(name, cell)
    is_bound = is_like and not is_unbound
    expect(is_bound, name, "be a bound cell", cell, fix, TypeError)


def _fix_of_cell(name: str, cell: object) -> str:
    """What to do with an object that is not a bound cell."""
    if hasattr(cell, "get_cells"):
        return f"Pass the bound cells of the module: `{name}.get_cells()`."
    if hasattr(cell, "cells_of"):
        return f"Pass the bound cells of the module: `{name}.cells_of(variables)`."
    if hasattr(cell, "initialize_carry"):
        return "Convert a Flax cell with `as_cell` of `jaxrnn.linen` or `jaxrnn.nnx`."
    if isinstance(cell, list | tuple):
        return (
            f"For one layer, pass `{name}[0]`; for several, pass a bound "
            "`MultiRNNCell`. If each layer has two directions, pass the cells to "
            "`stack_bidirectional_dynamic_rnn` or, for a stream, to "
            "`BidirectionalStreamer`."
        )
    return (
        f"Pass `{name}.bind(params)`, or an object that implements "
        "`jaxrnn.RNNCellLike`."
    )


def check_is_unbound_cell(name: str, cell: object) -> None:
    """Raises TypeError unless `cell` can create its parameters."""
    # Modules of linen also have `init` and `bind`, but no `state_size`.
    is_cell = hasattr(cell, "state_size") and not isinstance(cell, type)
    kinds = UnboundCellLike if is_cell else ()
    what = "an unbound cell, such as `jaxrnn.LSTMCell(64)`"
    fix = _fix_of_cell(name, cell) if hasattr(cell, "get_cells") else ""
    check_instance(name, cell, kinds, what, fix)


def check_both_lists(cells_fw: Sequence[object], cells_bw: Sequence[object]) -> None:
    """Raises ValueError unless both lists have the same number of cells, 1 or more."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        is_list = isinstance(cells, Sequence) and len(cells) > 0
        expect(is_list, name, "be a list of at least one cell", cells)
    depth = len(cells_fw)
    must = f"have the depth of `cells_fw` ({counted(depth, 'cell')})"
    expect(len(cells_bw) == depth, "cells_bw", must, cells_bw)


def check_is_no_record(inputs: PyTree) -> None:
    """Raises ValueError for a `Packed` or a `Window`, which is not a nest of inputs."""
    fix = "Pass `packed.inputs`, with `packed.lengths` and `resets=packed.resets`."
    expect(not isinstance(inputs, Packed), "inputs", "be arrays", inputs, fix)
    fix = "Pass `window.inputs`, with `sequence_length=window.sequence_length`."
    if isinstance(inputs, Window) and isinstance(inputs.inputs, Packed):
        fix = (
            "For a window of a pack, run the pack `window.inputs`: pass its `inputs`, "
        )
        fix += "with its `lengths` and `resets`."
    expect(not isinstance(inputs, Window), "inputs", "be arrays", inputs, fix)


def as_padded(inputs: PyTree, time_major: bool) -> tuple[PyTree, tuple, int]:
    """Returns the inputs as arrays, their first two sizes, and the time axis.

    Raises:
        ValueError: If there is no array, a leaf is None, a rank is below 3, or sizes
            disagree.
        TypeError: If a leaf is not an array, or `time_major` is not a bool.
    """
    axis = 0 if check_time_major(time_major) else 1
    check_is_no_record(inputs)
    inputs = map_named("inputs", as_array, inputs, is_tensor_array)
    named = named_inputs(inputs)
    axes = ("[time, batch, ...]", "[batch, time, ...]")[axis]
    rows, steps = ((":, None", "None"), ("None", ":, None"))[axis]
    # A list whose leaves have a time axis is a nest of sequences, not a list of steps.
    has_sequences = any(leaf.ndim > 2 for _, leaf in named)
    is_list = type(inputs) in (list, tuple) and not has_sequences
    for name, leaf in named:
        fix = f"For one number per step, pass `{name}[..., None]`."
        if not has_sequences:
            one = f"For one sequence [time, depth], pass `{name}[{rows}]`."
            of_step = f"For one step [batch, depth], pass `{name}[{steps}]`."
            fix = f"{one} {of_step} {fix} Embed integer ids."
        check_rank(name, leaf, 3, axes, OF_A_LIST if is_list else fix)
    check_same_size(named, slice(2), f"first two sizes, {axes},")
    return inputs, named[0][1].shape[:2], axis


def as_steps(inputs: Sequence[PyTree]) -> PyTree:
    """The steps of a list, stacked into one nest of arrays `[time, batch, ...]`.

    A step has rank 2 or more or, if its first leaf has rank 1 (for example, integer
    ids), rank 1 or more.

    Raises:
        TypeError: If `inputs` is not a sequence, a leaf is not an array, or the dtypes
            of two steps differ.
        ValueError: If `inputs` is empty or a dict, if a rank is too low, if batch sizes
            differ, or if the structures or shapes of two steps differ.
    """
    check_is_no_record(inputs)
    is_list = isinstance(inputs, list | tuple)
    must = "be a list or tuple with one entry per step"
    fix = (
        "Use `dynamic_rnn`, or split an array x [batch, time, ...] with "
        "`list(jnp.swapaxes(x, 0, 1))`."
    )
    error = ValueError if isinstance(inputs, dict) else TypeError
    expect(is_list, "inputs", must, inputs, fix, error)
    steps = map_named("inputs", as_array, list(inputs))
    named = named_inputs(steps)
    least = 1 if named[0][1].ndim == 1 else 2
    for name, leaf in named:
        fix = f"For one number per row, pass `{name}[:, None]`." if leaf.ndim else ""
        check_rank(name, leaf, least, "[batch, ...]", fix)
    check_same_size(named, fix="Each entry of `inputs` is one step of all rows.")
    fix = (
        "All steps must have the same structure, shapes and dtypes. If they differ, "
        "call `output, state = cell(inputs, state)` for each step."
    )
    for i, step in enumerate(steps):
        check_like(f"inputs[{i}]", step, steps[0], fix=fix)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)


# Advice about the values that `loop_fn` of `raw_rnn` returns.
_EMIT_FIX = (
    "At time 0, `emit_output` describes one row: return arrays without a batch axis, "
    "`()` to emit nothing, or None to emit outputs of `cell.output_size`."
)
_SAME_FIX = "Return the structure, shapes and dtypes of time 0."
_STATE_FIX = "To start all rows from one state, apply `jnp.broadcast_to` at time 0."
_NAMES = ("finished", "next_input", "next_cell_state", "emit_output", "next_loop_state")

Values: TypeAlias = tuple[Array, PyTree, PyTree, PyTree, PyTree]
"""The five values that `loop_fn` returns, checked."""


def first_values(cell: RNNCellLike, returned: PyTree) -> Values:
    """Checks the values that `loop_fn` returned at time 0, and converts them to arrays.

    Args:
        cell: The cell, which defines the sizes.
        returned: The return value of `loop_fn`.

    Returns:
        `(finished, next_input, initial_state, emit_types, loop_state)`. `finished` is
        bool: `[batch]`, a scalar, or the shape that the state and the emitted values
        share. The first input and the initial state have leaves `[batch, ...]`.
        `emit_types` has a `jax.ShapeDtypeStruct` `[batch, ...]` for each leaf that a
        step emits. The initial loop state may be None.

    Raises:
        ValueError: If `loop_fn` did not return five values, the state does not have the
            structure of `cell.state_size`, or the values disagree in the batch size.
        EntryError: If `next_input` holds no array, or holds a scalar.
        TypeError: If `finished` is not bool, or a leaf is not an array.
    """
    finished, next_input, state, template, loop_state = _five(returned)
    next_input = as_arrays("next_input", next_input)
    named = named_inputs(next_input, name="next_input")
    for name, leaf in named:
        expect(leaf.ndim > 0, name, "be [batch, ...]", leaf, error=EntryError)
    check_same_size(named)
    rows = named[0][1].shape[0]
    fix = "`cell_state` is None at time 0, so return `cell.zero_state(batch, dtype)`."
    check_given("next_cell_state", state, fix, "the initial state at time 0")
    state = with_tuples_of(cell.state_size, as_arrays("next_cell_state", state))
    masked = opaque(without_read_only(state))
    what = "the first `next_cell_state` (see `cell.state_size`)"
    check_structure(what, cell.state_size, masked, strict=True)
    emit_types = _emit_types(cell, template, state, rows)
    # As in TensorFlow, `finished` may also have the shape of the state and the emitted
    # values, if they share one shape.
    shapes = {x.shape for x in jax.tree.leaves((masked, emit_types)) if np.ndim(x)}
    finished = _as_finished(finished, (rows,), *shapes if len(shapes) == 1 else ())
    if finished.ndim:
        why, place = "like `next_input`", "next_cell_state"
        check_rows_of_state(state, rows, why, _STATE_FIX, place)
    if loop_state is not None:
        loop_state = as_arrays("next_loop_state", loop_state)
    return finished, next_input, state, emit_types, loop_state


def next_values(returned: PyTree, carry: Carry, emit_types: PyTree) -> Values:
    """Checks the values of a later `loop_fn` call, and converts them to arrays.

    If the new loop state is None, the previous loop state is kept.

    Args:
        returned: The return value of `loop_fn`.
        carry: The values before the call, whose types must not change.
        emit_types: The types of the emitted values, from `first_values`.

    Raises:
        ValueError: If a structure or shape differs from time 0.
        TypeError: If a dtype or a sequence type differs from time 0.
    """
    finished, next_input, state, emit, loop_state = _five(returned)
    shape = carry.finished.shape
    return (
        jnp.broadcast_to(_as_finished(finished, shape), shape),
        as_like("next_input", next_input, carry.next_input, fix=_SAME_FIX),
        as_like("next_cell_state", state, carry.state, fix=_STATE_FIX),
        as_like("emit_output", emit, emit_types, fix=_EMIT_FIX),
        carry.loop_state
        if loop_state is None
        else as_like("next_loop_state", loop_state, carry.loop_state, fix=_SAME_FIX),
    )


def _five(returned: PyTree) -> PyTree:
    fits = is_list_of(returned, len(_NAMES))
    error = ValueError if isinstance(returned, tuple | list) else TypeError
    expect(fits, "loop_fn", f"return ({', '.join(_NAMES)})", returned, error=error)
    return returned


def _as_finished(finished: object, *shapes: tuple[int, ...]) -> Array:
    """Returns `finished` as a bool array of one of these shapes, or as a scalar."""
    is_nest = isinstance(finished, tuple | list)
    fix = "Convert a list with `jnp.asarray`."
    expect(not is_nest, "finished", "be one boolean array", finished, fix)
    fix = "Return a comparison, such as `time >= lengths`."
    array = as_booleans("finished", finished, fix)
    must = f"be a scalar or have shape {list(shapes[0])}"
    fix = "To return [batch] later, return `jnp.zeros(batch, bool)` at time 0."
    expect(array.shape in ((), *shapes), "finished", must, array, fix)
    return array


def _emit_types(
    cell: RNNCellLike, template: PyTree, state: PyTree, rows: int
) -> PyTree:
    """The types of the emitted values, from a template or from `cell.output_size`."""
    if template is None:
        dtype = next((x.dtype for x in jax.tree.leaves(state)), None)
        return types_of_size(cell.output_size, rows, dtype, "cell.output_size")

    def emitted(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        shaped = is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        must = "be an array without a batch axis, such as `jnp.zeros([])`"
        expect(shaped and not is_key(leaf), name, must, leaf, error=TypeError)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((rows, *leaf.shape), dtype)

    return map_named("emit_output", emitted, template, is_tensor_array)


def with_notes(fn: Callable, what: str) -> Callable:
    """Wraps a function so that notes are added to the errors that it raises."""

    def noted(*args: object) -> PyTree:
        with error_note(f"Raised by {what}."):
            try:
                return fn(*args)
            except jax.errors.JAXTypeError as error:
                error.add_note(
                    "Under jit or vmap, `time` and all arrays are traced. Select with "
                    "`jnp.where` or `lax.cond`, and use `if` only for `cell_output is "
                    "None`. Index JAX arrays or TensorArrays, not NumPy arrays."
                )
                raise

    return noted


def as_dtype_or_none(dtype: DType | None) -> DType | None:
    """The dtype that JAX uses for `dtype`, so that inner calls do not warn again."""
    return None if dtype is None else as_dtype(dtype)


def check_reversible(arrays: PyTree, time: int, rows: int) -> None:
    """Raises ValueError unless all arrays can be reversed with the same lengths."""
    named = named_inputs(arrays, name="input")
    axes = f"with axes {rows} (rows) and {time} (time)"
    fix = "Shard the rows with `jax.sharding.reshard`."
    for name, array in named:
        check_rank(name, array, max(time, rows) + 1, axes)
        spec = jax.typeof(array).sharding.spec
        must = f"not be sharded along time (axis {time}) as in {spec}"
        expect(spec[time] is None, name, must, array, fix)
    check_same_size(named, time, f"number of steps (axis {time})")
    check_same_size(named, rows, f"number of rows (axis {rows})")


def as_reversed_lengths(seq_lengths: Lengths, steps: int, rows: int) -> Array:
    """The lengths as int32 `[batch]`; raises ValueError if a known length is wrong."""
    name = "seq_lengths"
    lengths = check_given(name, as_lengths(seq_lengths, rows, name), fix="")
    known = concrete_or_none(as_integer_lengths(seq_lengths, name))
    if known is not None and isinstance(steps, int):
        wrong = known[(known < 0) | (known > steps)].tolist()
        expect(not wrong, name, f"be between 0 and {steps}, the number of steps", wrong)
    return jnp.minimum(lengths, steps)
