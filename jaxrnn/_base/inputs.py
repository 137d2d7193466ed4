"""Checks sequences, lists of steps, initial states and dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import INT32_MAX, as_dtype, check_rank, check_shape, check_time_major
from .errors import (
    EntryError,
    check_not_masked,
    describe,
    describe_non_array,
    describe_structure,
    is_array,
    leaf_name,
)
from .expect import expect
from .math import in_native_order, is_float, is_traced
from .trees import is_tensor_array, map_named, named_leaves, without_read_only
from .typing import Array, ArrayLike, DType, PyTree

OF_A_LIST = (
    "Each element of a list or tuple is a separate input. To make one array, call "
    "`jnp.asarray`; for sequences of different lengths, use `pack_sequences`."
)
OF_RAGGED = (
    "For sequences of different lengths, pad them and pass their lengths, or pass "
    "`pack_sequences(list({}))` to `packed_rnn`."
)


def to_all_rows(shape: tuple[int, ...]) -> str:
    """The fix for one state `[units]` in place of a state of shape `shape`."""
    return f"To use one array h0 for all rows, pass `jnp.broadcast_to(h0, {shape})`."


def named_inputs(
    inputs: PyTree, fix: str = "", name: str = "inputs"
) -> list[tuple[str, Any]]:
    """The leaves of `inputs` with their names.

    Raises:
        ValueError: If `inputs` has no leaf.
    """
    named = list(named_leaves(name, inputs))
    if not named:
        raise EntryError(
            f"`{name}` must hold at least one array, got "
            f"{describe_structure(inputs)}. {fix}".rstrip()
        )
    return named


def as_sequences(inputs: PyTree, time_major: bool) -> PyTree:
    """The inputs as a nest of arrays of rank 3 or more with equal time and batch sizes.

    Raises:
        ValueError: If there is no array, a leaf is None, a rank is below 3, an axis is
            too large for int32, or sizes disagree.
        TypeError: If a leaf is not an array, or `time_major` is not a bool.
    """
    check_time_major(time_major)
    named_inputs(inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    fix = OF_A_LIST if isinstance(inputs, list | tuple) else ""
    inputs = map_named("inputs", as_array, inputs, is_tensor_array)
    # If one array has enough axes, a list is a nest of inputs rather than one array.
    is_nest = any(leaf.ndim > 2 for leaf in jax.tree.leaves(inputs))
    for name, leaf in (named := list(named_leaves("inputs", inputs))):
        _check_sequence(name, leaf, axes, "" if is_nest else fix, time_major)
    check_same_size(named, 0 if time_major else 1, "The number of steps", axes, fix)
    check_same_size(named, 1 if time_major else 0, "The batch size", axes)
    return inputs


def _check_sequence(
    name: str, array: Array, axes: str, fix: str, time_major: bool
) -> None:
    if not fix:
        fix = _fix_of_rank(name, array, time_major)
    elif array.ndim == 2:
        fix = f"{fix} For one number per step, pass `{name}[..., None]`."
    check_rank(name, array, 3, axes, fix=fix)
    fits = all(n <= INT32_MAX for n in array.shape if isinstance(n, int))
    must = f"be {axes} with at most {INT32_MAX} entries along each axis"
    fix = "To run more steps, divide the sequences with `jaxrnn.windows`."
    expect(fits, name, must, array, fix)


def _fix_of_rank(name: str, leaf: Array, time_major: bool) -> str:
    """How to add a missing batch or depth axis to a leaf."""
    if leaf.ndim != 2:
        return ""
    if not is_float(leaf):
        return (
            f"Embed integer ids, or pass `{name}[..., None]` to a cell that embeds ids."
        )
    rows = ":, None" if time_major else "None"
    return (
        f"For one sequence [time, depth], pass `{name}[{rows}]`. For one number per "
        f"step, pass `{name}[..., None]`."
    )


def as_steps(inputs: Any) -> list[PyTree]:
    """A nest of arrays for each step, all of rank 2 or more with equal batch sizes.

    If the first leaf has rank 1 (for example, integer ids), all leaves may have rank 1.

    Raises:
        TypeError: If `inputs` is not a sequence, or a leaf is not an array.
        ValueError: If `inputs` is empty or a dict, if a rank is too low, or if batch
            sizes differ.
    """
    must = "be a list or tuple with one entry per step"
    split = (
        "Use `dynamic_rnn`, or split an array x [batch, time, ...] with "
        "`list(jnp.swapaxes(x, 0, 1))`."
    )
    is_leaf = jax.tree_util.all_leaves([inputs], lambda x: x is None)
    fix = split if is_array(inputs) else fix_of_objects("inputs", inputs)
    expect(not is_leaf, "inputs", must, inputs, fix, error=TypeError)
    is_list = isinstance(inputs, list | tuple)
    expect(is_list, "inputs", must, inputs, "Pass one nest per step.")
    steps = map_named("inputs", lambda n, x: as_array(n, x), list(inputs))
    leaves = named_inputs(steps)
    least = 1 if leaves[0][1].ndim == 1 else 2
    for name, leaf in leaves:
        fix = f"For one number per row, pass `{name}[:, None]`." if leaf.ndim else ""
        check_rank(name, leaf, least, "[batch, ...]", fix=fix)
    check_same_size(leaves, fix="Each entry of `inputs` is one step of all rows.")
    return steps


def check_rows_of_state(state: PyTree, rows: int, must: str, fix: str = "") -> None:
    """Raises ValueError if an array of an initial state does not have `rows` rows.

    Leaves without axes, TensorArrays and read-only parts are not checked.
    """
    own = without_read_only(state)
    for name, leaf in named_leaves("initial_state", own, is_tensor_array):
        fits = is_tensor_array(leaf) or leaf.shape[:1] in ((), (rows,))
        expect(fits, name, must, leaf, fix)


def check_same_size(
    named: list[tuple[str, Array]],
    axis: int | slice = 0,
    what: str = "The batch size",
    axes: str = "[batch, ...]",
    fix: str = "",
) -> None:
    """Raises ValueError if named arrays differ in size along one or more axes."""
    (first, leaf), *rest = named
    for name, other in rest:
        if other.shape[axis] != leaf.shape[axis]:
            raise ValueError(
                f"{what} must be the same for all inputs {axes}, but `{first}` is "
                f"{describe(leaf)} and `{name}` is {describe(other)}. {fix}".rstrip()
            )


def as_arrays(name: str, state: PyTree) -> PyTree:
    """The state with arrays as leaves; Python numbers lose their weak type.

    Raises:
        ValueError: If the state holds None.
        TypeError: If a leaf is not an array.
    """

    def as_leaf(name: str, leaf: Any) -> Array:
        array = as_array(name, leaf)
        # The first step would return a strongly typed array in place of a weakly typed
        # number, and so change the type of the loop's carry.
        return array if is_array(leaf) else array.astype(array.dtype)

    return map_named(name, as_leaf, state)


def as_array(name: str, leaf: Any) -> Array:
    """Converts one leaf to an array.

    Raises:
        ValueError: If the leaf is None.
        TypeError: If the leaf is neither an array nor a number.
    """
    if leaf is None:
        raise ValueError(f"`{name}` must be an array, got None.")
    if is_tensor_array(leaf):
        raise TypeError(
            f"`{name}` must be an array, got a TensorArray. Call `.stack()`."
        )
    check_not_masked(name, leaf)
    try:
        if isinstance(leaf, str):  # JAX would interpret the string "q" as a dtype.
            raise TypeError
        return jnp.asarray(in_native_order(leaf))
    except TypeError:
        is_numpy = isinstance(leaf, np.ndarray | np.generic)
        what = "an array with a dtype that JAX supports" if is_numpy else "an array"
        got = describe_non_array(leaf)
        fix = fix_of_objects(name, leaf)
        raise TypeError(f"`{name}` must be {what}, got {got}. {fix}".rstrip()) from None


def fix_of_objects(name: str, array: Any) -> str:
    """What to do with a NumPy array of Python objects."""
    if not isinstance(array, np.ndarray) or array.dtype != object:
        return ""
    if any(isinstance(x, np.ndarray | list | tuple) for x in array.flat):
        return OF_RAGGED.format(name)
    return f"For an array of numbers, pass `{name}.astype(np.float32)`."


def check_shaped(name: str, tree: PyTree, fix: str = "") -> None:
    """Raises TypeError unless all leaves, except None, have a shape and a dtype."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        is_shaped = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        must = "be an array or a `jax.ShapeDtypeStruct`"
        expect(is_shaped, leaf_name(name, path), must, leaf, fix, error=TypeError)


