"""`check_cell`, which checks on random data that a cell has all required properties."""

import logging
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._base import trees
from .._base.arguments import as_dtype, check_instance, check_shape
from .._base.cell_keys import check_key
from .._base.errors import describe_leaves, error_note
from .._base.inputs import check_shaped
from .._base.like import check_structure
from .._base.trees import has_read_only
from .._base.typing import Array, DType, Key, PyTree, Shaped
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from ._laws import LAWS
from ._oracle import TIME, Setup

_log = logging.getLogger("jaxrnn")


def make_setup(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> Setup:
    """Creates a cell's `Setup`: random parameters, inputs and state, and fixed lengths.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, given as arrays or as
            `jax.ShapeDtypeStruct`s. Real and complex leaves get the dtype `dtype`;
            integer leaves are 0 or 1. The batch size should be at least 4.
        dtype: The dtype of parameters, inputs and state.
        key: The random key of the run, for cells that draw random numbers.
        state: The initial state; None for a random state with the structure of
            `state_size`.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...], declared: DType) -> Array:
        if jnp.issubdtype(declared, jnp.integer):
            return jnp.asarray(rng.integers(0, 2, shape), declared)
        values = rng.normal(size=shape) * 0.7
        if jnp.issubdtype(dtype, jnp.complexfloating):
            values = values + 0.7j * rng.normal(size=shape)
        return jnp.asarray(values, dtype)

    batch = jax.tree.leaves(inputs)[0].shape[0]
    step = jax.tree.map(lambda x: draw(x.shape, x.dtype), inputs)
    # `eval_shape` avoids compiling the random draws of `init`.
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), step, dtype))
    params = jax.tree.map(lambda p: draw(p.shape, p.dtype), shapes)
    if state is None:
        state = trees.map_sizes(lambda s: draw((batch, *s), dtype), cell.state_size)
    return Setup(
        cell=cell,
        params=params,
        xs=jax.tree.map(lambda x: draw((batch, TIME, *x.shape[1:]), x.dtype), inputs),
        lengths=jnp.asarray([(3 * b) % (TIME + 2) for b in range(batch)], jnp.int32),
        state=cell.start(params, state) if has_read_only(state) else state,
        dtype=dtype,
        key=key,
    )


def _check_state(cell: RNNCell, state: PyTree, batch: int) -> None:
    """Raises an error for an unsuitable state, which would look like a broken law.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If structures or shapes differ. Leaves without axes are accepted.
    """
    fix = "Pass a state like the result of `cell.zero_state`."
    check_structure("`state`", cell.state_size, trees.opaque(state), False, fix)
    named = trees.named_leaves("state", state, trees.is_tensor_array)
    sizes = trees.size_shapes(cell.state_size)
    for (name, leaf), size in zip(named, sizes, strict=True):
        if trees.is_tensor_array(leaf):
            continue
        check_instance(name, leaf, jax.Array | np.ndarray, "an array", fix)
        if leaf.ndim:
            check_shape(name, leaf, (batch, *size), fix=fix)


def check_cell(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> None:
    """Checks that a cell obeys all laws: the properties that `dynamic_rnn` relies on.

    `LAWS` lists the laws. On two CPU cores, the check takes ten to thirty seconds. In a
    terminal, a line shows the law that is being checked. Elsewhere, the logger "jaxrnn"
    reports each law at level INFO.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, given as arrays or as
            `jax.ShapeDtypeStruct`s, with a batch size of at least 4. Only shapes and
            dtypes are read; the cell runs on random values instead. Floats are drawn
            from a normal distribution and may be negative.
        dtype: The dtype of parameters, inputs and state, real or complex.
        key: A random key, for cells that draw random numbers.
        state: The initial state; None for a random state with the structure of
            `state_size`.

    Raises:
        AssertionError: If the cell breaks a law. The message contains the law's name
            and description.
        TypeError: If `cell` is not an unbound `RNNCell`, `inputs` contain anything
            except arrays or their shapes, or `dtype`, `key` or `state` has the wrong
            type.
        ValueError: If the batch has fewer than 4 rows, or `state` does not have the
            cell's sizes.
    """
    fix = ""
    if isinstance(cell, BoundCell):
        fix = "Pass the unbound `cell.cell`."
    elif isinstance(cell, list | tuple):
        fix = "Check each cell separately, or pass a `MultiRNNCell`."
    check_instance("cell", cell, RNNCell, "an unbound RNNCell", fix)
    fix = "For example, pass `jax.ShapeDtypeStruct((4, 3), 'float32')`."
    check_shaped("inputs", inputs, fix)
    batches = [leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape]
    if min(batches, default=0) < 4:
        got = describe_leaves(inputs)
        raise ValueError(f"`inputs` must have at least 4 rows, got {got}.")
    dtype = as_dtype(dtype)
    if key is not None:
        check_key(key)
    if state is not None and not has_read_only(state):
        _check_state(cell, state, batches[0])
    with error_note("Raised while creating parameters and data."):
        setup = make_setup(cell, inputs, dtype, key, state)
    try:
        for number, law in enumerate(LAWS, 1):
            _show(f"check_cell: law {number} of {len(LAWS)}, `{law.__name__}`")
            _check_law(law, setup)
    finally:
        _show("")


def _check_law(law: Callable[[Setup], None], setup: Setup) -> None:
    try:
        law(setup)
    except Exception as error:
        summary = (law.__doc__ or "").splitlines()[0]
        text = f"{setup.cell!r} breaks `{law.__name__}`. {summary}\n{error}"
        raise AssertionError(text) from error


def _show(text: str) -> None:
    """Replaces the last line in a terminal; elsewhere, logs the text."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        _log.info(text)
