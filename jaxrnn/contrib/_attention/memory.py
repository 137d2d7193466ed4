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
        memory: `[batch, memory_time, memory_depth]`, zeros beyond the lengths.
        lengths: int32 `[batch]`, or `()` for all of it, as a state must not hold None.
        keys: What queries are compared to, `[batch, memory_time, num_units]`; `()`
            before a run has started.
        own_values: What a `custom_key_value_fn` makes contexts of, `[batch,
            memory_time, depth]`; `()` for the memory.
    """

    memory: Any
    lengths: Any = ()
    keys: Any = ()
    own_values: Any = ()

    @property
    def values(self) -> Array:
        """What contexts are made of."""
        return self.memory if isinstance(self.own_values, tuple) else self.own_values

    @property
    def valid(self) -> Array | None:
        """Bool `[batch, memory_time]`, which values there are; None for all."""
        if isinstance(self.lengths, tuple):
            return None
        places = jnp.arange(self.memory.shape[1], dtype=jnp.int32)
        return places[None, :] < self.lengths[:, None]

    def without_padding(self, x: Array) -> Array:
        """The array `[batch, memory_time, ...]` with zeros beyond the lengths."""
        valid = self.valid
        if valid is None:
            return x
        # A select: padding may hold NaN.
        valid = jnp.expand_dims(valid, range(2, x.ndim))
        return jnp.where(valid, x, jnp.zeros((), x.dtype))


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
    made = AttentionMemory(memory, () if lengths is None else lengths)
    return dataclasses.replace(made, memory=made.without_padding(memory))
