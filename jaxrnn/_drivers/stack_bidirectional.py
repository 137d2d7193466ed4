"""Stacked bidirectional RNNs; each layer reads both outputs of the layer below."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from .._base.arguments import as_scope, check_both_lists, check_is_cell
from .._base.errors import InvalidValue, describe, error_note
from .._base.typing import ArrayLike, DType, Lengths, PyTree, RNNCellLike
from ..memory._strategy import Strategy
from .bidirectional import bidirectional_dynamic_rnn, joined, run_both_ways
from .static_rnn import checked_steps


def stack_bidirectional_rnn(
    cells_fw: Sequence[RNNCellLike],
    cells_bw: Sequence[RNNCellLike],
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_states_fw: Sequence[PyTree] | None = None,
    initial_states_bw: Sequence[PyTree] | None = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
) -> tuple[list[PyTree], tuple[PyTree, ...], tuple[PyTree, ...]]:
    """Runs stacked layers of `static_bidirectional_rnn`.

    Each layer reads both outputs of the layer below, unlike the layers of two
    `MultiRNNCell`s.

    Args:
        cells_fw: A sequence of bound cells, one for each layer. Bind cells with dropout
            to different keys, because equal keys drop the same units.
        cells_bw: The cells of the backward direction, one for each layer.
        inputs: A list or tuple with the inputs of each step of the lowest layer, as in
            `static_bidirectional_rnn`.
        initial_states_fw: A sequence with the initial forward state of each layer, or
            None for zero states. An entry may also be None.
        initial_states_bw: The initial backward states, given in the same form.
        dtype: The dtype of the zero states and of the outputs; required unless all
            states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps.
        scope: The name of the layers in profiles; "stack_bidirectional_rnn" by default.

    Returns:
        `(outputs, states_fw, states_bw)`. `outputs` is the list of outputs of the top
        layer, as in `static_bidirectional_rnn`. The two tuples of states hold the final
        state of each layer.

    Raises:
        TypeError: If an entry of `cells_fw` or `cells_bw` is not a cell; see also
            `static_rnn`.
        ValueError: If cells and states are not sequences of the same length, or if
            there are no cells; see also `static_bidirectional_rnn`.

    Warns:
        UserWarning: See `static_rnn`.

    Source: `tf.contrib.rnn.stack_bidirectional_rnn`, which accepts only lists of cells.
    """
    layers = _layers(cells_fw, cells_bw, initial_states_fw, initial_states_bw)
    cells = [cell for layer in layers for cell in layer.cells]
    steps = checked_steps(inputs, cells, "stack_bidirectional_dynamic_rnn")

    def run_layer(layer: _Layer, steps: list[PyTree]) -> tuple:
        name, cells, states = layer
        with jax.named_scope(name):
            return run_both_ways(cells, steps, states, dtype, sequence_length)

    return _run_layers(scope, layers, run_layer, steps)


def stack_bidirectional_dynamic_rnn(
    cells_fw: Sequence[RNNCellLike],
    cells_bw: Sequence[RNNCellLike],
    inputs: PyTree,
    initial_states_fw: Sequence[PyTree] | None = None,
    initial_states_bw: Sequence[PyTree] | None = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    parallel_iterations: int | None = None,
    time_major: bool = False,
    scope: str | None = None,
    swap_memory: bool | Strategy = False,
    *,
    resets: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> tuple[PyTree, tuple[PyTree, ...], tuple[PyTree, ...]]:
    """Runs stacked layers of `bidirectional_dynamic_rnn`.

    Each layer reads both outputs of the layer below, unlike the layers of two
    `MultiRNNCell`s.

    Args:
        cells_fw: A sequence of bound cells, one for each layer. Bind cells with dropout
            to different keys, because equal keys drop the same units.
        cells_bw: The cells of the backward direction, one for each layer.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays with equal time and batch sizes.
        initial_states_fw: A sequence with the initial forward state of each layer, or
            None for zero states. An entry may also be None.
        initial_states_bw: The initial backward states, given in the same form.
        dtype: The dtype of the zero states and of the outputs; required unless all
            states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`; None for all steps.
        parallel_iterations: As in `dynamic_rnn`.
        time_major: Whether time is the first axis of inputs and outputs.
        scope: The name of the layers in profiles; "stack_bidirectional_rnn" by default.
        swap_memory: As in `dynamic_rnn`.
        resets: As in `bidirectional_dynamic_rnn`, in every layer.
        mask: As in `dynamic_rnn`.

    Returns:
        `(outputs, states_fw, states_bw)`. `outputs` are the outputs of the top layer,
        in which the forward and backward outputs are concatenated along axis 2, leaf by
        leaf. The two tuples of states hold the final state of each layer.

    Raises:
        TypeError: If an entry of `cells_fw` or `cells_bw` is not a cell; see also
            `dynamic_rnn`.
        ValueError: If cells and states are not sequences of the same length, or if
            there are no cells; if the outputs of two cells cannot be concatenated; see
            also `dynamic_rnn`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cells = [jaxrnn.GRUCell(5), jaxrnn.GRUCell(2)]
        >>> x = jnp.ones((4, 7, 3), jnp.float32)
        >>> params_fw, params_bw = jaxrnn.init_stack_bidirectional(
        ...     cells, cells, jax.random.key(0), x[:, 0]
        ... )
        >>> outputs, states_fw, states_bw = jaxrnn.stack_bidirectional_dynamic_rnn(
        ...     [cell.bind(p) for cell, p in zip(cells, params_fw)],
        ...     [cell.bind(p) for cell, p in zip(cells, params_bw)],
        ...     x,
        ...     dtype=jnp.float32,
        ... )
        >>> outputs.shape, len(states_fw), states_bw[1].shape
        ((4, 7, 4), 2, (4, 2))

    Source: `tf.contrib.rnn.stack_bidirectional_dynamic_rnn`, which accepts only lists
    of cells.
    """
    layers = _layers(cells_fw, cells_bw, initial_states_fw, initial_states_bw)
    options = dtype, parallel_iterations, swap_memory, time_major

    def run_layer(layer: _Layer, inputs: PyTree) -> tuple:
        args = *layer.cells, inputs, sequence_length, *layer.states, *options
        args = *args, layer.name
        pair, states = bidirectional_dynamic_rnn(*args, resets=resets, mask=mask)
        return joined(*pair, axis=2), *states

    return _run_layers(scope, layers, run_layer, inputs)


class _Layer(NamedTuple):
    name: str
    cells: tuple[RNNCellLike, RNNCellLike]
    states: tuple[PyTree, PyTree]


def _run_layers(
    scope: str | None, layers: list[_Layer], run_layer: Callable, xs: Any
) -> tuple[Any, tuple[PyTree, ...], tuple[PyTree, ...]]:
    """Returns the top layer's outputs, all forward states and all backward states."""
    finals = []
    with jax.named_scope(as_scope(scope, "stack_bidirectional_rnn")):
        for layer in layers:
            with error_note(f"Raised by layer {layer.name}."):
                xs, *states = run_layer(layer, xs)
            finals.append(states)
    states_fw, states_bw = zip(*finals, strict=True)
    return xs, states_fw, states_bw


def _layers(
    cells_fw: Any, cells_bw: Any, states_fw: Any, states_bw: Any
) -> list[_Layer]:
    check_both_lists(cells_fw, cells_bw)
    cells = list(zip(cells_fw, cells_bw, strict=True))
    for i, (cell_fw, cell_bw) in enumerate(cells):
        check_is_cell(f"cells_fw[{i}]", cell_fw)
        check_is_cell(f"cells_bw[{i}]", cell_bw)
    states_fw = _states("initial_states_fw", states_fw, len(cells))
    states_bw = _states("initial_states_bw", states_bw, len(cells))
    layers = zip(cells, zip(states_fw, states_bw, strict=True), strict=True)
    return [_Layer(f"cell_{i}", *layer) for i, layer in enumerate(layers)]


def _states(name: str, states: Any, depth: int) -> Sequence[PyTree]:
    if states is None:
        return [None] * depth
    if not isinstance(states, Sequence) or len(states) != depth:
        raise InvalidValue(
            f"`{name}` must be a list of {depth} states, one for each layer, "
            f"got {describe(len(states) if isinstance(states, Sequence) else states)}. "
            "Pass lengths as `sequence_length`."
        )
    return states
