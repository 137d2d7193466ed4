"""`LinearAttentionLayer`, the base class of layers of published models."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ..._base.arguments import as_dtype, check_instance, check_shape, is_list_of
from ..._base.errors import expect
from ..._base.hints import with_hints
from ..._base.inputs import as_array
from ..._base.math import cast
from ..._base.modules import import_optional
from ..._base.trees import serializable
from ..._base.typing import (
    Array,
    ArrayLike,
    AxisSize,
    DType,
    Implementation,
    Lengths,
    PyTree,
)
from ..._cells import fields
from ..._cells.base import as_batch_size
from ..._cells.step_checks import check_floating
from ..._run.arguments import as_lengths, as_mask, check_axis_name
from ..._run.masking import zero_unless
from ..fields_module import FieldsModule
from ..modules import compute_dtype
from .parts import ModuleFactory

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")


@serializable
class PastInputsState(NamedTuple):
    """The state of a layer with a convolution and a memory.

    Attributes:
        past_inputs: The last inputs of the convolution, oldest first,
            `[batch, width - 1, channels]`; zeros before the first step of a sequence.
        cell_state: The state of the memory.
    """

    past_inputs: PyTree
    cell_state: PyTree


Results: TypeAlias = tuple[Array, PastInputsState]
"""The outputs and the state of a call."""


@dataclasses.dataclass(frozen=True)
class StepArguments:
    """The arguments of a call that concern steps: lengths, mask, resets, time axis."""

    sequence_length: Lengths | None = None
    mask: ArrayLike | None = None
    resets: ArrayLike | None = None
    axis_name: str | tuple[str, ...] | None = None


@dataclasses.dataclass(eq=False, repr=False)
class LinearAttentionLayer(FieldsModule):
    """A layer with a memory between projections, which runs over sequences.

    A subclass adds fields for its sizes, and defines `_make` and `_run`.

    Attributes:
        in_features: The size of inputs and outputs.
        implementation: Which loop runs the memory; see `jaxrnn.dynamic_rnn`. With
            "scan", the convolution also runs step by step.
        dtype: The dtype of the computation. By default, the widest dtype of the inputs
            and the parameters.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.
    """

    in_features: int = fields.count()
    _: dataclasses.KW_ONLY
    implementation: Implementation | None = None
    dtype: DType | None = fields.dtype()
    param_dtype: DType = fields.checked(fields.as_floating, default=jnp.float32)
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        check_instance("rngs", rngs, nnx.Rngs, "nnx.Rngs, for example `nnx.Rngs(0)`")
        fields.run_checks(self, setattr)
        self._make(ModuleFactory(self.dtype, self.param_dtype, rngs))

    def _make(self, new: ModuleFactory) -> None:
        """Creates the memory, the projections and the other modules as attributes."""
        raise NotImplementedError

    def _run(self, x: Array, state: PastInputsState, steps: StepArguments) -> Results:
        """Computes the outputs and the state. Outputs at padding must only be finite.

        Args:
            x: The inputs, `[batch, time, in_features]`, zero at padding.
            state: The previous call's state. Both fields are None at the start of
                sequences.
            steps: The arguments of `dynamic_rnn` that concern steps.
        """
        raise NotImplementedError

    @with_hints
    def __call__(
        self,
        inputs: ArrayLike,
        state: PyTree = None,
        *,
        sequence_length: Lengths | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Results:
        """Runs the layer over sequences.

        Args:
            inputs: `[batch, time, in_features]`.
            state: The state that a previous call returned, to continue its sequences.
                Default: new sequences start.
            sequence_length: `[batch]`, the number of valid steps of each row; see
                `jaxrnn.dynamic_rnn`. At padding, inputs have no effect, and outputs are
                0.
            mask: Bool `[batch, time]`, True at valid steps; see `jaxrnn.dynamic_rnn`.
            resets: Bool `[batch, time]`, True where a row begins a new sequence, e.g.
                the next document; see `jaxrnn.resets_of_segments`.
            axis_name: In `jax.shard_map`, the mesh axis over which time is divided; see
                `jaxrnn.dynamic_rnn`.

        Returns:
            `(outputs, state)`: the outputs, `[batch, time, in_features]`, and a
            `PastInputsState` after the last valid step of each row.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a shape does not fit, or both `mask` and `sequence_length`
                are given.
        """
        steps = StepArguments(sequence_length, mask, resets, axis_name)
        return self._over_sequences(self._run, inputs, state, steps)

    def zero_state(self, batch_size: AxisSize, dtype: DType) -> PastInputsState:
        """Creates the initial state of sequences, e.g. as the carry of `jax.lax.scan`.

        Args:
            batch_size: The number of rows.
            dtype: The dtype of the inputs.

        Returns:
            The state with which a call without a state begins.

        Raises:
            TypeError: If `batch_size` is not an int.
            ValueError: If `batch_size` is negative, or `dtype` is not floating-point.
        """
        check_floating("dtype", as_dtype(dtype))
        rows = as_batch_size(batch_size)
        x = jnp.zeros((rows, 0, self.in_features), dtype)
        return self._over_sequences(self._run, x, None, StepArguments())[1]

    def _over_sequences(
        self,
        run: Any,
        inputs: ArrayLike,
        state: PyTree,
        steps: StepArguments,
        *others: Array,
    ) -> tuple[Array, PyTree]:
        """Checks the inputs and calls `run(x, state, steps, *others)`; zeros padding.

        `others` are further arrays with the shape of the inputs.
        """
        inputs = as_array("inputs", inputs)
        check_shape("inputs", inputs, (None, None, self.in_features))
        is_real = jnp.issubdtype(inputs.dtype, jnp.floating)
        must, fix = "be real and floating-point", "For integer ids, embed them first."
        expect(is_real, "inputs", must, inputs, fix, TypeError)
        if steps.axis_name is not None:
            check_axis_name(steps.axis_name, inputs)
        is_state = state is None or is_list_of(state, 2)
        must = "be None or a pair, such as the state that another call returned"
        fix = "Pass lengths as `sequence_length`."
        expect(is_state, "state", must, state, fix, TypeError)
        state = PastInputsState(*((None, None) if state is None else state))
        valid = _valid_steps(inputs.shape, steps)
        masked = lambda tree: tree if valid is None else zero_unless(valid, tree)
        dtype = compute_dtype(self.dtype, (inputs, nnx.state(self, nnx.Param)))
        x, *arrays = masked(cast([inputs, *others], dtype))
        # Allow promotion, because Flax's layers mix dtypes, e.g. of narrower
        # parameters.
        with jax.numpy_dtype_promotion("standard"):
            outputs, state = run(x, state, steps, *arrays)
        return masked(outputs), state


def _valid_steps(shape: tuple[int, ...], steps: StepArguments) -> Array | None:
    """Which steps are valid, bool `[batch, time]`, or None if all are.

    If time is divided over devices, lengths count the steps on all devices.
    """
    rows, time, _ = shape
    lengths, name = steps.sequence_length, steps.axis_name
    if lengths is None or steps.mask is not None:
        return as_mask(steps.mask, lengths, (rows, time), axis=1)
    start = 0 if name is None else jax.lax.axis_index(name) * time
    ts = start + jnp.arange(time, dtype=jnp.int32)[None]
    ends: Any = as_lengths(lengths, rows, time=time if name is None else None)
    return ts < ends[:, None]
