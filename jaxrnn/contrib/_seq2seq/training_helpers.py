"""Helpers for training: they read given inputs, or sometimes what was sampled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.arguments import check_functions, check_time_major
from ..._base.cell_keys import check_key, key_of_device
from ..._base.errors import describe
from ..._base.inputs import as_array, as_state, check_same_size
from ..._base.lengths import as_lengths
from ..._base.math import concrete_or_none
from ..._base.trees import named_leaves
from ..._base.typing import Array, ArrayLike, Key, Lengths, PyTree
from ..._time import masking
from .embedding import Embedding, as_embedding, seeded
from .embedding_helpers import as_logits, draw_ids, most_likely
from .helper import IdHelper


class TrainingHelper(IdHelper):
    """Feeds given inputs; for training by teacher forcing.

    The ids that it samples are the most likely ones, `argmax` of the outputs.

    Args:
        inputs: A nest of `[batch, time, ...]` (`[time, batch, ...]` if `time_major`).
        sequence_length: Integers `[batch]`, the number of steps of each row, at most
            the number of steps of the inputs.
        time_major: Whether time is the first axis of the inputs.
        name: Accepted for compatibility with TensorFlow.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or a length exceeds the inputs.

    Source: `tf.contrib.seq2seq.TrainingHelper`.
    """

    def __init__(
        self,
        inputs: PyTree,
        sequence_length: Lengths,
        time_major: bool = False,
        name: str | None = None,
    ) -> None:
        where = type(self).__name__
        check_time_major(where, time_major)
        self._axis = 0 if time_major else 1
        self._inputs = _as_sequences(where, "inputs", inputs)
        shape = jax.tree.leaves(self._inputs)[0].shape
        self._longest = shape[self._axis]
        self._sequence_length = _as_lengths(
            where, sequence_length, shape[1 - self._axis], self._longest
        )

    @property
    def inputs(self) -> PyTree:
        """The inputs."""
        return self._inputs

    @property
    def sequence_length(self) -> Array:
        """The number of steps of each row."""
        return self._sequence_length

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return self._sequence_length.shape[0]

    @property
    def longest(self) -> int | None:
        """The number of steps of the inputs."""
        return self._longest

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Rows of length 0 are finished; the inputs are the first ones."""
        finished = self._sequence_length == 0
        return finished, masking.first_inputs(self._inputs, self._axis)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """The most likely ids."""
        return most_likely(type(self).__name__, outputs)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """The inputs at `time + 1`."""
        finished = time + 1 >= self._sequence_length
        return finished, _read(self._inputs, time + 1, self._axis), state


