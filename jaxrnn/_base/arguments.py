"""The arguments that drivers share: what they may be and their final form."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import EntryError, KindError, describe, describe_structure, is_array
from .trees import map_named, named_leaves
from .typing import Array, DType, PyTree

# Unrolling makes programs larger and, on the CPU, no faster; TensorFlow's usual 32
# would multiply the compile time by ten.
MAX_UNROLL = 4
INT32_MAX = np.iinfo(np.int32).max


def check_cell(where: str, name: str, cell: Any) -> None:
    """Raises TypeError for what is not a cell, with all that it lacks."""
    if isinstance(cell, type):
        raise TypeError(
            f"{where}: `{name}` must be an RNNCell, got {describe(cell)}. Make "
            "one and bind it: `cell.bind(params)`."
        )
    missing = [
        f"`{trait}`"
        for trait in ("output_size", "state_size")
        if not hasattr(cell, trait)
    ]
    if not (hasattr(cell, "zero_state") or hasattr(cell, "get_initial_state")):
        missing.append("`zero_state` or `get_initial_state`")
    if not callable(cell):
        missing.append("`__call__`")
    if not missing:
        return
    fix = (
        f"Bind it first: `{name}.bind(params)`."
        if hasattr(cell, "bind") and hasattr(cell, "state_size")
        else "`jaxrnn.linen.as_cell` and `jaxrnn.nnx.as_cell` make one of Flax's."
        if hasattr(cell, "initialize_carry")
        else "Give a bound cell, or an object that keeps the RNNCell protocol."
    )
    raise TypeError(
        f"{where}: `{name}` must be an RNNCell, got {_shown(cell)}, which lacks "
        f"{', '.join(missing)}. {fix}"
    )


def _shown(cell: Any) -> str:
    """A cell as it shows itself; of anything else, which may be large, what it is."""
    return repr(cell) if hasattr(cell, "state_size") else describe(cell)


def as_dtype(where: str, dtype: DType) -> DType:
    """The dtype that JAX uses for `dtype`: float64 is float32 unless x64 is on.

    Raises:
        TypeError: If it names no dtype.
    """
    try:
        canonical = jax.dtypes.canonicalize_dtype(dtype)
        if dtype is None or canonical.kind in "OUSM":
            raise TypeError
        return canonical
    except (TypeError, ValueError):  # The latter for the dtype of random keys.
        raise TypeError(
            f"{where}: `dtype` must name a dtype, got {dtype!r}. Use jnp.float32, say."
        ) from None


def as_unroll(where: str, parallel_iterations: Any) -> int:
    """How many steps a loop takes per turn: `parallel_iterations` within reason.

    None and 0 ask for the default, one step. Values do not depend on it.

    Raises:
        TypeError: If it is negative or no integer; the latter also an AssertionError,
            as in TensorFlow.
    """
    if parallel_iterations is None:
        return 1
    try:
        count = operator.index(parallel_iterations)
    except TypeError:
        raise KindError(
            f"{where}: `parallel_iterations` must be an integer, got "
            f"{describe(parallel_iterations)}. Leave it out for the default."
        ) from None
    if count < 0:
        raise TypeError(
            f"{where}: `parallel_iterations` must be positive, got {count}. Leave it "
            "out for the default."
        )
    return min(max(count, 1), MAX_UNROLL)


def as_count(
    where: str,
    name: str,
    count: Any,
    least: int = 1,
    fix: str = "Leave it out for the default.",
) -> int:
    """An integer of `least` or more.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is below `least`.
    """
    try:
        if isinstance(count, bool):
            raise TypeError
        number = operator.index(count)
    except TypeError:
        raise TypeError(
            f"{where}: `{name}` must be an integer, got {describe(count)}. {fix}"
        ) from None
    if number < least:
        raise ValueError(
            f"{where}: `{name}` must be at least {least}, got {number}. {fix}"
        )
    return number


def check_time_major(where: str, time_major: Any) -> None:
    """Raises TypeError unless `time_major` is a Python bool."""
    if not isinstance(time_major, bool | np.bool_):
        raise TypeError(
            f"{where}: `time_major` must be True or False, got {describe(time_major)}. "
            "It is static: under jit, close over it or name it in `static_argnames`."
        )


def as_scope(where: str, scope: Any, default: str) -> str:
    """The name under which the loop's operations stand in profiles.

    Raises:
        TypeError: If it is neither None nor a string.
    """
    if scope is None:
        return default
    if not isinstance(scope, str):
        raise TypeError(f"{where}: `scope` must be a string, got {describe(scope)}.")
    return scope


def check_both_lists(where: str, cells_fw: Any, cells_bw: Any) -> None:
    """Raises ValueError unless both are lists of as many cells, at least one."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        if not isinstance(cells, Sequence) or not cells:
            raise ValueError(
                f"{where}: `{name}` must be a list of at least one cell, one for each "
                f"layer, got {describe(cells)}."
            )
    check_same_depth(where, cells_fw, cells_bw)


