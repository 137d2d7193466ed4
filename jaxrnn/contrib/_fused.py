"""Cells that run whole time-major sequences."""

import abc
import dataclasses
from typing import Any

import jax

from jaxrnn import LSTMStateTuple, RNNCell, dynamic_rnn, static_rnn

from .._base.arguments import as_scope, check_instance
from .._base.cell_keys import check_key
from .._base.errors import InvalidValue, describe, error_note
from .._base.inputs import as_sequences, as_steps
from .._base.lengths import lengths_for
from .._base.math import in_native_order
from .._base.trees import named_leaves
from .._base.typing import DType, Key, Lengths, Params, PyTree, Shaped
from .._cells import fields
from .._cells.base import check_rnn_cell
from .._cells.hyperparameters import Hyperparameters
from .._drivers.static_rnn import stacked, unstacked
from .._loops.masking import reverse_sequence
from ._core_cells import LSTMBlockCell, as_bound


@fields.dataclass
class FusedRNNCell(Hyperparameters, abc.ABC):
    """A cell that runs whole time-major sequences.

    A fused cell holds hyperparameters but no arrays. Like an `RNNCell`, it is hashable
    and must be bound to its parameters before it is called.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import contrib
        >>> cell, x = contrib.LSTMBlockFusedCell(5), jnp.ones((3, 4, 2), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), x))
        >>> outputs, state = bound(x, dtype=jnp.float32)
        >>> outputs.shape, state.h.shape
        ((3, 4, 5), (4, 5))

    Source: `tf.contrib.rnn.FusedRNNCell`.
    """

    takes_sequences = True

    @abc.abstractmethod
    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters.

        Args:
            key: A random key.
            inputs: `[time, batch, depth]`, a nest of such arrays or a list of steps.
                Only shapes and dtypes are read, so `jax.ShapeDtypeStruct`s are
                accepted.
            dtype: The dtype of the parameters; by default the cell's `dtype`, or the
                dtype of the inputs if the cell has none.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `inputs` are a single step.
        """

    @abc.abstractmethod
    def apply(
        self,
        params: Params,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        key: Key | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps as a pure function.

        Args:
            params: The parameters, as returned by `init`.
            inputs: `[time, batch, depth]`, a nest of such arrays, or a list with the
                inputs of each step, `[batch, depth]`.
            initial_state: The state before the first step; None for zeros of `dtype`.
            dtype: The dtype of the zero state and of the outputs; None for the dtype of
                `initial_state`.
            sequence_length: `[batch]`, integers, clamped to `[0, time]`; None for all
                steps. Past its length, a row outputs zeros and keeps its state. Inputs
                past a row's length have no effect, even if they are NaN.
            key: A random key, for a cell that draws random numbers.

        Returns:
            `(outputs, state)`. `outputs` is `[time, batch, size]`, or a list of steps
            if `inputs` is a list. `state` is the state after each row's last step.
        """

    def bind(self, params: Params, key: Key | None = None) -> "BoundFusedCell":
        """Binds the cell to its parameters; call the bound cell on sequences.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys.
        """
        if key is not None:
            check_key(key)
        return BoundFusedCell(in_native_order(params), key, cell=self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundFusedCell:
    """A fused cell bound to its parameters and an optional key; a pytree."""

    takes_sequences = True

    params: Params
    key: Any = None
    cell: Any = dataclasses.field(metadata={"static": True}, kw_only=True)

    def __call__(
        self,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        scope: str | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps; see `FusedRNNCell.apply`.

        Args:
            inputs: `[time, batch, depth]`, a nest of such arrays, or a list of steps.
            initial_state: The state before the first step; None for zeros of `dtype`.
            dtype: The dtype of the zero state and of the outputs.
            sequence_length: `[batch]`, integers; None for all steps.
            scope: The name of the steps in profiles.

        Raises:
            TypeError, ValueError: See `dynamic_rnn`.
        """
        with jax.named_scope(as_scope(scope, "fused_rnn")):
            return self.cell.apply(
                self.params, inputs, initial_state, dtype, sequence_length, self.key
            )


class _OverSteps(FusedRNNCell):
    """The base class of fused cells that run an `RNNCell` step by step."""

    use_dynamic_rnn: bool = True

    _step_cell: Any
    """The `RNNCell` that runs each step."""

    def _as_state(self, state: PyTree) -> PyTree:
        """Returns the initial state in the structure that the cell declares."""
        return state

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of the `RNNCell`; see `FusedRNNCell.init`."""
        return self._step_cell.init(key, _first(inputs), dtype)

    def apply(
        self,
        params: Params,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        key: Key | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps; see `FusedRNNCell.apply`.

        Raises:
            TypeError: See `dynamic_rnn` and `static_rnn`.
            ValueError: See `dynamic_rnn` and `static_rnn`.
        """
        cell = self._step_cell.bind(params, key)
        state = self._as_state(initial_state)
        with error_note("Raised by the driver that runs the cell."):
            if self.use_dynamic_rnn:
                outputs, state = dynamic_rnn(
                    cell,
                    _stacked(inputs),
                    sequence_length,
                    state,
                    dtype,
                    time_major=True,
                )
                return _like(inputs, outputs), state
            is_list = isinstance(inputs, list)
            steps = inputs if is_list else _steps(as_sequences(inputs, time_major=True))
            outputs, state = static_rnn(cell, steps, state, dtype, sequence_length)
            return outputs if is_list else stacked(outputs), state


@fields.dataclass
class LSTMBlockFusedCell(_OverSteps):
    """An `LSTMBlockCell` that `dynamic_rnn` runs over whole sequences.

    Shapes, for input size `I` and `H = num_units`: inputs `[time, batch, I]`; outputs
    `[time, batch, H]`; state an `LSTMStateTuple` of c and h, both `[batch, H]`;
    parameters as in `LSTMBlockCell`.

    Attributes:
        num_units: `H`.
        forget_bias: Added to the forget gate; not stored in the bias.
        cell_clip: The bound on the magnitude of c'; None, 0 or a negative number for no
            bound.
        use_peephole: Whether the gates read c through three diagonal kernels.
        reuse: Accepted for compatibility with TensorFlow; not used.
        dtype: The required dtype of parameters and inputs; None for any dtype.
        name: The name of the steps in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, or `dtype` is not floating-point.

    Source: arXiv:1409.2329; `tf.contrib.rnn.LSTMBlockFusedCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    cell_clip: float | None = fields.checked(as_bound, default=None)
    use_peephole: bool = fields.flag(False)
    reuse: fields.Unused = fields.unused()
    dtype: DType | None = fields.dtype()
    name: str | None = fields.name("lstm_fused_cell")

    _step_cell = property(lambda self: LSTMBlockCell(**vars(self)))

    def _as_state(self, state: PyTree) -> PyTree:
        """Converts a pair `(c, h)` to an `LSTMStateTuple`; TensorFlow accepts both."""
        is_pair = isinstance(state, tuple | list) and len(state) == 2
        return LSTMStateTuple(*state) if is_pair else state


@fields.dataclass
class FusedRNNCellAdaptor(_OverSteps):
    """Adapts an `RNNCell` to run whole sequences; the parameters stay the same.

    Attributes:
        cell: The `RNNCell` to run.
        use_dynamic_rnn: True to run the cell with `dynamic_rnn`, which compiles one
            step. False to run it with `static_rnn`, which may compile a separate copy
            of the cell for each step.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `use_dynamic_rnn` is not a bool.

    Source: `tf.contrib.rnn.FusedRNNCellAdaptor`.
    """

    cell: RNNCell = fields.checked(check_rnn_cell)
    use_dynamic_rnn: bool = fields.flag(False)

    _step_cell = property(lambda self: self.cell)


def _check_fused(name: str, cell: Any) -> FusedRNNCell:
    fix = "`FusedRNNCellAdaptor` wraps an RNNCell."
    return check_instance(name, cell, FusedRNNCell, "a FusedRNNCell", fix)


@fields.dataclass
class TimeReversedFusedRNN(FusedRNNCell):
    """Runs a fused cell over each row from its last step to its first.

    The cell reads a row of length n as `x[n-1], ..., x[0]`. The outputs are returned in
    the order of the inputs. The wrapper has the same parameters as the cell. A list of
    steps is also reversed only within each row's length, whereas TensorFlow reverses
    the whole list, including the padding, and runs the cell on the padding.

    Attributes:
        cell: The cell to reverse, a `FusedRNNCell`.

    Raises:
        TypeError: If `cell` is not a `FusedRNNCell`.

    Source: `tf.contrib.rnn.TimeReversedFusedRNN`.
    """

    cell: FusedRNNCell = fields.checked(_check_fused)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of the cell; see `FusedRNNCell.init`."""
        return self.cell.init(key, inputs, dtype)

    def apply(
        self,
        params: Params,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        key: Key | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps; see `FusedRNNCell.apply`.

        Raises:
            TypeError: See the `apply` method of `cell`.
            ValueError: See the `apply` method of `cell`.
        """
        sequences = as_sequences(_stacked(inputs), time_major=True)
        time = jax.tree.leaves(sequences)[0].shape[0]
        lengths = lengths_for(sequence_length, sequences, time, batch_axis=1)
        flipped = reverse_sequence(sequences, lengths, time_major=True)
        outputs, state = self.cell.apply(
            params, flipped, initial_state, dtype, lengths, key
        )
        outputs = reverse_sequence(outputs, lengths, time_major=True)
        return _like(inputs, outputs), state


def _stacked(inputs: PyTree) -> PyTree:
    """The inputs as a nest of arrays `[time, batch, ...]`; stacks a list of steps."""
    return stacked(as_steps(inputs)) if isinstance(inputs, list) else inputs


def _like(inputs: PyTree, sequences: PyTree) -> PyTree:
    """Returns `sequences`, split into a list of steps if `inputs` is a list."""
    return _steps(sequences) if isinstance(inputs, list) else sequences


def _steps(sequences: PyTree) -> list[PyTree]:
    """Splits a nest of arrays `[time, ...]` into one nest per step."""
    return unstacked(sequences, jax.tree.leaves(sequences)[0].shape[0])


def _first(inputs: PyTree) -> PyTree:
    """The inputs of the first step if `inputs` is a list, otherwise only their shapes.

    Raises:
        ValueError: If the inputs are a single step.
    """
    if isinstance(inputs, list):
        return inputs[0]
    for name, leaf in named_leaves("inputs", inputs):
        if len(leaf.shape) < 3:
            raise InvalidValue(
                f"`{name}` must hold all steps, [time, batch, depth], got "
                f"{describe(leaf)}."
            )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), inputs)