class ScheduledEmbeddingTrainingHelper(TrainingHelper):
    """Feeds given inputs, or the embedding of ids that are drawn from the outputs.

    Which of them is drawn for each row and step. The ids that it samples are -1 where
    it feeds given inputs.

    Args:
        inputs: `[batch, time, ...]` (`[time, batch, ...]` if `time_major`).
        sequence_length: As in `TrainingHelper`.
        embedding: The inputs for ids: a table `[vocab, ...]`, or a function of ids
            int32 `[batch]`, which is also called with id 0 for rows that do not use
            it.
        sampling_probability: The probability of feeding what was drawn, a number or
            `[batch]`, which may be traced. (TensorFlow's fails for `[batch]`.)
        time_major: Whether time is the first axis of the inputs.
        seed: Helpers with different seeds draw different ids from the same key.
        scheduling_seed: Helpers with different ones choose different rows and steps.
        name: Accepted for compatibility with TensorFlow.
        key: A random key. The numbers that are drawn at step t depend on it and on t.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or a length exceeds the inputs; in a step, if
            there are more logits than rows of the table.

    Source: `tf.contrib.seq2seq.ScheduledEmbeddingTrainingHelper`; arXiv:1506.03099.
    """

    def __init__(
        self,
        inputs: PyTree,
        sequence_length: Lengths,
        embedding: Embedding,
        sampling_probability: ArrayLike,
        time_major: bool = False,
        seed: int | None = None,
        scheduling_seed: int | None = None,
        name: str | None = None,
        *,
        key: Key,
    ) -> None:
        super().__init__(inputs, sequence_length, time_major, name)
        where = type(self).__name__
        self._embedding_fn = as_embedding(where, embedding)
        self._probability = _as_probability(
            where, sampling_probability, self.batch_size
        )
        check_key(where, key)
        ids_key, choice_key = jax.random.split(key)
        self._key = seeded(where, ids_key, "seed", seed)
        self._choice_key = seeded(where, choice_key, "scheduling_seed", scheduling_seed)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Ids drawn from the outputs; -1 where none are."""
        logits = as_logits(type(self).__name__, outputs, self._embedding_fn)
        chosen = _choose(self._choice_key, self._probability, time, logits)
        return jnp.where(chosen, draw_ids(self._key, logits, time), -1)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """The embedding of the ids; where there are none, the inputs at `time + 1`."""
        given = super().next_inputs(time, outputs, state, sample_ids)
        finished, base_inputs, state = given
        sampled = self._embedding_fn(jnp.maximum(sample_ids, 0))
        return finished, masking.choose(sample_ids > -1, sampled, base_inputs), state


class ScheduledOutputTrainingHelper(TrainingHelper):
    """Feeds given inputs, or the outputs of the step before.

    Which of them is drawn for each row and step; the ids that it samples, int32, are 1
    where it feeds outputs, else 0.

    Args:
        inputs: `[batch, time, ...]` (`[time, batch, ...]` if `time_major`).
        sequence_length: As in `TrainingHelper`.
        sampling_probability: The probability of feeding outputs, a number or `[batch]`,
            which may be traced. (TensorFlow's fails for `[batch]`.)
        time_major: Whether time is the first axis of the inputs.
        seed: Helpers with different seeds draw different numbers from the same key.
        next_inputs_fn: `next_inputs_fn(outputs) -> next_inputs`; None to feed the
            outputs themselves. It is called with the outputs of all rows.
        auxiliary_inputs: Like `inputs`, but for the last axis; what is fed has them
            concatenated to it, be it given inputs or outputs.
        name: Accepted for compatibility with TensorFlow.
        key: A random key. The numbers that are drawn at step t depend on it and on t.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, or a length exceeds the inputs.

    Source: `tf.contrib.seq2seq.ScheduledOutputTrainingHelper`; arXiv:1506.03099.
    """

    def __init__(
        self,
        inputs: PyTree,
        sequence_length: Lengths,
        sampling_probability: ArrayLike,
        time_major: bool = False,
        seed: int | None = None,
        next_inputs_fn: Callable[[PyTree], PyTree] | None = None,
        auxiliary_inputs: PyTree = None,
        name: str | None = None,
        *,
        key: Key,
    ) -> None:
        where = type(self).__name__
        if next_inputs_fn is not None:
            check_functions(where, next_inputs_fn=next_inputs_fn)
        self._next_inputs_fn = next_inputs_fn
        self._auxiliary_inputs = auxiliary_inputs
        if auxiliary_inputs is not None:
            self._auxiliary_inputs = _as_sequences(
                where, "auxiliary_inputs", auxiliary_inputs
            )
            inputs = _joined(_as_sequences(where, "inputs", inputs), auxiliary_inputs)
        super().__init__(inputs, sequence_length, time_major, name)
        self._probability = _as_probability(
            where, sampling_probability, self.batch_size
        )
        self._key = seeded(where, key, "seed", seed)

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """1 where the outputs are fed, else 0."""
        chosen = _choose(self._key, self._probability, time, outputs)
        return jnp.broadcast_to(chosen, (self.batch_size,)).astype(jnp.int32)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """The outputs where `sample_ids` is 1, else the inputs at `time + 1`."""
        given = super().next_inputs(time, outputs, state, sample_ids)
        finished, base_inputs, state = given
        make = self._next_inputs_fn
        fed = outputs if make is None else make(outputs)
        if self._auxiliary_inputs is not None:
            fed = _joined(fed, _read(self._auxiliary_inputs, time + 1, self._axis))
        return finished, masking.choose(sample_ids == 1, fed, base_inputs), state


def _as_sequences(where: str, name: str, inputs: Any) -> PyTree:
    """The inputs as arrays that agree in their first two axes.

    Raises:
        ValueError: If there are none, or shapes do not fit.
        TypeError: If a leaf is not an array.
    """
    inputs = as_state(where, name, inputs)
    named = list(named_leaves(name, inputs))
    for leaf_name, leaf in named:
        if leaf.ndim < 2:
            raise ValueError(
                f"{where}: `{leaf_name}` must have rank at least 2, [batch, time, ...] "
                f"or, with `time_major`, [time, batch, ...], got {describe(leaf)}."
            )
    if not named:
        raise ValueError(f"{where}: `{name}` must hold at least one array, got none.")
    check_same_size(where, named, slice(2), "Batch size and time", "[batch, time, ...]")
    return inputs


def _as_lengths(where: str, sequence_length: Any, batch: int, time: Any) -> Array:
    lengths = as_lengths(where, sequence_length, batch)
    if lengths is None:
        raise ValueError(
            f"{where}: `sequence_length` must be integers [batch], got None. "
            f"`np.full({batch}, {time})` is for whole sequences."
        )
    known = concrete_or_none(lengths)
    longest = 0 if known is None else known.max(initial=0)
    if longest > time:
        raise ValueError(
            f"{where}: `sequence_length` must be at most {time}, the number of steps "
            f"of the inputs, got {longest}. `time_major` says which axis is time."
        )
    return jnp.minimum(lengths, time)


def _as_probability(where: str, probability: Any, batch: int) -> Array:
    array = as_array(where, "sampling_probability", probability)
    if array.shape not in ((), (batch,)):
        raise ValueError(
            f"{where}: `sampling_probability` must be a number or [{batch}], one for "
            f"each row, got {describe(array)}."
        )
    return array


def _choose(key: Key, probability: Array, time: Array, outputs: PyTree) -> Array:
    """A bool `[batch]`, each True with the probability."""
    batch = jax.tree.leaves(outputs)[0].shape[:1]
    key = jax.random.fold_in(key_of_device(key, outputs), time)
    uniform = jax.random.uniform(key, batch, jnp.float32)
    return uniform < jnp.broadcast_to(probability, batch).astype(jnp.float32)


def _read(inputs: PyTree, time: Array, axis: int) -> PyTree:
    """The inputs of a step; the last one beyond the end, where all is finished."""

    def read(x: Array) -> Array:
        if not x.shape[axis]:
            return masking.first_inputs(x, axis)
        return jax.lax.dynamic_index_in_dim(x, time, axis, keepdims=False)

    return jax.tree.map(read, inputs)


def _joined(tree: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), tree, other)
