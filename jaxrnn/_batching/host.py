"""Checks of what is read on the host: nothing traced, one time axis, one batch axis."""

from typing import Any

import jax
import numpy as np

from .._autodiff.jax_internals import Tracer
from .._base.errors import describe
from .._base.inputs import named_inputs
from .._base.lengths import as_lengths
from .._base.typing import ArrayLike, PyTree


def check_known(where: str, name: str, leaf: Any) -> None:
    """Raises TypeError for a traced array."""
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"{where}: `{name}` must be known, got traced {describe(leaf)}. Call "
            f"`{where}` outside of jit, grad and vmap, and pass the result in."
        )


def host_lengths(where: str, lengths: ArrayLike, batch_size: int) -> np.ndarray:
    """The lengths as int32 `[batch]` in NumPy, none negative; see `as_lengths`."""
    for leaf in jax.tree.leaves(lengths):
        check_known(where, "sequence_length", leaf)
    with jax.ensure_compile_time_eval():  # Works on constants inside of a trace, too.
        return np.asarray(as_lengths(where, lengths, batch_size))


def time_and_batch(
    where: str, inputs: PyTree, time_major: bool, fix: str = ""
) -> tuple[int, int]:
    """The time steps and batch size of a nest of arrays.

    Raises:
        ValueError: If there are no arrays, or they disagree in either.
    """
    (first, leaf), *rest = named_inputs(where, inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    for name, other in rest:
        if other.shape[:2] != leaf.shape[:2]:
            raise ValueError(
                f"{where}: all inputs must agree in time and batch, {axes}: `{first}` "
                f"is {describe(leaf)}, `{name}` is {describe(other)}. {fix}".rstrip()
            )
    return leaf.shape[:2] if time_major else leaf.shape[1::-1]
