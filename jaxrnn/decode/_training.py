"""Helpers that feed a `BasicDecoder` with given inputs in training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import as_bool
from .._base.cell_keys import check_key
from .._base.errors import expect
from .._base.inputs import as_arrays, check_like
from .._base.math import concrete_or_none
from .._base.typing import Array, ArrayLike, Key, Lengths, PyTree
from .._run import masking
from .._run.arguments import as_lengths
from .._run.masking import Steps
from . import _ids
from ._basic import CustomHelper
from ._decoder import as_function


class TrainingHelper(CustomHelper):
    """Feeds given inputs to the cell; for training with teacher forcing.

    The sampled ids, `[batch]`, are the `argmax` of the outputs, and are not fed to the
    cell.

    Args:
        inputs: A nest of arrays `[batch, time, ...]` (`[time, batch, ...]` if
            `time_major`).
        sequence_length: Integers `[batch]`, the number of steps of each row, which must
            not exceed the number of steps of the inputs.
        time_major: Whether time is the first axis of the inputs.
        name: Accepted for compatibility with TensorFlow.

    Attributes:
        inputs: The inputs.
        sequence_length: The number of steps of each row, int32 `[batch]`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of the inputs and lengths do not match, or a length
            exceeds the number of steps.

    Source: `tf.contrib.seq2seq.TrainingHelper`.
    """

    def __init__(
        self,
        inputs: PyTree,
        sequence_length: Lengths,
        time_major: bool = False,
        name: str | None = None,
    ) -> None:
        axis = 0 if as_bool("time_major", time_major) else 1
        self.inputs = _as_sequences("inputs", inputs)
        shape = jax.tree.leaves(self.inputs)[0].shape
        rows = shape[1 - axis]
        time = shape[axis]
        self.sequence_length = _as_lengths(sequence_length, rows, time)
        self._steps = Steps(time=time, axis=axis)
        super().__init__(self._first, self._sampled, self._next)
        self._batch_size = rows

    longest = property(lambda self: self._steps.time)

    def _first(self) -> tuple[Array, PyTree]:
        """Returns which rows have length 0, and the first inputs."""
        return self.sequence_length == 0, self._read(self.inputs, jnp.int32(0))

    def _sampled(self, time: Array, outputs: PyTree, state: PyTree) -> Array:
        """The most likely ids."""
        return _ids.most_likely(_ids.as_logits(outputs, (self.batch_size,)))

    def _next(
        self, time: Array, outputs: PyTree, state: PyTree, sample_ids: Array
    ) -> tuple[Array, PyTree, PyTree]:
        given = self._read(self.inputs, time + 1)
        fed = self._fed(time, outputs, sample_ids, given)
        return time + 1 >= self.sequence_length, fed, state

    def _fed(self, time: Array, outputs: PyTree, ids: Array, given: PyTree) -> PyTree:
        """The next inputs; by default the inputs given at `time + 1`."""
        return given

    def _read(self, inputs: PyTree, time: Array) -> PyTree:
        """Reads the inputs of a step; past the end, reads the last inputs again."""
        axis = self._steps.axis
        if not self._steps.time:
            return jax.tree.map(lambda x: jnp.sum(x, axis, dtype=x.dtype), inputs)
        last = jnp.asarray(self._steps.time - 1, jnp.int32)
        return self._steps.read(inputs, jnp.minimum(time, last))


class ScheduledEmbeddingTrainingHelper(TrainingHelper):
    """Feeds either given inputs or the embeddings of ids drawn from the outputs.

    The choice is random for each row and step. The sampled ids are -1 where the helper
    feeds given inputs.

    Args:
        inputs: As in `TrainingHelper`, with the structure that `embedding` returns.
        sequence_length: See `TrainingHelper`.
        embedding: Maps ids to inputs: a table `[vocab, ...]`, or a function of int32
            ids `[batch]`. For rows that get given inputs, the function is called with
            id 0.
        sampling_probability: The probability of feeding the embedding of a drawn id, a
            number or an array `[batch]`, which may be traced. TensorFlow does not
            support an array.
        time_major: Whether time is the first axis of the inputs.
        seed: Helpers with different seeds draw different ids from the same key.
        scheduling_seed: Helpers with different scheduling seeds choose different rows
            and steps.
        name: Accepted for compatibility with TensorFlow.
        key: A random key. The numbers drawn at step t depend on the key and on t.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of the inputs and lengths do not match, or a length
            exceeds the number of steps. In a step, also if the number of logits exceeds
            the number of rows in the table.

    Source: `tf.contrib.seq2seq.ScheduledEmbeddingTrainingHelper`; arXiv:1506.03099.
    """

    def __init__(
        self,
        inputs: PyTree,
        sequence_length: Lengths,
        embedding: _ids.Embedding,
        sampling_probability: ArrayLike,
        time_major: bool = False,
        seed: int | None = None,
        scheduling_seed: int | None = None,
        name: str | None = None,
        *,
        key: Key,
    ) -> None:
        super().__init__(inputs, sequence_length, time_major, name)
        self._embed = _ids.as_embed(embedding)
        check_key(key)
        ids_key, choice_key = jax.random.split(key)
        choice_key = _ids.seeded(choice_key, "scheduling_seed", scheduling_seed)
        self._key = _ids.seeded(ids_key, "seed", seed)
        self._choose = _schedule(sampling_probability, self.batch_size, choice_key)

    def _sampled(self, time: Array, outputs: PyTree, state: PyTree) -> Array:
        """Ids drawn from the outputs; -1 where given inputs are fed."""
        logits = _ids.as_logits(outputs, (self.batch_size,), self._embed)
        drawn = _ids.draw(logits, time, self._key)
        return jnp.where(self._choose(time, logits), drawn, -1)

    def _fed(self, time: Array, outputs: PyTree, ids: Array, given: PyTree) -> PyTree:
        """The embedding of the ids; the given inputs where the id is -1."""
        fed = self._embed(jnp.maximum(ids, 0))
        return _selected("embedding(ids)", ids > -1, fed, given)


class ScheduledOutputTrainingHelper(TrainingHelper):
    """Feeds either given inputs or the outputs of the previous step.

    The choice is random for each row and step. The sampled ids (int32) are 1 where the
    helper feeds outputs and 0 elsewhere.

    Args:
        inputs: As in `TrainingHelper`, with the structure of the outputs, or of the
            result of `next_inputs_fn` if it is given.
        sequence_length: See `TrainingHelper`.
        sampling_probability: The probability of feeding outputs, a number or an array
            `[batch]`, which may be traced. TensorFlow does not support an array.
        time_major: Whether time is the first axis of the inputs.
        seed: Helpers with different seeds draw different numbers from the same key.
        next_inputs_fn: `next_inputs_fn(outputs) -> next_inputs`, called with the
            outputs of all rows. By default, the helper feeds the outputs themselves.
        auxiliary_inputs: Further inputs, e.g. a context, which are concatenated to the
            fed inputs or outputs. Their shapes may differ from `inputs` only in the
            last axis.
        name: Accepted for compatibility with TensorFlow.
        key: A random key. The numbers drawn at step t depend on the key and on t.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of the inputs and lengths do not match, or a length
            exceeds the number of steps.

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
        self._make_inputs = as_function("next_inputs_fn", next_inputs_fn)
        self._name_of_fed = "next_inputs_fn(outputs)" if next_inputs_fn else "outputs"
        super().__init__(inputs, sequence_length, time_major, name)
        self._auxiliary: PyTree = None
        if auxiliary_inputs is not None:
            self._auxiliary = _as_sequences("auxiliary_inputs", auxiliary_inputs)
            self.inputs = _joined(self.inputs, self._auxiliary)
        key = _ids.seeded(key, "seed", seed)
        self._choose = _schedule(sampling_probability, self.batch_size, key)

    def _sampled(self, time: Array, outputs: PyTree, state: PyTree) -> Array:
        """1 where the outputs are fed, 0 elsewhere."""
        return self._choose(time, outputs).astype(jnp.int32)

    def _fed(self, time: Array, outputs: PyTree, ids: Array, given: PyTree) -> PyTree:
        """Inputs made from the outputs where the id is 1; given inputs elsewhere."""
        fed = self._make_inputs(outputs)
        if self._auxiliary is not None:
            fed = _joined(fed, self._read(self._auxiliary, time + 1))
        return _selected(self._name_of_fed, ids == 1, fed, given)


