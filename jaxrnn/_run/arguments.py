"""Checks the arguments of a run.

The checks have the order of a run: lengths, states, mask and resets, the requested
loop, one step of the cell, the results of the loop, and time divided over devices.
"""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.export
import jax.numpy as jnp

from .._base.arguments import (
    as_dtype,
    as_integers,
    check_instance,
    check_shape,
    is_list_of,
)
from .._base.errors import Verbatim, counted, expect, is_array, is_key, warn
from .._base.inputs import (
    as_arrays,
    as_booleans,
    as_like,
    check_like,
    check_no_plain_tuple,
    warn_of_plain_pair,
)
from .._base.math import axis_size, clamped_to_int32, is_float
from .._base.mesh import varying_axes
from .._base.trees import (
    TensorShape,
    has_read_only,
    is_tensor_array,
    map_sizes,
    named_leaves,
    with_structure,
    without_read_only,
)
from .._base.typing import (
    Array,
    ArrayLike,
    AxisSize,
    DType,
    Implementation,
    Lengths,
    PyTree,
    RNNCellLike,
    bound_or_none,
)
from .given import Given
from .loops import loops_of
from .run import Choice, Run
from .tensor_array.carried import with_capacity_for

IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)


_LENGTHS = (
    "Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`, "
    "and a dtype as `dtype=`."
)


def as_integer_lengths(given: Lengths, name: str = "sequence_length") -> Any:
    """Converts lengths of any shape to a NumPy or JAX array of integers.

    Raises:
        ValueError: If a list is ragged.
        TypeError: If the lengths are not integers, or are a masked array.
    """
    return as_integers(name, given, "integers, one for each row", fix=_LENGTHS)


def as_lengths(
    sequence_length: Lengths | None,
    batch_size: int,
    name: str = "sequence_length",
    time: AxisSize | None = None,
) -> Array | None:
    """Converts lengths to int32 `[batch]`, clamped to `[0, time]`; None stays None.

    Values beyond int32 are clamped too; in TensorFlow, such values wrap around.

    Args:
        sequence_length: The user's argument.
        batch_size: The number of rows.
        name: The argument's name in messages.
        time: The number of steps, or None to clamp only to int32. If the number of
            lengths is wrong but equals `time`, the message suggests that `time_major`
            may be wrong.

    Raises:
        TypeError: If the lengths are not integers; booleans are refused.
        ValueError: If the lengths are not a vector of `batch_size` entries.

    Warns:
        UserWarning: If a length in a list or NumPy array exceeds `time`.
    """
    if sequence_length is None:
        return None
    lengths = as_integer_lengths(sequence_length, name)
    must = f"be a vector of length batch_size ({batch_size}), one entry per row"
    is_time = lengths.shape == (time,)
    fix = f"The inputs have {time} steps: check `time_major`." if is_time else ""
    fix = fix or f"For rows of equal length n, pass `[n] * {batch_size}`."
    check_shape(name, lengths, (batch_size,), must, fix)
    if time is not None and jax.export.is_symbolic_dim(time):
        return jnp.minimum(_clamped_on_device(jnp.asarray(lengths)), axis_size(time))
    if isinstance(lengths, jax.Array):  # A check of values would wait for the device.
        return _clamped_on_device(lengths, time)
    longest = lengths.max(initial=0)
    if time is not None and longest > time:
        warn(
            f"`{name}` holds {longest}, but the number of steps is {time}. As in "
            f"TensorFlow, larger lengths count as {time}. If this is intended, pass "
            f"`np.minimum(lengths, {time})`."
        )
    return jnp.asarray(_clamped(lengths, time))


def _clamped(lengths: object, time: int | None = None) -> Any:
    return clamped_to_int32(lengths).clip(0, time)


# Clamping is compiled, so that calls do not transfer the bounds to the device.
_clamped_on_device = jax.jit(_clamped, static_argnames="time")


