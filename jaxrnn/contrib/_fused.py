"""Fused cells, which run whole sequences `[time, batch, depth]` in one call."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import (
    LSTMStateTuple,
    RNNCell,
    dynamic_rnn,
    extend,
    reverse_sequence,
    static_rnn,
)
from jaxrnn.extend import fields
from jaxrnn.typing import DType, Implementation, Key, Lengths, Params, PyTree, Shaped

from .._base.inputs import warn_of_plain_pair
from .._cells.fields import Hyperparameters
from ._lstms import LSTMBlockCell


@fields.dataclass
class FusedRNNCell(Hyperparameters, abc.ABC):
    """A cell that runs whole sequences `[time, batch, depth]` in one call.

    A fused cell holds hyperparameters but no arrays. Bind the cell to its parameters
    before you call it.

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

    @abc.abstractmethod
    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters.

        Args:
            key: A random key.
            inputs: `[time, batch, depth]`, a nest of such arrays, or a list with the
                inputs of each step. `jax.ShapeDtypeStruct`s may replace arrays.
            dtype: The dtype of the parameters. Default: the `dtype` of the cell or, if
                this field is None, the dtype of the inputs.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `inputs` have no time axis.
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
        *,
        implementation: Implementation | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps as a pure function.

        Args:
            params: The parameters, as returned by `init`.
            inputs: `[time, batch, depth]`, a nest of such arrays, or a list with the
                inputs of each step, `[batch, depth]`.
            initial_state: The state before the first step. Default: zeros of `dtype`.
            dtype: The dtype of the zero state and of the outputs. By default, the dtype
                of `initial_state`.
            sequence_length: The length of each row, `[batch]`, integers, clamped to
                `[0, time]`. Default: all steps. Past its length, a row outputs zeros
                and keeps its state. Inputs past the length have no effect, even if they
                are NaN.
            key: A random key, for a cell that draws random numbers.
            implementation: The loop that runs the steps; see `dynamic_rnn`.

        Returns:
            `(outputs, state)`. `outputs` is `[time, batch, size]`, or a list of steps
            if `inputs` is a list. `state` is the state after each row's last step.
        """

    def bind(self, params: Params, key: Key | None = None) -> "BoundFusedCell":
        """Binds the cell to its parameters; call the bound cell on sequences.

        Raises:
            TypeError: If `key` is not a random key, or a hyperparameter is not
                hashable.
            ValueError: If `key` is an array of keys.
        """
        cell: Any = self
        bound = RNNCell.bind(cell, params, key)
        return BoundFusedCell(bound.params, bound.key, cell=self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BoundFusedCell:
    """A pytree that holds a fused cell, its parameters and an optional random key."""

    params: Params
    key: Key | None = None
    cell: FusedRNNCell = dataclasses.field(metadata={"static": True}, kw_only=True)

    def __call__(
        self,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        scope: str | None = None,
        *,
        implementation: Implementation | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps; see `FusedRNNCell.apply`.

        Args:
            inputs: `[time, batch, depth]`, a nest of such arrays, or a list of steps.
            initial_state: The state before the first step. Default: zeros of `dtype`.
            dtype: The dtype of the zero state and of the outputs.
            sequence_length: `[batch]`, integers. Default: all steps.
            scope: The name of the steps in profiles; "fused_rnn" by default.
            implementation: The loop that runs the steps; see `dynamic_rnn`.

        Raises:
            TypeError, ValueError: See `dynamic_rnn`.
        """
        with jax.named_scope(scope or "fused_rnn"):
            return self.cell.apply(
                self.params,
                inputs,
                initial_state,
                dtype,
                sequence_length,
                self.key,
                implementation=implementation,
            )


class _OverSteps(FusedRNNCell):
    """The base class of fused cells that run an `RNNCell` step by step."""

    cell: Any
    """The `RNNCell` that runs each step."""

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of the `RNNCell`; see `FusedRNNCell.init`."""
        if isinstance(inputs, list):
            return self.cell.init(key, inputs[0], dtype)
        must = "hold all steps, [time, batch, depth]"
        for leaf in jax.tree.leaves(inputs):
            extend.expect(len(leaf.shape) >= 3, "inputs", must, leaf)
        step = jax.eval_shape(lambda xs: jax.tree.map(lambda x: x[0], xs), inputs)
        return self.cell.init(key, step, dtype)

    def apply(
        self,
        params: Params,
        inputs: PyTree,
        initial_state: PyTree = None,
        dtype: DType | None = None,
        sequence_length: Lengths | None = None,
        key: Key | None = None,
        *,
        implementation: Implementation | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps; see `FusedRNNCell.apply`.

        Raises:
            TypeError: See `dynamic_rnn` and `static_rnn`.
            ValueError: See `dynamic_rnn` and `static_rnn`.
        """
        cell = self.cell.bind(params, key)
        state = initial_state
        if isinstance(self.cell, LSTMBlockCell) and isinstance(state, tuple | list):
            # Accept a plain pair `(c, h)`, as TensorFlow does.
            state = LSTMStateTuple(*state)
            warn_of_plain_pair("initial_state", self.cell.state_size, initial_state)
        options: Any = {
            "sequence_length": sequence_length,
            "initial_state": state,
            "dtype": dtype,
            "implementation": implementation,
        }
        if isinstance(inputs, list):
            return static_rnn(cell, inputs, **options)
        return dynamic_rnn(cell, inputs, time_major=True, **options)


