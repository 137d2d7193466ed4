"""`Helper`: what a `BasicDecoder` feeds to its cell; and those made of functions."""

import abc
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from jaxrnn import TensorShape

from ..._base.arguments import check_functions
from ..._base.inputs import as_array
from ..._base.typing import Array, DType, PyTree
from .._fields import check_given_functions


class Helper(abc.ABC):
    """What a `BasicDecoder` feeds to its cell: ids are sampled, inputs follow.

    Source: `tf.contrib.seq2seq.Helper`.
    """

    @property
    @abc.abstractmethod
    def batch_size(self) -> int:
        """The number of rows."""

    @property
    @abc.abstractmethod
    def sample_ids_shape(self) -> TensorShape:
        """The shape of what `sample` returns for a row."""

    @property
    @abc.abstractmethod
    def sample_ids_dtype(self) -> DType:
        """The dtype of what `sample` returns."""

    @property
    def longest(self) -> int | None:
        """The largest number of steps if it is known; see `Decoder.longest`."""
        return None

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """The values before the first step: `(finished, inputs)`."""

    @abc.abstractmethod
    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """The ids for the outputs of a step, `[batch, ...]`."""

    @abc.abstractmethod
    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """What follows a step: `(finished, next_inputs, next_state)`."""


class CustomHelper(Helper):
    """A helper made of functions.

    Args:
        initialize_fn: `initialize_fn() -> (finished, inputs)`, before the first step.
        sample_fn: `sample_fn(time, outputs, state) -> sample_ids`; called by name.
        next_inputs_fn: `next_inputs_fn(time, outputs, state, sample_ids) -> (finished,
            next_inputs, next_state)`; called by name.
        sample_ids_shape: The shape of a row of `sample_ids`; None for a scalar.
        sample_ids_dtype: The dtype of `sample_ids`; None for int32.

    Raises:
        TypeError: If one of the first three is not a function, or the shape is no
            sequence of integers.

    Source: `tf.contrib.seq2seq.CustomHelper`.
    """

    def __init__(
        self,
        initialize_fn: Callable[[], tuple[Array, PyTree]],
        sample_fn: Callable[..., Array],
        next_inputs_fn: Callable[..., tuple[Array, PyTree, PyTree]],
        sample_ids_shape: Iterable[int] | None = None,
        sample_ids_dtype: DType | None = None,
    ) -> None:
        check_functions(
            type(self).__name__,
            initialize_fn=initialize_fn,
            sample_fn=sample_fn,
            next_inputs_fn=next_inputs_fn,
        )
        self._initialize_fn = initialize_fn
        self._sample_fn = sample_fn
        self._next_inputs_fn = next_inputs_fn
        self._batch_size: int | None = None
        self._sample_ids_shape = TensorShape(sample_ids_shape or [])
        self._sample_ids_dtype = sample_ids_dtype or jnp.int32

    @property
    def batch_size(self) -> int:
        """The number of rows, which is known after `initialize`.

        Raises:
            ValueError: If it is not known yet.
        """
        if self._batch_size is None:
            raise ValueError(
                "CustomHelper: `batch_size` is known only after `initialize`, got "
                "none before it. `dynamic_decode` calls that first."
            )
        return self._batch_size

    @property
    def sample_ids_shape(self) -> TensorShape:
        """The shape of a row of `sample_ids`."""
        return self._sample_ids_shape

    @property
    def sample_ids_dtype(self) -> DType:
        """The dtype of `sample_ids`."""
        return self._sample_ids_dtype

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """What `initialize_fn` returns."""
        finished, inputs = self._initialize_fn()
        finished = as_array("CustomHelper", "finished", finished)
        self._batch_size = finished.size
        return finished, inputs

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """What `sample_fn` returns."""
        return self._sample_fn(time=time, outputs=outputs, state=state)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """What `next_inputs_fn` returns."""
        return self._next_inputs_fn(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )


class InferenceHelper(CustomHelper):
    """Feeds back samples that a function draws from the outputs.

    Args:
        sample_fn: `sample_fn(outputs) -> sample_ids`.
        sample_shape: The shape of a row of `sample_ids`.
        sample_dtype: The dtype of `sample_ids`.
        start_inputs: The first inputs, a nest of `[batch, ...]`.
        end_fn: `end_fn(sample_ids)`, bool `[batch]`: which rows end with them.
        next_inputs_fn: `next_inputs_fn(sample_ids) -> next_inputs`; None to feed the
            samples themselves.

    Raises:
        TypeError: If a function is none, or the shape is no sequence of integers.

    Source: `tf.contrib.seq2seq.InferenceHelper`.
    """

    def __init__(
        self,
        sample_fn: Callable[[PyTree], Array],
        sample_shape: Iterable[int],
        sample_dtype: DType,
        start_inputs: PyTree,
        end_fn: Callable[[Array], Array],
        next_inputs_fn: Callable[[Array], PyTree] | None = None,
    ) -> None:
        where = type(self).__name__
        check_functions(where, sample_fn=sample_fn, end_fn=end_fn)
        check_given_functions(where, next_inputs_fn=next_inputs_fn)
        make = next_inputs_fn or (lambda sample_ids: sample_ids)
        inputs = jax.tree.map(jnp.asarray, start_inputs)
        rows = jax.tree.leaves(inputs)[0].shape[0]
        super().__init__(
            lambda: (jnp.zeros(rows, bool), inputs),
            lambda time, outputs, state: sample_fn(outputs),
            lambda time, outputs, state, sample_ids: (
                end_fn(sample_ids),
                make(sample_ids),
                state,
            ),
            sample_shape,
            sample_dtype,
        )
        self._batch_size = rows
