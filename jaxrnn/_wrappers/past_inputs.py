"""Wrappers that pass a cell its last inputs, concatenated or convolved over time."""

from collections.abc import Sequence
from typing import NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.arguments import is_list_of
from .._base.errors import expect
from .._base.inputs import like
from .._base.sharding import whole_on_explicit_mesh
from .._base.trees import TensorShape, serializable
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped, Size
from .._cells import fields
from .._cells.base import RNNCell
from .._cells.params import ParamSpec, Specs, zeros
from .._cells.short_conv import convolved
from .._cells.step_checks import check_step_inputs
from .._run.run import Choice, Loop, Run
from .._run.scans import at_each_step
from .._run.taps import taps_of, taps_of_step
from .base import ParamsWrapper, WrapperCell

_FIX = "To use only the newest inputs, omit the wrapper."


@serializable
class PastInputsState(NamedTuple):
    """The state of a wrapper that passes a cell its last inputs.

    Attributes:
        past_inputs: The last inputs before the step, oldest first, `[batch, width - 1,
            depth]`; zeros before the first step of a sequence.
        cell_state: The state of the wrapped cell.
    """

    past_inputs: PyTree
    cell_state: PyTree


@fields.dataclass
class PastInputsWrapper(WrapperCell):
    """Passes a cell its last inputs: `cell([x_{t - width + 1}, ..., x_t])`.

    The cell's matrix product with these inputs is a causal convolution over time, as in
    a QRNN.

    Shapes: inputs `[batch, depth]`; the cell receives `[batch, width * depth]`; state
    `PastInputsState(past_inputs, cell_state)` with past inputs `[batch, width - 1,
    depth]`, oldest first, in the dtype of the inputs or a wider one. The wrapper has
    the parameters and the output of the wrapped cell.

    Attributes:
        cell: The wrapped cell.
        depth: The size of the inputs; in a stack, the output size of the layer below.
            The depth is an argument because the state holds past inputs, and the
            state's shape must be known before `init`.
        width: The number of inputs that the cell receives at each step.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is not an integer.
        ValueError: If `depth` is not positive, or `width` is less than 2.

    Source: arXiv:1611.01576.
    """

    depth: int = fields.count()
    width: int = fields.count(default=2, least=2, fix=_FIX)

    feature_axes = 1

    def combine(self, own: Params, taps: Sequence[Array]) -> PyTree:
        """Computes the inputs of the wrapped cell; here, `[batch, width * depth]`.

        A subclass may return other arrays, or a nest. Rows must not affect each other.

        Args:
            own: The wrapper's own parameters.
            taps: The last `width` inputs, oldest first, each `[batch, depth]`.
        """
        return jnp.concatenate(taps, axis=-1)

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        The wrapped cell gets the shapes of the inputs that `combine` returns.

        Raises:
            ValueError: If `inputs` are not floating-point, or not `[batch, depth]`.
            TypeError: If `key` is not a random key.
        """
        inputs = self.checked_inputs(inputs)
        typed = lambda x: jax.ShapeDtypeStruct(x.shape, inputs.dtype)
        own = jax.tree.map(typed, self.own_specs(self.depth))
        combined = jax.eval_shape(self.combine, own, [typed(inputs)] * self.width)
        if isinstance(self, ParamsWrapper):
            return self.init_params(key, self.depth, combined, dtype)
        return self.cell.init(key, combined, dtype)

    @property
    def state_size(self) -> Size:
        """The sizes of the state, a `PastInputsState`."""
        past = TensorShape([self.width - 1, self.depth])
        return PastInputsState(past, self.cell.state_size)

    def zero_state(self, batch_size: int, dtype: DType) -> PastInputsState:
        """Past inputs of zeros, and the zero state of the wrapped cell."""
        zero = RNNCell.zero_state(self, batch_size, dtype)
        return zero._replace(cell_state=self.cell.zero_state(batch_size, dtype))

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Prepares the wrapped cell's part of the state; see `RNNCell.start`."""
        past, cell_state = state
        return PastInputsState(past, super().start(params, cell_state))

    def checked_inputs(self, inputs: Shaped | PyTree) -> Array:
        """Checks and returns one step of inputs, `[batch, depth]`.

        Raises:
            ValueError: If the inputs are not floating-point, or not `[batch, depth]`.
        """
        fix = "Create the wrapper with the depth of the inputs."
        size = (self.depth,)
        return check_step_inputs(inputs, size=size, why="to fit `depth`", fix=fix)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PastInputsState]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If the shape of the inputs, the past inputs or a parameter does
                not fit `depth` and `width`.
            TypeError: If a parameter does not have the dtype of the inputs, or the past
                inputs have a narrower dtype than the inputs.
        """
        inputs = self.checked_inputs(inputs)
        own, inner = self.checked_params(params, inputs, key)
        fix = "Create a state with `cell.zero_state`."
        must = "be (past inputs, cell state)"
        expect(is_list_of(state, 2), "state", must, state, fix)
        past, cell_state = state
        shape = (inputs.shape[0], self.width - 1, self.depth)
        want = jax.ShapeDtypeStruct(shape, inputs.dtype)
        past = like("state.past_inputs", past, want, wider=True, fix=fix)
        taps, past = taps_of_step(inputs, past)
        combined = self.combine(own, taps)
        output, cell_state = self.cell.apply(inner, combined, cell_state, key)
        return output, PastInputsState(past, cell_state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of the cell; see `RNNCell.choose_loop`."""
        own, inner = self.split_params(params)
        combine = jax.vmap(lambda x: self.combine(own, [x] * self.width))
        combined = jax.eval_shape(combine, run.inputs)
        inner_run = run.replace(inputs=combined, state=run.state[1])
        return self.cell.choose_loop(inner, inner_run).within(self._run)

    def _run(self, loop: Loop, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Combines all inputs, then runs the cell."""
        # Gather the parameters; otherwise, the inputs could become sharded along their
        # features.
        own, inner = self.split_params(whole_on_explicit_mesh(params))
        inputs = run.inputs
        steps = run.steps
        past, cell_state = run.state
        restart_past, restart_states = steps.restart_states or (None, None)
        tap_steps = steps.with_restart_states(restart_past)
        taps, past = taps_of(tap_steps, inputs.astype(past.dtype), past)
        narrow = [tap.astype(inputs.dtype) for tap in taps]
        combined = at_each_step(lambda *taps: self.combine(own, taps), *narrow)
        cell_steps = steps.with_restart_states(restart_states)
        inner_run = run.of_inner(combined, cell_state, steps=cell_steps)
        outputs, cell_state = loop(inner, inner_run)
        state = PastInputsState(past, cell_state)
        if not steps.returns_states:
            return outputs, state
        outputs, cell_states = outputs
        return (outputs, PastInputsState(jnp.stack(taps[1:], 2), cell_states)), state


@final
@fields.dataclass
class TemporalConvWrapper(PastInputsWrapper, ParamsWrapper):
    """Applies a causal convolution over time to each feature of a cell's inputs.

    Each step computes::

        y_t    = bias + sum over j < width of kernel[width - 1 - j] * x_{t - j}
        output = cell(y_t)

    The last row of the kernel multiplies the current inputs. Griffin uses this
    convolution before its recurrence.

    Shapes: inputs `[batch, depth]`; `kernel` `[width, depth]`; `bias` `[depth]`; state
    `PastInputsState(past_inputs, cell_state)` with past inputs `[batch, width - 1,
    depth]`, oldest first, in the dtype of the inputs or a wider one. The parameters of
    the wrapped cell are stored under its scope, e.g. `gru_cell`. The output is the
    output of the wrapped cell. The sum is computed in at least float32.

    The kernel is drawn from a normal distribution of variance `0.01 / width`, so the
    convolution initially scales the inputs down by a factor of about ten. The bias is
    0.

    Attributes:
        cell: The wrapped cell.
        depth: The size of the inputs; in a stack, the output size of the layer below.
            The depth is an argument because the state holds past inputs, and the
            state's shape must be known before `init`.
        width: The number of inputs in the sum.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is not an integer.
        ValueError: If `depth` is not positive, or `width` is less than 2.

    Source: arXiv:2402.19427; `Conv1D` of the package `recurrentgemma`, which calls the
    parameters `w` and `b` and has the same initial variance.
    """

    width: int = fields.count(default=4, least=2, fix=_FIX)

    def own_specs(self, depth: int) -> Specs:
        """Specs of the kernel, with variance `0.01 / width`, and of the bias."""
        normal = jax.nn.initializers.normal((0.01 / self.width) ** 0.5)
        kernel = ParamSpec((self.width, depth), normal)
        return {"kernel": kernel, "bias": ParamSpec((depth,), zeros)}

    def combine(self, own: Params, taps: Sequence[Array]) -> Array:
        """The convolution, `[batch, depth]`."""
        return convolved(own, taps)
