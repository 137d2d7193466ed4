"""The state of an `AttentionWrapper`, which holds the memory."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.arguments import check_dtype, check_dtype_kind, check_shape
from ..._base.errors import InvalidType, InvalidValue, describe
from ..._base.inputs import as_array
from ..._base.lengths import as_lengths
from ..._base.serialization import serializable
from ..._base.trees import check_structure, is_tensor_array, named_leaves, size_shapes
from ..._base.typing import Array, Lengths, PyTree
from ..._loops import masking


@serializable
class AttentionWrapperState(NamedTuple):
    """The state of an `AttentionWrapper`; `cell.initial_state` creates one.

    With several mechanisms, `alignments`, `alignment_history`, `attention_state` and
    `memory` are tuples with one entry per mechanism.

    Attributes:
        cell_state: The state of the wrapped cell.
        attention: The attention of the previous step, `[batch, attention_size]`.
        time: The number of steps so far, an int32 scalar.
        alignments: The weights of the memory entries in the previous step,
            `[batch, memory_time]`.
        alignment_history: A TensorArray of the alignments of all steps; `()` if they
            are not collected.
        attention_state: The state of the mechanism, by default the alignments.
        memory: The memory, which also contains its keys once a run has started. The
            memory is read-only, so drivers neither mask nor reorder it.

    Source: `tf.contrib.seq2seq.AttentionWrapperState`, which has no memory.
    """

    cell_state: Any
    attention: Any
    time: Any
    alignments: Any
    alignment_history: Any
    attention_state: Any
    memory: Any = ()

    def map_mechanisms(self, fn: Callable[[Any], Any]) -> "AttentionWrapperState":
        """Applies `fn` to each field that holds data of the mechanisms."""
        return self._replace(
            alignments=fn(self.alignments),
            alignment_history=fn(self.alignment_history),
            attention_state=fn(self.attention_state),
            memory=fn(self.memory),
        )

    def clone(self, **fields: Any) -> "AttentionWrapperState":
        """A copy of the state with some fields replaced; shapes must stay the same.

        Raises:
            ValueError: If a field does not exist, or a structure or shape differs.
            TypeError: If a sequence has another type, e.g. a list instead of a tuple.
        """
        if unknown := fields.keys() - set(self._fields):
            known = ", ".join(self._fields)
            raise InvalidValue(
                f"fields must be among {known}, got {', '.join(sorted(unknown))}."
            )
        for name, new in fields.items():
            old = getattr(self, name)
            check_structure(f"`{name}`", old, new, strict=True)
            leaves = jax.tree.leaves(old, is_leaf=is_tensor_array)
            shapes = [None if is_tensor_array(x) else jnp.shape(x) for x in leaves]
            _check_shapes(name, new, shapes)
        return self._replace(**fields)


def _check_shapes(name: str, tree: PyTree, shapes: list[Any]) -> None:
    """Raises ValueError unless leaves have the given shapes; None allows any shape."""
    named = named_leaves(name, tree, is_tensor_array)
    for (full, leaf), shape in zip(named, shapes, strict=True):
        if shape is not None:
            check_shape(full, leaf, shape)


def check_is_state(state: Any) -> None:
    """Raises TypeError unless `state` is an `AttentionWrapperState` with a memory."""
    is_state = isinstance(state, AttentionWrapperState)
    if not is_state or not jax.tree.leaves(state.memory):
        raise InvalidType(
            "`state` must be an AttentionWrapperState with its "
            f"memory, got {describe(state)}. `cell.initial_state(memory)` creates one."
        )


def check_rows(state: AttentionWrapperState, inputs: Array, checks_dtype: bool) -> None:
    """Checks that state and inputs have equal batch sizes and, optionally, dtypes.

    Raises:
        ValueError: If the batch sizes differ. The memory may have fewer rows than the
            inputs if several beams share each row of the memory.
        TypeError: If `checks_dtype` is True and the dtypes differ.
    """
    attention = state.attention
    rows = inputs.shape[0]
    if checks_dtype and inputs.dtype != attention.dtype:
        raise InvalidType(
            f"`inputs` must have the dtype of the memory ({attention.dtype}), got "
            f"{describe(inputs)}."
        )
    memories = [
        memory.memory
        for memory in jax.tree.leaves(
            state.memory, is_leaf=lambda x: isinstance(x, AttentionMemory)
        )
    ]
    misfits = [memory for memory in memories if rows % max(1, len(memory))]
    if attention.shape[0] != rows or misfits:
        leaves = ", ".join(map(describe, (attention, *memories)))
        raise InvalidValue(
            f"`state` must have {rows} rows like the inputs, and its memory as many or "
            f"one row per group of beams, got attention and memory {leaves}."
        )


def check_cell_state(cell: Any, state: PyTree, rows: int) -> None:
    """Checks that `state` is a state of the cell with the given number of rows.

    Raises:
        ValueError: If the structure or a shape differs.
        TypeError: If a sequence has another type, e.g. a list instead of a tuple.
    """
    size = cell.state_size
    opaque = jax.tree.map(lambda _: 0, state)
    fix = "Pass a state of the wrapped cell."
    check_structure("`cell_state`", size, opaque, True, fix)
    # A scalar leaf, e.g. a step count, applies to all rows.
    shapes = [
        (rows, *shape) if jnp.ndim(leaf) else None
        for leaf, shape in zip(jax.tree.leaves(state), size_shapes(size), strict=True)
    ]
    _check_shapes("cell_state", state, shapes)


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

    memory: Any
    lengths: Any = ()
    keys: Any = ()
    own_values: Any = ()

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
        """Returns `[batch, memory_time, ...]` with zeros beyond the lengths."""
        valid = self.valid
        return x if valid is None else masking.zero_dead(valid, x)


def as_memory(
    name: str, memory: Any, lengths: Lengths | None, mechanism: Any, first: Array | None
) -> AttentionMemory:
    """Checks a memory and returns it with zeros in its padding.

    Args:
        name: The name of the argument.
        memory: Floating `[batch, memory_time, depth]`.
        lengths: Integers `[batch]`; None for all steps.
        mechanism: The mechanism, which sets the depth and optionally the dtype.
        first: The first of several memories, which all have the same batch size; None
            if this memory is the first.

    Raises:
        ValueError: If an array has the wrong shape.
        TypeError: If an array has the wrong dtype.
    """
    memory = as_array(name, memory)
    like = memory if first is None else first
    depth = mechanism.memory_depth
    shape = (*like.shape[:1], *memory.shape[1:2], depth)
    must = f"be [batch, memory_time, {depth}], with as many rows as `memory[0]`"
    fix = "Pass batch-major encoder outputs; the last axis is `memory_depth`."
    check_shape(name, memory, shape, must, fix)
    check_dtype_kind(name, memory, jnp.floating, "floating-point")
    dtype = mechanism.dtype or like.dtype
    must = f"have the dtype of the mechanism and of `memory[0]` ({dtype})"
    check_dtype(name, memory, dtype, must)
    lengths = as_lengths(lengths, len(memory), "memory_sequence_length")
    made = AttentionMemory(memory, () if lengths is None else lengths)
    return dataclasses.replace(made, memory=made.without_padding(memory))