def as_initial_state(
    cell: RNNCellLike, state: PyTree, time: AxisSize, strict: bool
) -> PyTree:
    """Converts the user's state to arrays, and extends TensorArrays for `time` writes.

    If a plain pair takes the place of an `LSTMStateTuple`, warns or, if `strict`,
    raises TypeError.
    """
    if state is None:
        return None
    state = as_arrays("initial_state", with_capacity_for(state, time))
    check = check_no_plain_tuple if strict else warn_of_plain_pair
    check("initial_state", cell.state_size, state)
    return state


def check_rows_of_state(
    state: PyTree, rows: int, why: str, fix: str = "", name: str = "initial_state"
) -> None:
    """Raises ValueError if an array of an initial state does not have `rows` rows.

    Leaves without axes, TensorArrays and read-only parts are not checked. `why` follows
    the number of rows in the message, for example "like the inputs".
    """
    own = without_read_only(state)
    must = f"have {counted(rows, 'row')} {why}"
    for full, leaf in named_leaves(name, own, is_tensor_array):
        fits = is_tensor_array(leaf) or leaf.shape[:1] in ((), (rows,))
        expect(fits, full, must, leaf, fix)


def output_dtype(initial_state: PyTree, dtype: DType | None) -> DType:
    """The dtype of the outputs: `dtype`, or the initial state's dtype by default.

    Raises:
        ValueError: If `dtype` is None, and there is no state, or the state's arrays
            differ in dtype.
        TypeError: If `dtype` does not name a dtype.
    """
    if dtype is not None:
        return as_dtype(dtype)
    must = "be given if there is no `initial_state`"
    fix = "For a zero state of float32, pass `dtype=jnp.float32`."
    expect(initial_state is not None, "dtype", must, None, fix)
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(initial_state)})
    must = f"be given, because `initial_state` has the dtypes {', '.join(dtypes)}"
    expect(len(dtypes) == 1, "dtype", must, None, "Pass the dtype of the outputs.")
    return jax.tree.leaves(initial_state)[0].dtype


def as_mask(
    mask: ArrayLike | None, lengths: Lengths | None, shape: tuple, axis: int
) -> Array | None:
    """Returns the mask as an array, or None if there is no mask.

    Args:
        mask: The user's argument `mask`.
        lengths: The user's argument `sequence_length`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1.

    Raises:
        ValueError: If both `mask` and `lengths` are given, or if the mask does not have
            this `shape`.
        TypeError: If the mask does not hold booleans.
    """
    if mask is None:
        return None
    must = "be None if `sequence_length` is given"
    expect(lengths is None, "mask", must, mask)
    fix = "Convert numbers with `mask > 0`; pass lengths as `sequence_length`."
    return _as_step_booleans("mask", mask, shape, axis, fix)


def as_resets(
    resets: ArrayLike | None, reset_state: PyTree, shape: tuple, axis: int | None
) -> tuple[Array | None, PyTree]:
    """Returns `(resets, reset_state)` as arrays.

    Args:
        resets: The user's argument `resets`.
        reset_state: The user's argument `reset_state`.
        shape: The sizes of the first two axes of the inputs.
        axis: The time axis, 0 or 1. If None, the resets belong to one step.

    Raises:
        ValueError: If the resets do not have this `shape`, or if `reset_state` is given
            without `resets`.
        TypeError: If the resets are not booleans.
    """
    if resets is not None:
        fix = (
            "Convert flags with `resets > 0`, and segment ids with "
            "`jaxrnn.resets_of_segments`."
        )
        resets = _as_step_booleans("resets", resets, shape, axis, fix)
    if reset_state is not None:
        must = "be given if `reset_state` is given"
        expect(resets is not None, "resets", must, resets)
        reset_state = as_arrays("reset_state", reset_state)
    return resets, reset_state


