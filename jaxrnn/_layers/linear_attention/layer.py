"""`LinearAttentionLayer`: a call over sequences, with checked inputs and padding."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp

from ..._base.arguments import as_lengths, check_instance, check_shape, is_list_of
from ..._base.errors import expect
from ..._base.inputs import as_array, like
from ..._base.math import cast, is_float
from ..._base.modules import import_optional
from ..._base.typing import Array, ArrayLike, DType, Lengths, PyTree
from ..._cells import fields
from ..._hints import with_hints
from ..._run.arguments import as_mask
from ..._run.masking import zero_unless
from ..._wrappers.past_inputs import PastInputsState
from ..fields_module import FieldsModule
from ..modules import compute_dtype
from .parts import Parts

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")

Results: TypeAlias = tuple[Array, PastInputsState]
"""The outputs and the state of a call."""


@with_hints
@dataclasses.dataclass(frozen=True)
class Marks:
    """What the steps of a call are; see `LinearAttentionLayer.__call__`."""

    sequence_length: Lengths | None = None
    mask: ArrayLike | None = None
    resets: ArrayLike | None = None
    axis_name: str | tuple[str, ...] | None = None


@dataclasses.dataclass(eq=False, repr=False)
class LinearAttentionLayer(FieldsModule):
    """A layer with projections around a memory.

    A subclass adds the fields of its sizes, and defines `_make` and `_run`.

    Attributes:
        in_features: The size of inputs and outputs.
        conv_width: The number of steps that the convolution reads.
        dtype: The dtype of the computation; None for the widest dtype of the inputs and
            the parameters.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.
    """

    in_features: int = fields.count()
    _: dataclasses.KW_ONLY
    conv_width: int = fields.count(default=4, least=2)
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        check_instance("rngs", rngs, nnx.Rngs, "nnx.Rngs, for example `nnx.Rngs(0)`")
        for field in dataclasses.fields(self):
            if check := field.metadata.get("check"):
                setattr(self, field.name, check(field.name, getattr(self, field.name)))
        self._make(Parts(self.dtype, self.param_dtype, rngs))

    def _make(self, make: Parts) -> None:
        """Sets the memory, the projections and the other parts."""
        raise NotImplementedError

    def _run(self, x: Array, state: PastInputsState, marks: Marks) -> Results:
        """The outputs, which may be anything finite at padding, and the state.

        Args:
            x: The inputs, `[batch, time, in_features]`, zero at padding.
            state: The state; None in place of an array or a nest of zeros.
            marks: What the steps are, as arguments of `short_conv` and `dynamic_rnn`.
        """
        raise NotImplementedError

    @with_hints
    def __call__(
        self,
        inputs: ArrayLike,
        state: PyTree = None,
        *beside: ArrayLike,
        sequence_length: Lengths | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Results:
        """Runs the layer over sequences.

        Args:
            inputs: `[batch, time, in_features]`.
            state: The state that another call returned, from which this call continues;
                None for the start of the sequences.
            *beside: Further inputs of the same shape, if the layer reads them:
                `first_values` of `RWKV7TimeMix`.
            sequence_length: `[batch]`, the number of valid steps of each row; see
                `jaxrnn.dynamic_rnn`. Inputs at padding have no effect; outputs are 0.
            mask: Bool `[batch, time]`, true at valid steps; see `jaxrnn.dynamic_rnn`.
            resets: Bool `[batch, time]`, true where a row begins a new sequence, such
                as the next document; see `jaxrnn.resets_of_segments`.
            axis_name: In `jax.shard_map`, the axis of the mesh that divides time; see
                `jaxrnn.dynamic_rnn`.

        Returns:
            `(outputs, state)`: the outputs, `[batch, time, in_features]`, and a
            `PastInputsState`: the last inputs of the convolution, and the state of the
            memory.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a shape does not fit, or both `mask` and `sequence_length`
                are given.
        """
        marks = Marks(sequence_length, mask, resets, axis_name)
        return self._over_sequences(self._run, inputs, state, marks, *beside)

    def _over_sequences(
        self, run: Any, inputs: ArrayLike, state: PyTree, marks: Marks, *beside: Any
    ) -> tuple[Array, Any]:
        """`run(x, state, marks, *beside)` of checked inputs, with zeros at padding."""
        inputs = as_array("inputs", inputs)
        check_shape("inputs", inputs, (None, None, self.in_features))
        fix = "Embed integer ids."
        expect(is_float(inputs), "inputs", "be floating-point", inputs, fix, TypeError)
        others = [like("first_values", x, inputs, any_dtype=True) for x in beside]
        is_state = state is None or is_list_of(state, 2)
        must = "be a pair, such as the state that another call returned"
        expect(is_state, "state", must, state, error=TypeError)
        state = PastInputsState(*((None, None) if state is None else state))
        dtype = compute_dtype(self.dtype, (inputs, nnx.state(self, nnx.Param)))
        x, *others = cast([inputs, *others], dtype)
        valid = _valid_steps(inputs.shape, marks)
        if valid is None:
            return run(x, state, marks, *others)
        x, *others = zero_unless(valid, [x, *others])
        outputs, state = run(x, state, marks, *others)
        return zero_unless(valid, outputs), state


def _valid_steps(shape: tuple[int, ...], marks: Marks) -> Array | None:
    """Bool `[batch, time]`, or None if all steps are valid.

    In time that is divided, lengths count the steps of all devices.
    """
    rows, time, _ = shape
    lengths, name = marks.sequence_length, marks.axis_name
    if lengths is None or marks.mask is not None:
        return as_mask(marks.mask, lengths, (rows, time), axis=1)
    start = 0 if name is None else jax.lax.axis_index(name) * time
    ts = start + jnp.arange(time, dtype=jnp.int32)[None]
    ends: Any = as_lengths(lengths, rows)
    return ts < ends[:, None]
