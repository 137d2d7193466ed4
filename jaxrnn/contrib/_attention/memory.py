"""The memory of attention, and its keys, which are computed once a run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.errors import describe
from ..._base.inputs import as_array
from ..._base.lengths import as_lengths
from ..._base.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMemory:
    """A memory of an attention mechanism, as part of a state.

    Attributes:
        values: The entries of which contexts are sums, `[batch, memory_time, depth]`;
            zeros beyond the lengths.
        lengths: int32 `[batch]`, or `()` for all of it, as a state must not hold None.
        keys: What queries are compared to, `[batch, memory_time, num_units]`; `()`
            before a run has started.
    """

    values: Any
    lengths: Any = ()
    keys: Any = ()

    @property
    def valid(self) -> Array | None:
        """Bool `[batch, memory_time]`, which values there are; None for all."""
        if isinstance(self.lengths, tuple):
            return None
        return _valid(self.values, self.lengths)


def as_memory(where: str, name: str, memory: Any, lengths: Any) -> AttentionMemory:
    """The memory, with zeros in its padding.

    Args:
        where: The function that was called, for messages.
        name: The name of the argument.
        memory: Floating `[batch, memory_time, depth]`.
        lengths: Integers `[batch]`; None for all steps.

    Raises:
        ValueError: If a shape does not fit.
        TypeError: If a dtype does not.
    """
    memory = as_array(where, name, memory)
    if memory.ndim != 3 or not jnp.issubdtype(memory.dtype, jnp.floating):
        error = ValueError if memory.ndim != 3 else TypeError
        raise error(
            f"{where}: `{name}` must be floating [batch, memory_time, depth], got "
            f"{describe(memory)}. Outputs of an encoder are batch-major here."
        )
    lengths = as_lengths(where, lengths, memory.shape[0], "memory_sequence_length")
    if lengths is None:
        return AttentionMemory(memory)
    # A select: padding may hold NaN.
    valid = _valid(memory, lengths)[:, :, None]
    values = jnp.where(valid, memory, jnp.zeros((), memory.dtype))
    return AttentionMemory(values, lengths)


def _valid(values: Array, lengths: Array) -> Array:
    places = jnp.arange(values.shape[1], dtype=jnp.int32)
    return places[None, :] < lengths[:, None]
