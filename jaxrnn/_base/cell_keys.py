"""How random keys reach the cells: one for the run, one for the step.

A driver gives step t the key `fold_in(key, t)`, so that random numbers depend neither
on unrolling nor on segments nor on the backend. Those that are drawn once a run
(variational dropout) need the key of the run as well: a cell that holds other cells
receives both keys and passes them on; any other cell receives that of the step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .errors import describe, is_array, is_key
from .typing import Array, Key, Params, PyTree


def check_key(caller: str, key: Any) -> None:
    """Raises unless `key` is one random key; under vmap each row has one.

    Raises:
        TypeError: If it is not a random key.
        ValueError: If it is an array of keys.
    """
    is_raw = is_array(key) and key.dtype == jnp.uint32 and key.ndim > 0
    if not (is_raw or is_key(key)):
        raise TypeError(
            f"{caller}: `key` must be a random key, got {describe(key)}. "
            "`jax.random.key(0)` makes one."
        )
    if key.ndim > is_raw:  # A raw key is a vector.
        raise ValueError(
            f"{caller}: `key` must be one key, got {describe(key)}. Use jax.vmap for a "
            "run with each of them."
        )


def check_key_of_step(caller: str, key: Any) -> None:
    """Raises as `check_key`, unless `key` is None or already the keys of a step."""
    if key is not None and not isinstance(key, StepKey):
        check_key(caller, key)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepKey:
    """The key of the whole run, and that of the current step."""

    run: Any
    step: Any


# No step has this number, so that no key of the run is also that of a step.
RUN = 2**32 - 1


def at_step(key: Key | None, t: Array) -> StepKey | None:
    """The keys of step `t` of a run with this key; None stays None."""
    if key is None:
        return None
    return StepKey(jax.random.fold_in(key, RUN), jax.random.fold_in(key, t))


def key_of_device(key: Key, rows: PyTree) -> Key:
    """The key for rows that `shard_map` divides: another one on each device.

    A key that differs between the devices already, as far as its type tells, stays.
    """
    axes = set().union(*map(varying_axes, jax.tree.leaves(rows))) - varying_axes(key)
    if not axes:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(tuple(sorted(axes))))


def varying_axes(x: Any) -> frozenset[str]:
    """The axes of `shard_map` over which a value may differ, as its type tells."""
    return jax.typeof(x).mat.varying


def cell_of_device(cell: Any, rows: PyTree) -> Any:
    """The cell with `key_of_device`, if it is bound with a key."""
    key = getattr(cell, "key", None)
    if key is None:
        return cell
    return dataclasses.replace(cell, key=key_of_device(key, rows))


def cell_at_step(cell: Any, t: Array) -> Any:
    """The cell with the keys of step `t`, if it has an `at_step`."""
    at_step = getattr(cell, "at_step", None)
    return cell if at_step is None else at_step(t)


def fold(key: Any, data: int | Array) -> Any:
    """An independent key for part number `data`; None stays None."""
    return jax.tree.map(lambda k: jax.random.fold_in(k, data), key)


def run_key(key: Any) -> Key:
    """The key of the run; a plain key stands for both."""
    return key.run if isinstance(key, StepKey) else key


def step_key(key: Any) -> Key:
    """The key of the step; a plain key stands for both."""
    return key.step if isinstance(key, StepKey) else key


def apply_cell(
    cell: Any, params: Params, inputs: PyTree, state: PyTree, key: Any
) -> tuple[PyTree, PyTree]:
    """`cell.apply`, with both keys if the cell holds cells, else that of the step."""
    if not getattr(cell, "holds_cells", False):
        key = step_key(key)
    return cell.apply(params, inputs, state, key=key)
