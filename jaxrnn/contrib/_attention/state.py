"""The state of an `AttentionWrapper`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.errors import describe
from ..._base.serialization import serializable
from ..._base.trees import named_leaves
from ..._tensor_array.tensor_array import is_tensor_array


@serializable
class AttentionWrapperState(NamedTuple):
    """The state of an `AttentionWrapper`; `initial_state` of the cell makes one.

    With several mechanisms `alignments`, `alignment_history`, `attention_state` and
    `memory` are tuples with an entry for each.

    Attributes:
        cell_state: The state of the wrapped cell.
        attention: The attention of the step before, `[batch, attention_size]`.
        time: The number of steps so far, an int32 scalar.
        alignments: The weights of the memory in the step before, `[batch,
            memory_time]`.
        alignment_history: A TensorArray of the alignments of all steps, or `()`.
        attention_state: What the mechanism carries: the alignments.
        memory: The memory, with its keys once a run has started. It is read-only:
            drivers neither mask nor reorder it.

    Source: `tf.contrib.seq2seq.AttentionWrapperState`, which has no memory.
    """

    cell_state: Any
    attention: Any
    time: Any
    alignments: Any
    alignment_history: Any
    attention_state: Any
    memory: Any = ()

    def clone(self, **fields: Any) -> "AttentionWrapperState":
        """The state with other fields, whose arrays keep their shapes.

        Raises:
            ValueError: If there is no such field, or a structure or shape differs.
        """
        where = "AttentionWrapperState.clone"
        if unknown := fields.keys() - set(self._fields):
            raise ValueError(
                f"{where}: the fields are {', '.join(self._fields)}, got "
                f"{', '.join(sorted(unknown))}."
            )
        for name, new in fields.items():
            _check_like(where, name, getattr(self, name), new)
        return self._replace(**fields)


def _check_like(where: str, name: str, old: Any, new: Any) -> None:
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise ValueError(
            f"{where}: `{name}` must have the structure {jax.tree.structure(old)}, got "
            f"{jax.tree.structure(new)}."
        )
    pairs = zip(
        named_leaves(name, old, is_tensor_array),
        jax.tree.leaves(new, is_leaf=is_tensor_array),
        strict=True,
    )
    for (leaf_name, leaf), other in pairs:
        if not is_tensor_array(leaf) and jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{where}: `{leaf_name}` must have the shape of {describe(leaf)}, got "
                f"{describe(other)}."
            )