def check_same_depth(where: str, cells_fw: Sequence, cells_bw: Sequence) -> None:
    """Raises ValueError unless there are as many cells of both directions."""
    if len(cells_fw) != len(cells_bw):
        raise ValueError(
            f"{where}: `cells_fw` and `cells_bw` must have the same depth, got "
            f"{len(cells_fw)} and {len(cells_bw)} cells."
        )


def named_inputs(where: str, inputs: PyTree) -> list[tuple[str, Any]]:
    """The leaves of `inputs` with their names, at least one.

    Raises:
        ValueError: If there is none.
    """
    named = list(named_leaves("inputs", inputs))
    if not named:
        raise EntryError(
            f"{where}: `inputs` must hold at least one array, got "
            f"{describe_structure(inputs)}."
        )
    return named


def as_sequences(where: str, inputs: Any, time_major: bool) -> PyTree:
    """The nest of inputs as arrays of rank 3 or more that agree in time and batch.

    Raises:
        ValueError: If there are none, a rank is below 3, or axes disagree.
        TypeError: If a leaf is no array.
    """
    if inputs is None:
        raise ValueError(
            f"{where}: `inputs` must be arrays: None values not supported."
        )
    named_inputs(where, inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    inputs = map_named("inputs", lambda n, x: _as_sequence(where, n, x, axes), inputs)
    (first, leaf), *rest = named_leaves("inputs", inputs)
    for axis, what in (
        (0 if time_major else 1, "Time steps"),
        (int(time_major), "Batch size"),
    ):
        for name, other in rest:
            if other.shape[axis] != leaf.shape[axis]:
                raise ValueError(
                    f"{where}: {what} must be the same for all inputs {axes}: `{first}`"
                    f" is {describe(leaf)}, `{name}` is {describe(other)}."
                )
    return inputs


def _as_sequence(where: str, name: str, leaf: Any, axes: str) -> Array:
    array = as_array(where, name, leaf)
    if array.ndim < 3:
        fix = (
            "One array a step is stacked by jnp.stack; integer ids are embedded first."
            if is_array(leaf)
            else "A list is a nest of its elements: make it one array by jnp.asarray."
        )
        raise ValueError(
            f"{where}: `{name}` must have rank at least 3, {axes}, got "
            f"{describe(leaf)} of rank {array.ndim}. {fix}"
        )
    return array


def as_steps(where: str, inputs: Any) -> list[PyTree]:
    """A nest of arrays for each step, all of rank 2 or more and of one batch.

    If the first leaf has rank 1, as integer ids have, so may all.

    Raises:
        TypeError: If `inputs` are no sequence, or a leaf is no array.
        ValueError: If they are empty or a dict, a rank is too low, or batches disagree.
    """
    if jax.tree_util.all_leaves([inputs]) or inputs is None:
        raise TypeError(
            f"{where}: `inputs` must be a sequence, got {describe(inputs)}. "
            "`list(x)` has the steps of an array [time, batch, ...]; `dynamic_rnn` "
            "takes it whole."
        )
    if not isinstance(inputs, list | tuple):
        raise ValueError(
            f"{where}: `inputs` must be a list or tuple with one entry a step, got "
            f"{describe(inputs)}. A nest goes inside of each step."
        )
    steps = map_named("inputs", lambda n, x: as_array(where, n, x), list(inputs))
    leaves = list(named_leaves("inputs", steps))
    if not leaves:
        raise ValueError(
            f"{where}: `inputs` must not be empty, got {describe_structure(inputs)}."
        )
    least = 1 if leaves[0][1].ndim == 1 else 2
    for name, other in leaves:
        if other.ndim < least:
            raise ValueError(
                f"{where}: `{name}` must have rank at least {least}, [batch, ...], got "
                f"{describe(other)}."
            )
    check_same_batch(where, leaves)
    return steps


def check_same_batch(where: str, named: list[tuple[str, Array]]) -> None:
    """Raises ValueError if the first axes of arrays, given with their names, differ."""
    (first, leaf), *rest = named
    for name, other in rest:
        if other.shape[0] != leaf.shape[0]:
            raise ValueError(
                f"{where}: Batch size must be the same for all inputs [batch, ...]: "
                f"`{first}` is {describe(leaf)}, `{name}` is {describe(other)}."
            )


def as_lengths(where: str, sequence_length: Any, batch_size: int) -> Array | None:
    """The lengths as int32 `[batch]`, none negative; None stays None.

    Anything beyond int32 is clamped, where TensorFlow would wrap around.

    Raises:
        TypeError: If they are not integers (or booleans).
        ValueError: If they are no vector of `batch_size` entries.
    """
    if sequence_length is None:
        return None
    lengths = _as_integers(where, sequence_length)
    if lengths.ndim != 1:
        raise ValueError(
            f"{where}: `sequence_length` must be a vector of length batch_size, "
            f"{batch_size}, got {describe(lengths)}."
        )
    if lengths.shape[0] != batch_size:
        raise ValueError(
            f"{where}: `sequence_length` must have one entry per row, {batch_size}, "
            f"got {describe(lengths)}. Nothing is broadcast; rows are the first axis, "
            "or the second with `time_major`."
        )
    if lengths.dtype.itemsize >= 4:  # Narrower integers cannot exceed int32.
        lengths = lengths.clip(0, INT32_MAX)
    return jnp.maximum(jnp.asarray(lengths.astype(np.int32)), 0)


def _as_integers(where: str, lengths: Any) -> Array | np.ndarray:
    if not is_array(lengths):
        lengths = _from_list(where, lengths)
        if lengths.size == 0:
            lengths = lengths.astype(np.int32)
    if not (jnp.issubdtype(lengths.dtype, jnp.integer) or lengths.dtype == bool):
        fix = (
            "Cast it to jnp.int32."
            if lengths.dtype != object and lengths.ndim == 1
            else "One number a row is needed; a dtype goes by name, `dtype=`, a state "
            "by `initial_state=`."
        )
        raise TypeError(
            f"{where}: `sequence_length` must hold integers, got {describe(lengths)}. "
            f"{fix}"
        )
    return lengths


def _from_list(where: str, lengths: Any) -> Array | np.ndarray:
    traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(lengths))
    try:
        # NumPy keeps 64 bits whether x64 is on or not.
        return jnp.asarray(lengths) if traced else np.asarray(lengths)
    except (ValueError, TypeError):
        raise ValueError(
            f"{where}: `sequence_length` must be a vector of integers, got {lengths!r}."
        ) from None


def as_state(where: str, name: str, state: PyTree) -> PyTree:
    """A given initial state with arrays of fixed dtype as leaves.

    Raises:
        ValueError: If it holds None.
        TypeError: If a leaf is no array.
    """
    return map_named(name, lambda n, leaf: _as_state_leaf(where, n, leaf), state)


def _as_state_leaf(where: str, name: str, leaf: Any) -> Array:
    array = as_array(where, name, leaf)
    # A Python number would be weakly typed and change the carry's type at step 1.
    return array if is_array(leaf) else array.astype(array.dtype)


def as_array(where: str, name: str, leaf: Any) -> Array:
    """One leaf as an array.

    Raises:
        ValueError: If it is None.
        TypeError: If it is no array or number.
    """
    if leaf is None:
        raise ValueError(
            f"{where}: `{name}` must be an array: None values not supported."
        )
    try:
        return jnp.asarray(leaf)
    except TypeError:
        raise TypeError(
            f"{where}: `{name}` must be an array, got {describe(leaf)}."
        ) from None