@fields.dataclass
class LSTMBlockFusedCell(_OverSteps):
    """Runs an `LSTMBlockCell` over whole sequences `[time, batch, depth]`.

    Shapes, for input size `I` and `H = num_units`: inputs `[time, batch, I]`; outputs
    `[time, batch, H]`; state an `LSTMStateTuple` of c and h, both `[batch, H]`;
    parameters as in `LSTMBlockCell`.

    Attributes:
        num_units: `H`.
        forget_bias: A constant that each step adds to the forget gate, in addition to
            the bias.
        cell_clip: The largest magnitude of c'. None, 0 and negative numbers mean no
            limit.
        use_peephole: Whether the gates read c through three diagonal kernels.
        reuse: Accepted for compatibility with TensorFlow, but ignored.
        dtype: The required dtype of parameters and inputs. Default: any dtype.
        name: The name of the steps in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, or `dtype` is not floating-point.

    Source: arXiv:1409.2329; `tf.contrib.rnn.LSTMBlockFusedCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    cell_clip: float | None = fields.number(None)
    use_peephole: bool = fields.flag(False)
    reuse: object = fields.unused()
    dtype: DType | None = fields.dtype()
    name: str | None = fields.name("lstm_fused_cell")

    cell = property(lambda self: LSTMBlockCell(**vars(self)))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cell_clip", self.cell.cell_clip)


@fields.dataclass
class FusedRNNCellAdaptor(_OverSteps):
    """Runs an `RNNCell` over whole sequences, with the parameters of the cell.

    Attributes:
        cell: The `RNNCell` to run.
        use_dynamic_rnn: Accepted for compatibility with TensorFlow. `dynamic_rnn` runs
            arrays, and `static_rnn` runs lists of steps.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `use_dynamic_rnn` is not a bool.

    Source: `tf.contrib.rnn.FusedRNNCellAdaptor`.
    """

    cell: RNNCell = fields.checked(extend.check_rnn_cell)
    use_dynamic_rnn: bool = fields.flag(False)


def _check_fused(name: str, cell: Any) -> FusedRNNCell:
    fix = "Wrap an RNNCell in a `FusedRNNCellAdaptor`."
    is_fused = isinstance(cell, FusedRNNCell)
    extend.expect(is_fused, name, "be a FusedRNNCell", cell, fix, error=TypeError)
    return cell


@fields.dataclass
class TimeReversedFusedRNN(FusedRNNCell):
    """Runs a fused cell over each row, from the row's last step to the first.

    The cell reads a row of length n as `x[n-1], ..., x[0]`, and the outputs are
    returned in the order of the inputs. The wrapper has the parameters of the cell. If
    the inputs are a list of steps, TensorFlow reverses the whole list, so its cell also
    runs on padding. Here, only the valid steps of each row are reversed.

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
        *,
        implementation: Implementation | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps in reverse; see `FusedRNNCell.apply`."""
        lengths = sequence_length
        reversed_inputs = _reversed(inputs, lengths)
        outputs, state = self.cell.apply(
            params,
            reversed_inputs,
            initial_state,
            dtype,
            lengths,
            key,
            implementation=implementation,
        )
        return _reversed(outputs, lengths), state


def _reversed(inputs: PyTree, lengths: Lengths | None) -> PyTree:
    """Reverses the valid steps of each row, in arrays `[time, ...]` or in a list."""
    if isinstance(inputs, list):
        sequences = jax.tree.map(lambda *steps: jnp.stack(steps), *inputs)
        leaves, structure = jax.tree.flatten(_reversed(sequences, lengths))
        columns = zip(*map(jnp.unstack, leaves), strict=True)
        return [structure.unflatten(step) for step in columns]
    if lengths is None:
        return jax.tree.map(jnp.flipud, inputs)
    time, rows = jax.tree.leaves(inputs)[0].shape[:2]
    checked: Any = extend.as_lengths(lengths, rows, time=time)
    return reverse_sequence(inputs, checked, seq_axis=0, batch_axis=1)