def _as_step_booleans(
    name: str, values: ArrayLike, shape: tuple, axis: int | None, fix: str
) -> Array:
    """Returns an array of booleans, one for each row and step of the inputs.

    For one step, a NumPy array is not converted to a JAX array, because the conversion
    outside of jit takes longer than a step.

    Args:
        name: The name of the argument.
        values: The user's argument.
        shape: The sizes of the first two axes of the inputs; for one step, only the
            size of the first axis.
        axis: The time axis, 0 or 1. If None, the values belong to one step.
        fix: The fix to suggest if `values` are numbers.

    Raises:
        ValueError: If the array does not have this `shape`.
        TypeError: If `values` are not booleans.
    """
    convert = axis is not None or not is_array(values)
    array = as_booleans(name, values, fix, convert)
    axes = {None: "[batch]", 0: "[time, batch]", 1: "[batch, time]"}[axis]
    must = f"be {axes} like the inputs, {list(shape)}"
    fix = ""
    if axis is not None and shape[axis] == 1 and array.shape == (shape[1 - axis],):
        fix = f"For one step, pass `{name}[{'None' if axis == 0 else ':, None'}]`."
    elif axis is not None and array.shape == tuple(shape)[::-1]:
        fix = f"Pass `{name}.T`, or check `time_major`."
    check_shape(name, array, tuple(shape), must, fix)
    return array


def as_reset_state(given: PyTree, zeros: Callable[[], PyTree], state: PyTree) -> PyTree:
    """Returns the state that rows are reset to, with the structure of `state`.

    Args:
        given: The user's argument `reset_state`. If None, the zero state is returned.
        zeros: Returns the zero state of the cell, which is cast to the dtypes of
            `state`.
        state: The initial state of the run.

    Raises:
        ValueError: If `given` differs from `state` in structure or in a shape, or if
            `given` is None and the state has random keys or read-only parts, which have
            no zero.
        TypeError: If a dtype of `given` differs from `state`.
    """
    if given is not None:
        fix = _fix_of_reset_state(given, state)
        return as_like("reset_state", given, state, fix=fix)
    must = "be given if the state has read-only parts, such as an attention memory"
    fix = "For example, pass the initial state."
    expect(not has_read_only(state), "reset_state", must, given, fix)
    for path, leaf in named_leaves("initial_state", state, is_tensor_array):
        must = f"be given, because `{path}` holds random keys, which have no zero"
        fix = (
            "Pass the keys after a reset as `reset_state` of `dynamic_rnn`, of a "
            "module `RNN` or of a stream."
        )
        expect(not is_key(leaf), "reset_state", must, given, fix)
    zero = zeros()
    fix = (
        "Pass a state like the result of `cell.zero_state`, or also pass a "
        "`reset_state` like this state."
    )
    check_like("initial_state", state, zero, strict=False, any_dtype=True, fix=fix)

    def cast(zero: Array, leaf: Array) -> Array:
        is_narrower = jnp.iscomplexobj(zero) and not jnp.iscomplexobj(leaf)
        return (zero.real if is_narrower else zero).astype(leaf.dtype)

    return jax.tree.map(cast, with_structure(state, zero), state)


def _fix_of_reset_state(given: PyTree, state: PyTree) -> str:
    """Returns a hint for a reset state that lacks the batch axis or has a time axis."""
    leaves = jax.tree.leaves(given), jax.tree.leaves(state)
    for got, want in zip(*leaves, strict=False):
        if want.ndim and got.shape == want.shape[1:]:
            return _to_all_rows(want.shape)
        if got.ndim == want.ndim + 1 and got.shape[2:] == want.shape[1:]:
            return (
                "A row has one reset state for all its resets. To start each sequence "
                "from its own state, run one sequence per row, with `initial_state`."
            )
    return ""


def _to_all_rows(shape: tuple[int, ...]) -> str:
    """Returns a hint for one state `[units]` that should be `shape`, for all rows."""
    return f"To use one array h0 for all rows, pass `jnp.broadcast_to(h0, {shape})`."


