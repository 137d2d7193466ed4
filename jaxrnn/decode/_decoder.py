"""`Decoder`, the base class of decoders, and `dynamic_decode`, which runs a decoder."""

import abc
import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .._base import arguments, errors, math, sharding, trees
from .._base.cell_keys import cell_at_step
from .._base.derivatives import with_float32_gradients
from .._base.errors import expect
from .._base.inputs import as_arrays, as_like, check_no_plain_tuple
from .._base.jax_internals import min_dim
from .._base.typing import Array, ArrayLike, PyTree, RNNCellLike
from .._drivers.arguments import as_scope, as_unroll, check_is_cell
from .._run import masking
from .._run.layout import lay_out
from .._run.memory import Strategy, as_strategy
from .._run.until_finished import Carry, run_until_finished

EMIT_FIX = (
    "The decoder's `output_size` and `output_dtype` must describe the outputs of a "
    "step: an int for a vector, a TensorShape for another array, a tuple for a nest. "
    "In a subclass of BasicDecoder, override `_rnn_output_size`."
)


class Decoder(abc.ABC):
    """The base class of the decoders that `dynamic_decode` runs.

    A subclass defines `initialize`, `step`, `batch_size`, `output_size` and
    `output_dtype`. The other attributes and methods have defaults.

    Attributes:
        batch_size: The number of rows to decode.
        output_size: The sizes of a step's outputs, a nest without the batch axis.
        output_dtype: The dtypes of a step's outputs, in the structure of `output_size`.
        tracks_own_finished: Whether the flags `finished` of a step replace the earlier
            flags. By default, new and earlier flags are combined, so a finished row
            stays finished. True is for decoders that reorder their rows, e.g. beam
            search.
        longest: The maximum number of steps, e.g. the number of given inputs, or None
            if unknown. If this number is known, you can omit `maximum_iterations` under
            jit.

    Source: `tf.contrib.seq2seq.Decoder`.
    """

    if TYPE_CHECKING:
        # Only type checkers see these properties, because a decoder may also set plain
        # attributes.
        batch_size = output_size = output_dtype = property(lambda self: None)
    tracks_own_finished = property(lambda self: False)
    longest = property(lambda self: None)
    _cell: Any = None
    """The cell, if there is one; `dynamic_decode` places its arrays on devices."""

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns the values before the first step: `(finished, inputs, state)`.

        `name` is accepted for compatibility with TensorFlow.
        """

    @abc.abstractmethod
    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        """Runs one step; returns `(outputs, next_state, next_inputs, finished)`.

        Args:
            time: The index of the step, an int32 scalar.
            inputs: The inputs from `initialize` or from the previous step.
            state: The state from `initialize` or from the previous step.
            name: Accepted for compatibility with TensorFlow.
        """

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the final `(outputs, final_state)`, by default unchanged.

        Args:
            outputs: The outputs of all steps, each leaf `[time, batch, ...]`.
            final_state: The state after the last step.
            sequence_lengths: The number of steps until each row finished.
        """
        return outputs, final_state