def check_concrete(
    name: str,
    tree: PyTree,
    fix: str = "Call this function outside jit, grad and vmap, and pass its result in.",
    why: str = "",
) -> None:
    """Raises TypeError for a traced array; `why` says why values are needed."""
    must = f"be concrete, since {why}" if why else "be concrete"
    for full, leaf in named_leaves(name, tree):
        # `Streamer` checks every frame, so describe an array only if it is traced.
        if is_traced(leaf):
            raise TypeError(f"`{full}` must {must}, got traced {describe(leaf)}. {fix}")


def as_step_booleans(
    name: str, values: ArrayLike, shape: tuple, axis: int | None, fix: str
) -> Array:
    """Returns booleans, one for each row and step of the inputs.

    Args:
        name: The name of the argument.
        values: The user's argument.
        shape: The sizes of the first two axes of the inputs; for one step, only the
            size of the first axis.
        axis: The time axis, 0 or 1; None for one step.
        fix: The fix to suggest if `values` are numbers.

    Raises:
        ValueError: If shapes disagree.
        TypeError: If `values` are not booleans.
    """
    values = as_array(name, values)
    expect(
        jnp.issubdtype(values.dtype, jnp.bool_),
        name,
        "be booleans",
        values,
        fix,
        error=TypeError,
    )
    axes = {None: "[batch]", 0: "[time, batch]", 1: "[batch, time]"}[axis]
    must = f"be {axes} like the inputs, {list(shape)}"
    check_shape(name, values, tuple(shape), must)
    return values


def output_dtype(initial_state: PyTree, dtype: DType | None) -> DType:
    """The dtype of the outputs: `dtype`, or the initial state's dtype by default.

    Raises:
        ValueError: If `dtype` is None and there is no state, or the state's arrays do
            not have one dtype.
        TypeError: If `dtype` does not name a dtype.
    """
    if dtype is not None:
        return as_dtype(dtype)
    if initial_state is None:
        raise ValueError(
            "`dtype` must be given if there is no `initial_state`, got None. For a "
            "zero state of float32, pass `dtype=jnp.float32`."
        )
    named = list(named_leaves("initial_state", initial_state))
    if len({leaf.dtype for _, leaf in named}) != 1:
        found = ", ".join(f"`{name}` {describe(leaf)}" for name, leaf in named)
        raise ValueError(
            "`dtype` must be given unless all arrays of `initial_state` have one "
            f"dtype, but the state holds {found or 'no arrays'}. Pass the dtype of the "
            "outputs."
        )
    return named[0][1].dtype