def check_has_rows(state: PyTree) -> None:
    """Raises ValueError unless all leaves of the state have a batch axis.

    With a mask, the loop runs different steps of different rows at the same time. So a
    leaf that all rows share has no defined value after a step of one row.
    """
    must = "be an array [batch, ...] if `mask` or `return_states` is given"
    fix = (
        "Return the value as an output of the cell, or pass `sequence_length` instead "
        "of `mask`."
    )
    for name, leaf in named_leaves("state", state, is_tensor_array):
        has_rows = not is_tensor_array(leaf) and leaf.ndim > 0
        expect(has_rows, name, must, leaf, fix)


def as_implementation(implementation: Implementation | None) -> Implementation | None:
    """Returns None or the name of a known implementation; raises otherwise."""
    what = f"None or one of {', '.join(map(repr, IMPLEMENTATIONS))}"
    check_instance("implementation", implementation, str | None, what)
    is_known = implementation in (None, *IMPLEMENTATIONS)
    expect(is_known, "implementation", f"be {what}", implementation)
    return implementation


def check_implementation(asked: str | None, choice: Choice) -> None:
    """Raises ValueError if the requested implementation cannot run the cell."""
    if asked not in (None, "xla", choice.name):
        reason = choice.reason or f"the cell runs in the loop {choice.name!r}"
        raise ValueError(
            f"`implementation` {asked!r} cannot run this cell on these sequences: "
            f"{reason}. Omit `implementation` to use the loop that fits."
        )


def text_of(cell: object) -> str:
    """A cell in messages: the `repr` without parameters, or the name of a class."""
    bound = bound_or_none(cell)
    return repr(bound.cell) if bound else type(cell).__name__


def fix_of_rows(cell: Any, state: PyTree, rows: int, time: object = None) -> str:
    """Returns a hint for a state that lacks its batch axis, or has a row per step."""
    own = jax.tree.leaves(without_read_only(state), is_leaf=is_tensor_array)
    for leaf, size in zip(own, jax.tree.leaves(cell.state_size), strict=False):
        shape = tuple(size) if isinstance(size, TensorShape) else (size,)
        if shape and not is_tensor_array(leaf) and leaf.shape == shape:
            return _to_all_rows((rows, *shape))
    sizes = {leaf.shape[:1] for leaf in own if not is_tensor_array(leaf)}
    is_per_step = time not in (0, rows) and sizes == {(time,)}
    return f"The inputs have {time} steps: check `time_major`." if is_per_step else ""


def fix_of_zeros(inputs: PyTree, dtype: DType) -> str:
    """Returns a hint for an error in a step from zeros of this dtype."""
    floats = [x.dtype for x in jax.tree.leaves(inputs) if is_float(x)]
    if not floats or dtype in floats:
        return ""
    of_zeros = f"The zero initial state has dtype {dtype}, from the argument `dtype`."
    return f"{of_zeros} Pass the dtype of the inputs, `dtype=jnp.{floats[0]}`."


def check_one_batch_axis(cell: object, inputs: PyTree) -> None:
    """Raises ValueError if a step of the inputs has more than one batch axis."""
    bound = bound_or_none(cell)
    features = getattr(bound.cell if bound else cell, "feature_axes", None)
    if features is None:
        return
    axes = counted(features, "feature axis", "feature axes")
    must = f"have 1 batch axis and {axes} at each step"
    fix = (
        "Merge the batch axes, as in `inputs.reshape(-1, *inputs.shape[-2:])`, or use "
        "a module `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`, which accepts them."
    )
    for name, leaf in named_leaves("inputs", inputs, is_tensor_array):
        expect(leaf.ndim <= 1 + features, name, must, leaf, fix)