class CellDecoder(Decoder):
    """The base class of decoders that run a cell and project its outputs."""

    def __init__(
        self,
        cell: RNNCellLike,
        initial_state: PyTree,
        output_layer: Callable[[PyTree], PyTree] | None,
    ) -> None:
        check_is_cell("cell", cell)
        self._cell = cell
        state = as_arrays("initial_state", initial_state)
        check_no_plain_tuple("initial_state", cell.state_size, state)
        self._initial_state = trees.with_tuples_of(cell.state_size, state)
        self._project = as_function("output_layer", output_layer)

    def _run(self, time: Array, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs the cell for one step, with the step's key if the cell has a key."""
        return cell_at_step(self._cell, time)(inputs, state)


def as_function(name: str, function: Callable | None) -> Callable:
    """Checks a function and returns it; converts None to the identity."""
    if function is None:
        return lambda x: x
    return arguments.check_function(name, function)


def dynamic_decode(
    decoder: Decoder,
    output_time_major: bool = False,
    impute_finished: bool = False,
    maximum_iterations: int | None = None,
    parallel_iterations: int | None = 32,
    swap_memory: bool | Strategy = False,
    scope: str | None = None,
    *,
    max_time: int | None = None,
) -> tuple[PyTree, PyTree, Array]:
    """Calls `decoder.initialize()`, then `decoder.step` until all rows are finished.

    Outside jit, steps run in a Python loop, and the outputs contain only the steps that
    ran. Under jit, the loop is compiled, and the outputs have the maximum number of
    steps, with zeros after the last step that ran. Both loops support gradients.

    In `jax.shard_map` over the mesh axis "data", the loop on each device ends when all
    of the device's own rows are finished. To compute gradients, begin the mapped
    function with `params = jax.lax.pcast(params, "data", to="varying")`. Without this
    line, JAX raises an error about the type of a cotangent.

    Args:
        decoder: A `Decoder`.
        output_time_major: Whether time is the first axis of the outputs.
        impute_finished: Whether finished rows emit zeros and keep their state. If
            False, finished rows continue to run; ignore their later outputs and states.
            A decoder that tracks its own finished rows, such as `BeamSearchDecoder`,
            requires False, and its later outputs are valid.
        maximum_iterations: The maximum number of steps: an int, an integer scalar array
            or, under `jax.export`, a symbolic size. A decoder that reads given inputs,
            e.g. with `TrainingHelper`, runs at most as many steps as the inputs have.
        parallel_iterations: Accepted for compatibility with TensorFlow; steps run one
            after another.
        swap_memory: Controls which values of each step a compiled loop stores for the
            backward pass, as in `raw_rnn`.
        scope: The name of the loop in profiles; "decoder" by default.
        max_time: A second maximum number of steps, an int or a symbolic size. Pass
            `max_time` under jit if `maximum_iterations` is traced or missing, unless
            the decoder reads given inputs. The outputs have as many steps as the
            smallest maximum that is not traced.

    Returns:
        `(final_outputs, final_state, final_sequence_lengths)`. The outputs contain all
        steps, each leaf `[batch, time, ...]` (`[time, batch, ...]` if
        `output_time_major`). The state is the state after the last step. The lengths,
        int32, are the number of steps until each row finished. A decoder's `finalize`
        may change the outputs and the state.

    Raises:
        TypeError: If `decoder` is not a `Decoder`, another argument has the wrong type,
            or a step changes the dtypes of its results.
        ValueError: If a step changes structures or shapes. If a number of steps is
            negative, or is unknown under jit. If `impute_finished` is True for a
            decoder that tracks its own finished rows, e.g. `BeamSearchDecoder`.

    Source: `tf.contrib.seq2seq.dynamic_decode`.
    """
    # Check the arguments. `steps` is the number of steps in the outputs, and `end`, an
    # int32 scalar, is the step at which decoding ends. Both are None if there is no
    # maximum.
    _check_decoder(decoder, impute_finished)
    arguments.as_bool("output_time_major", output_time_major)
    as_unroll(parallel_iterations)
    strategy = as_strategy("swap_memory", swap_memory)
    is_dynamic = math.concrete_or_none(maximum_iterations) is None
    bounds = {"decoder.longest": decoder.longest, "max_time": max_time}
    bounds["maximum_iterations"] = None if is_dynamic else maximum_iterations
    known = [item for item in bounds.items() if item[1] is not None]
    sizes = [arguments.as_axis_size(*item) for item in known]
    steps = functools.reduce(min_dim, sizes) if sizes else None
    end: Any = None if steps is None else math.axis_size(steps)
    if is_dynamic:
        name = "maximum_iterations"
        last = arguments.as_integers(name, maximum_iterations, "an integer", ())
        last = math.clamped_to_int32(last)
        end = last if end is None else jnp.minimum(last, end)
    with jax.named_scope(as_scope(scope, "decoder")):
        # Place the cell and the arrays on devices, and build the carry for step 0.
        finished, inputs, state = decoder.initialize()
        finished = _of_rows(decoder, finished)
        is_bool = finished.dtype == bool
        fix = "Return a comparison from `initialize`, such as `lengths == 0`."
        expect(is_bool, "finished", "have dtype bool", finished, fix, error=TypeError)
        inputs = as_arrays("decoder.initialize()[1]", inputs)
        state = as_arrays("decoder.initialize()[2]", state)
        finished, inputs, first_state = _as_divided_rows(
            (finished, inputs, state), finished.shape[0]
        )
        cell, finished, first_state = lay_out(
            decoder._cell, inputs, finished, first_state
        )
        decoder = _with_cell(decoder, cell)
        own_state = trees.without_read_only(first_state)
        lengths = jnp.zeros_like(finished, jnp.int32)
        first = Carry(_ended(finished, 0, end), inputs, own_state, lengths)
        size = decoder.output_size
        types = trees.types_of_size(size, decoder.batch_size, jnp.bool_, "output_size")
        emit_types = jax.tree.map(
            lambda x, dtype: x.update(dtype=jax.dtypes.canonicalize_dtype(dtype)),
            types,
            decoder.output_dtype,
        )
        read = with_float32_gradients((cell, first_state))

        def step(time: Array, carry: Carry) -> tuple[Carry, PyTree]:
            finished, inputs, state, lengths = carry
            cell, first_state = read()
            state = trees.with_read_only(state, first_state)
            hidden = masking.hide_nonfinite(finished, inputs)
            with errors.error_note("Raised by `decoder.step(time, inputs, state)`."):
                emit, next_state, next_inputs, over = _with_cell(decoder, cell).step(
                    time, hidden, state
                )
            emit = as_like("outputs", emit, emit_types, fix=EMIT_FIX)
            next_state = as_like("next_state", next_state, state)
            next_inputs = as_like("next_inputs", next_inputs, inputs)
            over = as_like("finished", _of_rows(decoder, over), finished)
            lengths = jnp.where(finished, lengths, time + 1)
            state = trees.without_read_only(state)
            next_state = trees.without_read_only(next_state)
            if impute_finished:
                emit = masking.zero_unless(~finished, emit)
                next_state = masking.advance(~finished, True, next_state, state)
            if not decoder.tracks_own_finished:
                over = finished | over
            finished = _ended(over, time + 1, end)
            return Carry(finished, next_inputs, next_state, lengths), emit

        emit_ta, last = run_until_finished(
            step=step,
            carry=first,
            emit_types=emit_types,
            max_time=steps,
            strategy=strategy,
            limit_name="max_time" if is_dynamic else "maximum_iterations",
        )
        lengths = last.loop_state
        state = trees.with_read_only(last.state, first_state)
        outputs = jax.tree.map(
            lambda ta: ta.stack(), emit_ta, is_leaf=trees.is_tensor_array
        )
        outputs, state = decoder.finalize(outputs, state, lengths)
        if not output_time_major:
            outputs = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
        return outputs, state, lengths


def _check_decoder(decoder: Decoder, impute_finished: bool) -> None:
    fix = "For example, pass a `BasicDecoder`."
    arguments.check_instance("decoder", decoder, Decoder, "a Decoder", fix)
    impute = arguments.as_bool("impute_finished", impute_finished)
    must = "be False, because the decoder tracks its own finished rows"
    is_allowed = not (impute and decoder.tracks_own_finished)
    expect(is_allowed, "impute_finished", must, impute)


def _with_cell(decoder: Decoder, cell: object) -> Decoder:
    decoder = copy.copy(decoder)
    decoder._cell = cell
    return decoder


def _of_rows(decoder: Decoder, finished: ArrayLike) -> Array:
    """Converts `finished` to an array `[batch]`; broadcasts a scalar to all rows."""
    array = as_arrays("finished", finished)
    return array if array.ndim else jnp.broadcast_to(array, decoder.batch_size)


def _ended(finished: Array, time: Any, end: Any) -> Array:
    """Marks all rows as finished from step `end` on."""
    return finished if end is None else finished | (time >= end)


def _as_divided_rows(tree: PyTree, rows: int) -> PyTree:
    """If an array's rows are sharded over devices, shards all arrays in the same way.

    Args:
        tree: The arrays, each leaf `[rows, ...]` or without rows.
        rows: The number of rows.
    """
    of_rows = [x for x in jax.tree.leaves(tree) if x.shape[:1] == (rows,)]
    divided = (x for x in of_rows if jax.typeof(x).sharding.spec[0] is not None)
    first = next(divided, None)
    return tree if first is None else sharding.as_rows_of(first, tree)
