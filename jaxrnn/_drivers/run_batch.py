"""`run_batch`: runs a cell over a batch of checked sequences, in one compiled loop.

Drivers, such as `dynamic_rnn`, put their arguments into a `Batch`. `run_batch` converts
the batch to a `Run`, whose segments are run by the loops of `_loops`.

Equal cells share one compiled function if they hold nothing that could change
(`constants_of`). `jax.jit` compares static arguments: cells by their hyperparameters,
functions by identity. This comparison is correct only if equal arguments never change.
A bound method or a callable object may read attributes that change, and a closure may
hold arrays.
"""

import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import trees
from .._base.cell_keys import cell_at_step
from .._base.errors import describe
from .._base.math import axis_size
from .._base.sharding import as_rows_of, lay_out, whole_features
from .._base.trees import (
    TensorShape,
    has_read_only,
    with_read_only,
    without_read_only,
)
from .._base.typing import Array, DType, PyTree, RNNCellLike
from .._loops import masking
from .._loops.dispatch import run_sequence
from .._loops.scans import Apply, closed_over, segmented_run, summed_in_float32
from .._loops.steps import DeclinedError, Restarts, Run, Steps, steps_to_run
from .._tensor_array.carried import with_capacity_for
from ..memory import CheckpointPlan
from .first_step import call_start, probe, rows_interact, zero_state
from .masks_and_resets import Resets

_SAVE_EVERYTHING = CheckpointPlan()

