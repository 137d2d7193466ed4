"""The memory that attention reads, as part of a state."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import extend
from jaxrnn.typing import Array, ArrayLike, Lengths


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMemory:
    """The memory of an attention mechanism, as part of a state.

    Attributes:
        memory: `[batch, memory_time, memory_depth]`, zeros beyond the lengths.
        lengths: int32 `[batch]`; `()` for the whole memory, because a state must not
            hold None.
        keys: The keys, `[batch, memory_time, num_units]`; `()` before a run starts.
        own_values: The values that `custom_key_value_fn` returned,
            `[batch, memory_time, depth]`; `()` to use the memory.
    """

    memory: Array
    lengths: Array | tuple[()] = ()
    keys: Array | tuple[()] = ()
    own_values: Array | tuple[()] = ()

    @property
    def values(self) -> Array:
        """The values whose weighted sums are the contexts."""
        return self.memory if isinstance(self.own_values, tuple) else self.own_values

    @property
    def valid(self) -> Array | None:
        """Mask `[batch, memory_time]`, True within lengths; None without lengths."""
        if isinstance(self.lengths, tuple):
            return None
        places = jnp.arange(self.memory.shape[1], dtype=jnp.int32)
        return places[None, :] < self.lengths[:, None]

    def without_padding(self, x: Array) -> Array:
        """Returns x, `[batch, memory_time, ...]`, with zeros beyond the lengths."""
        if self.valid is None:
            return x
        valid = jnp.expand_dims(self.valid, tuple(range(2, x.ndim)))
        return jnp.where(valid, x, jnp.zeros((), x.dtype))


def as_memories(
    mechanisms: Sequence[Any],
    memories: Sequence[ArrayLike],
    lengths: Sequence[Lengths | None] | None,
) -> list[AttentionMemory]:
    """Checks the memories of all mechanisms; returns them with zeros in their padding.

    Args:
        mechanisms: The mechanisms, which set the depths and optionally the dtype.
        memories: For each mechanism, floating `[batch, memory_time, depth]`.
        lengths: For each mechanism, integers `[batch]`, or None for the whole memory.
            If `lengths` itself is None, no memory has padding.

    Raises:
        ValueError: If an array has the wrong shape, or the number of memories or
            lengths differs from the number of mechanisms.
        TypeError: If an array has the wrong dtype.
    """
    count = len(mechanisms)
    lengths = [None] * count if lengths is None else lengths
    must = f"be a tuple with {count} entries, one per mechanism"
    given = {"memory": memories, "memory_sequence_length": lengths}
    for name, entries in given.items():
        got = entries if hasattr(entries, "shape") else len(entries)
        extend.expect(len(entries) == count, name, must, got)
    made: list[AttentionMemory] = []
    for i, mechanism in enumerate(mechanisms):
        name = f"memory[{i}]" if count > 1 else "memory"
        memory = extend.as_arrays(name, memories[i])
        like = made[0].memory if made else memory
        _check_memory(name, memory, mechanism, like)
        name = name.replace("memory", "memory_sequence_length")
        own_lengths = extend.as_lengths(lengths[i], len(memory), name)
        one = AttentionMemory(memory, () if own_lengths is None else own_lengths)
        made.append(dataclasses.replace(one, memory=one.without_padding(memory)))
    return made


def _check_memory(name: str, memory: Array, mechanism: Any, like: Array) -> None:
    """Checks that a memory fits its mechanism and `like`, the first memory."""
    depth = mechanism.memory_depth
    fits = memory.shape == (*like.shape[:1], *memory.shape[1:2], depth)
    rows = "batch" if like is memory else like.shape[0]
    must = f"be [{rows}, memory_time, {depth}]"
    fix = "The last axis must have size `memory_depth`"
    fix += "." if like is memory else ", and the rows must match `memory[0]`."
    extend.expect(fits, name, must, memory, fix)
    is_floating = jnp.issubdtype(memory.dtype, jnp.floating)
    extend.expect(is_floating, name, "be floating-point", memory, error=TypeError)
    dtype = mechanism.dtype or like.dtype
    owner = "`memory[0]`" if mechanism.dtype is None else "the mechanism"
    must = f"have the dtype of {owner} ({dtype})"
    extend.expect(memory.dtype == dtype, name, must, memory, error=TypeError)
