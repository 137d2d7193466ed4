"""`check_cell`, which checks a cell against all laws, on random data."""

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe, noting
from .._base.trees import map_sizes
from .._base.typing import Array, DType, Key, PyTree, Shaped
from .._cells.base import RNNCell
from ._laws import LAWS
from ._oracle import TIME, Setup


def make_setup(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> Setup:
    """The cell with random parameters, inputs, lengths and initial state.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, arrays or
            `jax.ShapeDtypeStruct`. Floating leaves get the dtype `dtype`; integers are
            0 or 1. The batch should be at least 4.
        dtype: The dtype of parameters, inputs and state.
        key: The random key of the run, for cells that draw random numbers.
        state: The initial state; None for a random one of the structure of
            `state_size`.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...], declared: DType) -> Array:
        if jnp.issubdtype(declared, jnp.integer):
            return jnp.asarray(rng.integers(0, 2, shape), declared)
        return jnp.asarray(rng.normal(size=shape) * 0.7, dtype)

    batch = jax.tree.leaves(inputs)[0].shape[0]
    step = jax.tree.map(lambda x: draw(x.shape, x.dtype), inputs)
    params = cell.init(jax.random.key(0), step, dtype)
    return Setup(
        cell=cell,
        params=jax.tree.map(lambda p: draw(p.shape, p.dtype), params),
        xs=jax.tree.map(lambda x: draw((batch, TIME, *x.shape[1:]), x.dtype), inputs),
        lengths=jnp.asarray([(3 * b) % (TIME + 2) for b in range(batch)], jnp.int32),
        state=map_sizes(lambda s: draw((batch, *s), dtype), cell.state_size)
        if state is None
        else state,
        dtype=dtype,
        key=key,
    )


def check_cell(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> None:
    """Checks a cell against every law of `LAWS`, in ten to thirty seconds.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, arrays or
            `jax.ShapeDtypeStruct`; a batch of at least 4.
        dtype: The dtype to run in.
        key: A random key, for cells that draw random numbers.
        state: The initial state; None for a random one of the structure of
            `state_size`.

    Raises:
        AssertionError: If the cell breaks a law; the message has the law's name and
            what it requires.
        TypeError: If `cell` is not an unbound `RNNCell`.
        ValueError: If the batch has fewer than 4 rows.
    """
    if not isinstance(cell, RNNCell):
        raise TypeError(
            f"check_cell: `cell` must be an RNNCell, got {describe(cell)}. Give it "
            "unbound: its `init` makes the parameters."
        )
    batches = [leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape]
    if min(batches, default=0) < 4:
        raise ValueError(
            "check_cell: `inputs` must be arrays [batch, ...] or their shapes, with a "
            f"batch of at least 4, got {batches}."
        )
    with noting("check_cell: raised while parameters and data were made."):
        setup = make_setup(cell, inputs, dtype, key, state)
    for law in LAWS:
        try:
            law(setup)
        except Exception as error:
            summary = (law.__doc__ or "").splitlines()[0]
            raise AssertionError(
                f"{cell!r} breaks `{law.__name__}`. {summary}\n{error}"
            ) from error