# Objects that cannot change.
_PLAIN = (bool, int, float, complex, str, bytes, tuple, range)
_PLAIN += (types.NoneType, types.EllipsisType)
_CONSTANTS = (np.dtype, np.ufunc, TensorShape, jax.Device)
_CONSTANTS += (jax.sharding.Mesh, jax.sharding.Sharding, jax.sharding.PartitionSpec)
_JITTED = type(jax.jit(lambda: None))
_FUNCTIONS = {types.FunctionType, types.BuiltinFunctionType, functools.partial}
_FUNCTIONS |= {_JITTED}
# Functions and dtypes, some of which are objects of JAX's classes, such as
# `jax.nn.relu`, and the modules themselves.
_OF_JAX = {id(x) for module in (jax, jnp, jax.nn) for x in vars(module).values()}
_OF_JAX |= {id(jax), id(np)}
_IS_IMMUTABLE = 1 << 8  # Python's flag of classes such as `float` and `np.float32`.


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields="inputs lengths state mask resets restarts".split(),
    meta_fields=(
        "dtype axis plan unroll implementation return_states has_mask".split()
    ),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The checked arrays and options of a driver, as the argument of `run_batch`.

    Attributes:
        inputs: All steps, each leaf `[batch, time, ...]`, or `[time, batch, ...]` if
            the time axis is 0.
        lengths: The length of each row, `[batch]`; None if all steps are valid.
        state: The initial state, each leaf `[batch, ...]`; None for the zero state.
        mask: Bool, with the first two axes of the inputs; true at valid steps, which
            may be at any positions in a row. None if there is no mask with gaps.
        resets: The steps before which rows get their reset state, or the zero state.
        restarts: The first steps of the sequences in packed rows, each with the initial
            state of its sequence.
        dtype: The dtype of the zero state and of the outputs.
        axis: The time axis of inputs and outputs, 0 or 1.
        plan: What the forward pass saves for the backward pass.
        unroll: The number of steps unrolled in each iteration of a scan.
        implementation: The name of the loop that runs an affine cell, or None.
        return_states: Whether to also return the state after every step.
        has_mask: Whether the user passed a mask, even if it was converted to lengths.
    """

    inputs: PyTree
    lengths: Array | None
    state: PyTree
    dtype: DType
    axis: int
    mask: Array | None = None
    resets: Resets | None = None
    restarts: Restarts | None = None
    plan: CheckpointPlan = _SAVE_EVERYTHING
    unroll: int = 1
    implementation: str | None = None
    return_states: bool = False
    has_mask: bool = False


def run_batch(cell: RNNCellLike, batch: Batch) -> tuple[PyTree, PyTree, PyTree]:
    """Runs `cell` over all steps of a batch; returns `(outputs, state, states)`.

    `states` is None unless `batch.return_states`, and has no read-only parts.

    Outside of jit, JAX would compile the loop in every call, because the loop's body is
    a new closure in each call. Therefore, equal cells share one compiled function if
    sharing is safe.
    """
    constants = constants_of(cell) if trees.is_pytree_of_arrays(cell) else None
    if constants is None:
        return _run(cell, batch)
    return _compiled_run(cell, batch, constants)


def _run(cell: RNNCellLike, batch: Batch) -> tuple[PyTree, PyTree, PyTree]:
    valid = None
    if batch.mask is not None and rows_interact(cell):
        batch = _keep_rows_in_step(cell, batch, batch.mask)
    elif batch.mask is not None:
        batch, valid = _move_valid_steps(cell, batch, batch.mask)
    cell, state, run = _prepare(cell, batch)
    outputs, last = _run_as_planned(cell, state, run, batch)
    states = None
    if batch.return_states:
        outputs, states = outputs
    # Without lengths, a cell may return a list although its `output_size` is a tuple.
    # Convert such a list.
    outputs = trees.with_structure(cell.output_size, outputs)
    if valid is not None:
        outputs = valid.to_places(outputs, batch.axis)
    if states is not None and valid is not None:
        states = valid.states(states, run.state, batch.axis)
    elif states is not None:
        states = run.steps.keep_last(states, last)
    return outputs, with_read_only(last, batch.state), states


@functools.partial(jax.jit, static_argnames="constants")
def _compiled_run(
    cell: RNNCellLike, batch: Batch, constants: tuple
) -> tuple[PyTree, PyTree, PyTree]:
    """`_run`, compiled once for equal cells with equal `constants_of(cell)`."""
    del constants
    return _run(cell, batch)


def _move_valid_steps(
    cell: RNNCellLike, batch: Batch, mask: Array
) -> tuple[Batch, masking.ValidSteps]:
    """Returns the valid steps as a batch with lengths, and their positions."""
    axis = batch.axis
    inputs = whole_features(batch.inputs, (cell, batch.state), 1 - axis)
    mask = as_rows_of(inputs, jnp.swapaxes(mask, 1, axis), 1 - axis)
    valid = masking.ValidSteps.of(mask)
    inputs = valid.to_front(inputs, axis)
    resets = batch.resets
    if resets is not None:
        where = as_rows_of(inputs, resets.where, 1 - axis)
        resets = resets._replace(where=valid.resets(where))
    moved = dataclasses.replace(
        batch, inputs=inputs, lengths=valid.lengths, resets=resets, mask=None
    )
    return moved, valid


def _keep_rows_in_step(cell: RNNCellLike, batch: Batch, mask: Array) -> Batch:
    """Returns a batch in which step t of all rows still runs at the same time.

    The length of a row is the number of steps up to its last valid step. A reset at a
    masked step takes effect at the next valid step.
    """
    axis = batch.axis
    inputs = whole_features(batch.inputs, (cell, batch.state), 1 - axis)
    mask = as_rows_of(inputs, jnp.swapaxes(mask, 1, axis), 1 - axis)
    ends = jnp.arange(mask.shape[1], dtype=jnp.int32) + 1
    resets = batch.resets
    if resets is not None:
        where = as_rows_of(inputs, resets.where, 1 - axis)
        counts = jnp.cumsum(where, 1, dtype=jnp.int32)
        seen = jax.lax.cummax(jnp.where(mask, counts, 0), axis=1)
        seen_before = jnp.pad(seen, ((0, 0), (1, 0)))[:, :-1]
        resets = resets._replace(where=mask & (counts > seen_before))
    return dataclasses.replace(
        batch,
        inputs=inputs,
        lengths=jnp.max(jnp.where(mask, ends, 0), axis=1, initial=0),
        mask=jnp.swapaxes(mask, 1, axis),
        resets=resets,
    )


def _prepare(cell: RNNCellLike, batch: Batch) -> tuple[RNNCellLike, PyTree, Run]:
    """Returns the cell, the state and the run, laid out over devices and checked.

    The state holds the read-only parts, which the run does not carry through the loop.

    Raises:
        ValueError: If one step of the cell does not fit the inputs and the state, or
            if a leaf has no batch axis but the options require a batch axis.
        TypeError: If the step changes the dtypes of the state.
    """
    axis = batch.axis
    lengths = batch.lengths
    state = batch.state
    resets = batch.resets
    inputs = whole_features(batch.inputs, (cell, lengths, state), 1 - axis)
    shape = jax.tree.leaves(inputs)[0].shape
    time = shape[axis]
    first_inputs = masking.first_inputs(inputs, axis)
    if state is None:
        state = with_capacity_for(zero_state(cell, shape[1 - axis], batch.dtype), time)
    are_zeros = False
    if resets is not None:
        are_zeros = resets.state is None and getattr(cell, "starts_from_zeros", False)
        resets = resets.with_state_like(cell, state, time, batch.dtype)
    cell, lengths, (state, resets) = lay_out(
        cell, first_inputs, lengths, (state, resets)
    )
    state = call_start(cell, state)
    state = probe(cell, first_inputs, state, batch.dtype, strict=lengths is not None)
    carried = without_read_only(state)
    if batch.has_mask or batch.return_states:
        _check_has_rows(carried, batch.has_mask)
    longest = None
    if lengths is not None:
        longest = steps_to_run(lengths, time)
        lengths = jnp.minimum(lengths, axis_size(time))
    # A run without steps has no resets and no mask.
    mask = batch.mask if time != 0 else None
    restarts = batch.restarts
    if resets is not None and time != 0:
        restarts = resets.as_restarts(lengths, axis, are_zeros)
    steps = Steps(
        lengths=lengths,
        longest=longest,
        mask=mask,
        restarts=restarts,
        time=time,
        axis=axis,
        returns_states=batch.return_states,
        rows_interact=rows_interact(cell),
    )
    run = Run(inputs, carried, steps, implementation=batch.implementation)
    return cell, state, run


def _check_has_rows(state: PyTree, has_mask: bool) -> None:
    """Raises ValueError if a leaf of the state has no batch axis.

    All rows share such a leaf, but each leaf of the returned `states` must have a batch
    axis. With a mask, the loop runs different steps of different rows at the same time,
    so a shared leaf has no value for a step of one row.
    """
    option = "mask" if has_mask else "return_states"
    fix = "Return this value as an output of the cell, not as a state."
    if has_mask:
        fix += " If `mask` masks only the ends of rows, pass `sequence_length` instead."
    for name, leaf in trees.named_leaves("state", state, trees.is_tensor_array):
        if trees.is_tensor_array(leaf) or not leaf.ndim:
            raise ValueError(
                f"with `{option}`, `{name}` must be an array [batch, ...], got "
                f"{describe(leaf)}. {fix}"
            )


def _run_as_planned(
    cell: RNNCellLike, state: PyTree, run: Run, batch: Batch
) -> tuple[PyTree, PyTree]:
    """Runs the cell over all steps; returns `(outputs, state)`.

    Args:
        cell: The cell, laid out over devices.
        state: The initial state, whose read-only parts every step reads.
        run: All steps; `run.steps` lacks the values that `Steps.with_stand_in` adds.
        batch: The options.
    """
    cell_in_loop, step = _in_loop(cell, run, state)
    state_in_loop = summed_in_float32(state)
    steps = run.steps.with_stand_in(run.inputs, run.state)
    restart_states = summed_in_float32(steps.restart_states)

    def apply(t: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        state = with_read_only(state, state_in_loop())
        output, new_state = step(t, inputs, state)
        return output, without_read_only(new_state)

    def apply_sequence(run: Run) -> tuple[PyTree, PyTree]:
        if not hasattr(cell, "apply_sequence"):
            raise DeclinedError("the cell has no `apply_sequence`")
        if run.steps.rows_interact:
            raise DeclinedError("the rows of the cell interact")
        if has_read_only(state):
            raise DeclinedError("the state of the cell has read-only parts")
        return cell_in_loop().apply_sequence(run)

    def run_segment(
        inputs: PyTree, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        steps = steps.with_restart_states(restart_states())
        segment = run.replace(inputs=inputs, state=state, steps=steps)
        return run_sequence(apply_sequence, apply, segment, batch.unroll)

    plan = batch.plan
    return segmented_run(
        plan.segments, plan.names_on_host, run_segment, run.inputs, run.state, steps
    )


def _in_loop(
    cell: RNNCellLike, run: Run, state: PyTree
) -> tuple[Callable[[], Any], Apply]:
    """Returns a function that returns the cell, and a function that runs step t.

    A loop calls both functions in its body, so that gradients of the arrays that all
    steps share are summed in float32. If the cell is not a pytree, its arrays are found
    by tracing one step.
    """
    if trees.is_pytree_of_arrays(cell):
        cell_in_loop = summed_in_float32(cell)
        return cell_in_loop, lambda t, *args: cell_at_step(cell_in_loop(), t)(*args)
    first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
    step, arrays, _ = closed_over(
        lambda t, *args: cell_at_step(cell, t)(*args), jnp.int32(0), first_inputs, state
    )
    arrays_in_loop = summed_in_float32(arrays)
    return lambda: cell, lambda *args: step(arrays_in_loop(), *args)


def constants_of(cell: object) -> tuple | None:
    """The functions and constants of a cell; None if an object in it could change.

    Two calls with equal cells run the same program if the results are equal. A closure
    can be given another value between the calls, so the values are compared too.
    """
    found = list(_contents(jax.tree.structure(cell), within=()))
    if not all(map(_is_constant, found)):
        return None
    return tuple((type(value), value) for value in found)


def _contents(value: Any, within: tuple) -> Iterator[Any]:
    """Yields all that a value holds; `within` are the values that hold it."""
    parts = _parts(value)
    if parts is None:
        yield value
        return
    yield value if type(value) in _FUNCTIONS else (type(value), len(parts))
    if not any(value is outer for outer in within):  # The function may be recursive.
        for part in parts:
            yield from _contents(part, (*within, value))


def _is_constant(value: Any) -> bool:
    if id(value) in _OF_JAX or isinstance(value, _CONSTANTS):
        return True
    if isinstance(value, type):
        return bool(value.__flags__ & _IS_IMMUTABLE)
    if isinstance(value, np.generic):
        return type(value) is value.dtype.type and not isinstance(value, np.void)
    # An object of a subclass may have attributes, which can change.
    return type(value) in _PLAIN or type(value) in _FUNCTIONS


def _parts(value: Any) -> list | None:
    """The values that an immutable object holds; None for any other object."""
    if id(value) in _OF_JAX or isinstance(value, _CONSTANTS):
        return None
    if isinstance(value, jax.tree_util.PyTreeDef):
        kind, data = value.node_data() or (None, None)
        # For a dict, `data` is a list of the keys; for a named tuple, its class.
        is_container = isinstance(kind, type) and issubclass(kind, dict | tuple)
        return [None if is_container else data, *value.children()]
    if isinstance(value, types.FunctionType):
        cells = [c for c in value.__closure__ or () if c != types.CellType()]
        keywords = (value.__kwdefaults__ or {}).values()
        contents = [c.cell_contents for c in cells]
        return [value.__defaults__, *contents, *keywords, *vars(value).values()]
    if isinstance(value, _JITTED):
        return [value.__wrapped__]  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__self__]
    attributes = getattr(value, "__dict__", {})
    if type(value) is functools.partial:
        parts = [value.func, value.args, *value.keywords.values()]
        return [*parts, *attributes.values()]
    if isinstance(value, tuple | frozenset):
        return [*value, *attributes.values()]
    if isinstance(value, enum.Enum):
        return list({**attributes, "__objclass__": None}.values())
    if dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        names = {field.name for field in dataclasses.fields(value)} | set(attributes)
        return [_field(value, name) for name in sorted(names)]
    return None


def _field(value: Any, name: str) -> Any:
    """A dataclass field; of sizes, which may be dicts or lists, only the leaves."""
    field = getattr(value, name)
    is_size = name in ("state_size", "output_size")
    return tuple(jax.tree.leaves(field)) if is_size else field