def as_pair(result: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the output and the new state from the result of a cell.

    Raises:
        ValueError: If the result is not a pair.
    """
    must = "return a pair (output, new_state)"
    fix = "To return a state of several arrays, nest them: `return output, (c, h)`."
    expect(is_list_of(result, 2), "cell", must, result, fix)
    output, new_state = result
    return output, new_state


def as_results(
    cell: RNNCellLike, run: Run, dtype: DType, results: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns `(outputs, state)` of a cell's own loop, in the structures of the cell.

    Raises:
        ValueError: If a structure or shape differs from the result of a scan of
            `apply`.
        TypeError: If a dtype differs from the result of a scan of `apply`.
    """
    steps = run.steps
    sizes = jax.tree.leaves(run.inputs)[0].shape[:2]

    def of_all_steps(shape: tuple, dtype: DType) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*sizes, *shape), dtype)

    outputs = map_sizes(lambda shape: of_all_steps(shape, dtype), cell.output_size)
    if steps.returns_states:
        of_leaf = lambda leaf: of_all_steps(leaf.shape[1:], leaf.dtype)
        outputs = outputs, jax.tree.map(of_leaf, run.state)
    fix = f"Check the loop that `choose_loop` of {text_of(cell)} returned."
    must = "return a pair (outputs, state)"
    expect(is_list_of(results, 2), "loop", must, results, fix)
    wanted = {"outputs": outputs, "state": run.state}
    for (name, want), got in zip(wanted.items(), results, strict=True):
        check_like(name, got, want, strict=False, fix=fix)
    return with_structure((outputs, run.state), results)


def check_axis_name(name: object, inputs: PyTree) -> None:
    """Raises an error unless the inputs are divided over an axis of `shard_map`."""
    what = "the name of a mesh axis of `jax.shard_map`"
    check_instance("axis_name", name, str | tuple, what)
    try:
        index = jax.lax.axis_index(name)
    except NameError as error:
        fix = "On an explicit mesh, omit `axis_name`."
        text = f"`axis_name` must be {what} around this call, got {name!r}. {fix}"
        raise ValueError(text) from error
    # With `check_vma=False`, types do not list mesh axes, so no axis is missing.
    missing = varying_axes(index) - varying_axes(jax.tree.leaves(inputs)[0])
    must = f"be divided over the mesh axis {name!r} along time"
    fix = f"Pass `P(None, {name!r})` in `in_specs`, or omit `axis_name`."
    expect(not missing, "inputs", must, inputs, fix)


def divided_time_of(cell: object, implementation: Implementation | None) -> Any:
    """Returns the `DividedTime` that runs the cell if time is divided over devices.

    Raises:
        ValueError: If the cell has no such loop, or if `implementation` is "scan".
    """
    must = "not be 'scan' if time is divided over devices"
    fix = (
        "Each step needs the state after the previous step. To compare with single "
        "steps, run whole sequences on one device."
    )
    expect(implementation != "scan", "implementation", must, "scan", fix)
    bound: Any = bound_or_none(cell)
    loops = bound and loops_of(type(bound.cell))
    divided = loops and loops.divided_time
    must = (
        "be a linear recurrence, a matrix memory or a `ShortConvCell` if time is "
        "divided over devices"
    )
    fix = (
        "Each step of other cells needs the state after the previous step. Divide the "
        "rows instead; for long sequences, pass `swap_memory`. For a stack, call "
        "`dynamic_rnn` for each layer, and add residuals and dropout outside."
    )
    fits = divided and divided.can_run(bound.cell)
    expect(fits, "cell", must, Verbatim(text_of(cell)), fix)
    return divided


def check_rows_of_states(given: Given) -> None:
    """Raises ValueError unless states have as many rows as the inputs."""
    states = {"initial_state": given.state, "reset_state": given.reset_state}
    for name_of_state, state in states.items():
        for leaf_name, leaf in named_leaves(name_of_state, state):
            fits = leaf is None or leaf.shape[:1] == (given.rows,)
            expect(fits, leaf_name, f"have {given.rows} rows, like the inputs", leaf)
