"""`BasicDecoder` and the base classes of the helpers that feed its cell."""

import abc
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import RNNCellLike, TensorShape

from ..._base.arguments import (
    check_function,
    check_functions,
    check_instance,
    check_is_cell,
)
from ..._base.cell_keys import cell_at_step
from ..._base.errors import InvalidValue
from ..._base.exporting import serializable
from ..._base.inputs import as_array, as_state, check_rows_of_state
from ..._base.trees import map_sizes
from ..._base.typing import Array, DType, PyTree, Shaped
from ..._drivers.first_step import call_start
from .dynamic_decode import Decoder


class Helper(abc.ABC):
    """Samples ids for a `BasicDecoder` and provides the inputs of its cell.

    A subclass defines `initialize`, `sample`, `next_inputs` and the attributes below;
    only `longest` has a default.

    Attributes:
        batch_size: The number of rows.
        sample_ids_shape: The shape of the sampled ids of one row.
        sample_ids_dtype: The dtype of the sampled ids.
        longest: The maximum number of steps if it is known, otherwise None; see
            `Decoder`.

    Source: `tf.contrib.seq2seq.Helper`.
    """

    if TYPE_CHECKING:
        # These properties are not abstract at run time, because a helper may set plain
        # attributes instead.
        batch_size = sample_ids_shape = sample_ids_dtype = property(lambda self: None)
    longest = property(lambda self: None)

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Returns the values before the first step: `(finished, inputs)`."""

    @abc.abstractmethod
    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Samples ids from the outputs of a step, `[batch, ...]`."""

    @abc.abstractmethod
    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """Returns the values after a step: `(finished, next_inputs, next_state)`."""


class CustomHelper(Helper):
    """A helper that is defined by functions.

    Args:
        initialize_fn: `initialize_fn() -> (finished, inputs)`, called before the first
            step.
        sample_fn: `sample_fn(time, outputs, state) -> sample_ids`, called with keyword
            arguments.
        next_inputs_fn: `next_inputs_fn(time, outputs, state, sample_ids) -> (finished,
            next_inputs, next_state)`, called with keyword arguments.
        sample_ids_shape: The shape of a row of `sample_ids`; None for a scalar.
        sample_ids_dtype: The dtype of `sample_ids`; None for int32.

    Raises:
        TypeError: If one of the first three arguments is not a function, or
            `sample_ids_shape` is not a sequence of integers.

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
            ValueError: If `initialize` has not been called.
        """
        if self._batch_size is None:
            raise InvalidValue(
                "`batch_size` is unknown before `initialize` is called. "
                "`dynamic_decode` calls `initialize` first."
            )
        return self._batch_size

    sample_ids_shape = property(lambda self: self._sample_ids_shape)
    sample_ids_dtype = property(lambda self: self._sample_ids_dtype)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree]:
        """Calls `initialize_fn`."""
        finished, inputs = self._initialize_fn()
        finished = as_array("finished", finished)
        self._batch_size = finished.size
        return finished, inputs

    def sample(
        self, time: Array, outputs: PyTree, state: PyTree, name: str | None = None
    ) -> Array:
        """Calls `sample_fn`."""
        return self._sample_fn(time=time, outputs=outputs, state=state)

    def next_inputs(
        self,
        time: Array,
        outputs: PyTree,
        state: PyTree,
        sample_ids: Array,
        name: str | None = None,
    ) -> tuple[Array, PyTree, PyTree]:
        """Calls `next_inputs_fn`."""
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
        end_fn: `end_fn(sample_ids)`, which returns a bool `[batch]`, True for each row
            that ends with its sample.
        next_inputs_fn: `next_inputs_fn(sample_ids) -> next_inputs`; None to feed the
            samples themselves.

    Raises:
        TypeError: If `sample_fn`, `end_fn` or `next_inputs_fn` is not a function, or
            `sample_shape` is not a sequence of integers.

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
        check_functions(sample_fn=sample_fn, end_fn=end_fn)
        if next_inputs_fn is not None:
            check_function("next_inputs_fn", next_inputs_fn)
        inputs = jax.tree.map(jnp.asarray, start_inputs)
        rows = jax.tree.leaves(inputs)[0].shape[0]

        def initialize() -> tuple[Array, PyTree]:
            return jnp.zeros(rows, bool), inputs

        def sample(time: Array, outputs: PyTree, state: PyTree) -> Array:
            return sample_fn(outputs)

        def follow(
            time: Array, outputs: PyTree, state: PyTree, sample_ids: Array
        ) -> tuple[Array, PyTree, PyTree]:
            finished = end_fn(sample_ids)
            inputs = (
                sample_ids if next_inputs_fn is None else next_inputs_fn(sample_ids)
            )
            return finished, inputs, state

        super().__init__(initialize, sample, follow, sample_shape, sample_dtype)
        self._batch_size = rows