def _selected(name: str, mask: Array, fed: PyTree, given: PyTree) -> PyTree:
    """Selects `fed` where the mask is True, and the given inputs elsewhere.

    Raises:
        ValueError: If the structures or shapes of the two nests differ.
        TypeError: If a sequence type differs.
    """
    fix = "The helper feeds this value in place of one step of `inputs`."
    fed = as_arrays(name, fed)
    check_like(name, fed, given, any_dtype=True, fix=fix)
    return masking.select(mask, fed, given)


def _as_sequences(name: str, inputs: PyTree) -> PyTree:
    """Converts inputs to arrays, whose first two sizes must agree.

    Raises:
        ValueError: If there are no arrays, if an array has fewer than two axes, or if
            arrays differ in the sizes of these axes.
        TypeError: If a leaf is not an array.
    """
    inputs = as_arrays(name, inputs)
    shapes = [leaf.shape[:2] for leaf in jax.tree.leaves(inputs)]
    fits = shapes and len(shapes[0]) == 2 and len(set(shapes)) == 1
    must = "hold arrays [batch, time, ...] or, with `time_major`, [time, batch, ...]"
    fix = "The first two sizes of all arrays must agree."
    expect(fits, name, must, inputs, fix)
    return inputs


def _as_lengths(sequence_length: Lengths, batch: int, time: Any) -> Array:
    name = "sequence_length"
    fix = f"To run all steps, pass `np.full({batch}, {time})`."
    expect(sequence_length is not None, name, "be integers [batch]", None, fix)
    lengths: Any = as_lengths(sequence_length, batch)
    known = concrete_or_none(lengths)
    longest = 0 if known is None else known.max(initial=0)
    must = f"not exceed the number of steps of the inputs ({time})"
    expect(longest <= time, name, must, int(longest))
    return jnp.minimum(lengths, time)


def _schedule(
    probability: ArrayLike, rows: int, key: Key
) -> Callable[[Array, PyTree], Array]:
    """Returns `choose(time, outputs)`, a random bool `[rows]`."""
    array = as_arrays("sampling_probability", probability)
    must = f"be a number or an array [{rows}], one number per row"
    fits = array.shape in ((), (rows,))
    expect(fits, "sampling_probability", must, array)
    bound = jnp.broadcast_to(array, (rows,)).astype(jnp.float32)
    return lambda time, outputs: _ids.uniform(key, outputs, rows, time) < bound


def _joined(tree: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), tree, other)
