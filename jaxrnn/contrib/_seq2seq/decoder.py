"""`Decoder`: what `dynamic_decode` runs."""

import abc
from typing import Any

from ..._base.typing import Array, PyTree


class Decoder(abc.ABC):
    """What `dynamic_decode` runs: a step, its first inputs, and what it emits.

    A subclass has `initialize`, `step` and the properties `batch_size`, `output_size`
    and `output_dtype`; the others have defaults.

    Source: `tf.contrib.seq2seq.Decoder`.
    """

    @property
    def batch_size(self) -> int:
        """The number of rows that are decoded."""
        raise NotImplementedError

    @property
    def output_size(self) -> Any:
        """The sizes of what a step emits, without the batch axis; a nest."""
        raise NotImplementedError

    @property
    def output_dtype(self) -> Any:
        """The dtypes of what a step emits, in the structure of `output_size`."""
        raise NotImplementedError

    @property
    def tracks_own_finished(self) -> bool:
        """Whether `finished` of a step replaces the flags before it.

        By default a finished row stays finished. A decoder that reorders its rows, as
        one of beams does, keeps its own flags.
        """
        return False

    @property
    def longest(self) -> int | None:
        """The largest number of steps if it is known, as that of given inputs is.

        Under jit it takes the place of `maximum_iterations`.
        """
        return None

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """The values before the first step: `(finished, inputs, state)`."""

    @abc.abstractmethod
    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        """One step: `(outputs, next_state, next_inputs, finished)`.

        Args:
            time: The number of the step, an int32 scalar.
            inputs: What `initialize` or the step before returned.
            state: What `initialize` or the step before returned.
            name: Accepted for compatibility with TensorFlow.
        """

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """What `dynamic_decode` returns: `(outputs, final_state)`, as they are.

        Args:
            outputs: What all steps emitted, each leaf `[time, batch, ...]`.
            final_state: The state after the last step.
            sequence_lengths: The number of steps until each row was finished.
        """
        del sequence_lengths
        return outputs, final_state