@serializable
class BasicDecoderOutput(NamedTuple):
    """The outputs of a step of `BasicDecoder`.

    Attributes:
        rnn_output: The output of the `output_layer` or, without a layer, of the cell.
        sample_id: The samples of the helper, by default int32 ids `[batch]`.

    Source: `tf.contrib.seq2seq.BasicDecoderOutput`.
    """

    rnn_output: PyTree
    sample_id: PyTree


class BasicDecoder(Decoder):
    """Decodes with a cell whose inputs come from a helper.

    Args:
        cell: A bound cell (`cell.bind(params)`), or any object that implements the
            RNNCell protocol.
        helper: A `Helper`, which samples ids and provides the next inputs.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        output_layer: A function of the cell's output, `[batch, ...]`, applied before
            the helper samples; None for no layer.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `initial_state` contains None.

    Source: `tf.contrib.seq2seq.BasicDecoder`.
    """

    def __init__(
        self,
        cell: RNNCellLike,
        helper: Helper,
        initial_state: PyTree,
        output_layer: Callable[[PyTree], PyTree] | None = None,
    ) -> None:
        check_is_cell("cell", cell)
        fix = "For example, use TrainingHelper or GreedyEmbeddingHelper."
        check_instance("helper", helper, Helper, "a Helper", fix)
        if output_layer is not None:
            check_function("output_layer", output_layer)
        self._cell = cell
        self._helper = helper
        self._initial_state = as_state("initial_state", initial_state)
        self._output_layer = output_layer or unchanged

    batch_size = property(lambda self: self._helper.batch_size)
    longest = property(lambda self: self._helper.longest)

    @property
    def output_size(self) -> BasicDecoderOutput:
        """The sizes of outputs and ids."""
        return BasicDecoderOutput(
            self._rnn_output_size(), self._helper.sample_ids_shape
        )

    @property
    def output_dtype(self) -> BasicDecoderOutput:
        """The dtypes of outputs and ids; the cell's outputs have the state's dtype."""
        types = self._output_types
        sizes = self._rnn_output_size()
        if jax.tree.structure(types) == jax.tree.structure(sizes):
            dtypes = jax.tree.map(lambda x: x.dtype, types)
        else:  # The outputs of a subclass may differ from the layer's.
            dtype = first_float(self._initial_state).dtype
            dtypes = jax.tree.map(lambda _: dtype, sizes)
        return BasicDecoderOutput(dtypes, self._helper.sample_ids_dtype)

    def _rnn_output_size(self) -> PyTree:
        """The sizes of `rnn_output`; subclasses may override this method."""
        return jax.tree.map(lambda x: TensorShape(x.shape[1:]), self._output_types)

    @functools.cached_property
    def _output_types(self) -> PyTree:
        """The shapes and dtypes of the outputs of `output_layer`."""
        dtype = first_float(self._initial_state).dtype

        def of_rows(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.batch_size, *shape), dtype)

        outputs = map_sizes(of_rows, self._cell.output_size, "cell.output_size")
        return jax.eval_shape(self._output_layer, outputs)

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the helper's first inputs and the state that the cell starts from."""
        finished, inputs = self._helper.initialize()
        rows = self.batch_size  # Some helpers know it only now.
        must = f"have {rows} rows like the helper's inputs or `start_tokens`"
        check_rows_of_state(self._initial_state, rows, must)
        return finished, inputs, call_start(self._cell, self._initial_state)

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Runs the cell, then the `output_layer`, then the helper."""
        outputs, state = cell_at_step(self._cell, time)(inputs, state)
        outputs = self._output_layer(outputs)
        sample_ids = self._helper.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, next_state = self._helper.next_inputs(
            time=time, outputs=outputs, state=state, sample_ids=sample_ids
        )
        emit = BasicDecoderOutput(outputs, sample_ids)
        return emit, next_state, next_inputs, finished


def unchanged(outputs: PyTree) -> PyTree:
    """Returns the outputs, for a decoder without an output layer."""
    return outputs


def first_float(state: PyTree) -> Shaped:
    """The first floating-point leaf of a state; a float32 scalar by default."""
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
    return jax.ShapeDtypeStruct((), jnp.float32)
