"""Stacked bidirectional RNNs, whose layers read both outputs of the layer below."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import is_list_of
from .._base.cell_keys import check_key, fold_in
from .._base.errors import counted, error_note, expect
from .._base.hints import with_hints
from .._base.trees import output_of
from .._base.typing import (
    ArrayLike,
    DType,
    Implementation,
    Key,
    Lengths,
    Params,
    PyTree,
    RNNCellLike,
    Shaped,
    UnboundCellLike,
)
from .._run.memory import Strategy
from .arguments import (
    as_dtype_or_none,
    as_scope,
    check_both_lists,
    check_is_unbound_cell,
)
from .bidirectional import bidirectional_dynamic_rnn, joined, static_bidirectional_rnn

Pair: TypeAlias = tuple[Any, Any]
"""A list for the forward layers and a list for the backward layers.

For zero states, None replaces a list.
"""


@with_hints
def stack_bidirectional_rnn(
    cells_fw: Sequence[RNNCellLike],
    cells_bw: Sequence[RNNCellLike],
    inputs: list[PyTree] | tuple[PyTree, ...],
    initial_states_fw: Sequence[PyTree] | None = None,
    initial_states_bw: Sequence[PyTree] | None = None,
    dtype: DType | None = None,
    sequence_length: Lengths | None = None,
    scope: str | None = None,
    *,
    implementation: Implementation | None = None,
) -> tuple[list[PyTree], tuple[PyTree, ...], tuple[PyTree, ...]]:
    """Runs stacked layers of `static_bidirectional_rnn`.

    Each layer reads both outputs of the layer below. With one `MultiRNNCell` for each
    direction, a layer would read only the output of its own direction.

    Args:
        cells_fw: A sequence of bound cells, one for each layer. Bind cells with dropout
            to different keys, because equal keys drop the same units.
        cells_bw: The cells of the backward direction, one for each layer.
        inputs: A list or tuple with the inputs of each step of the lowest layer, as in
            `static_bidirectional_rnn`.
        initial_states_fw: A list or tuple with the initial forward state of each layer,
            in which None stands for a zero state. Default: zero states.
        initial_states_bw: The initial backward states, like `initial_states_fw`.
        dtype: The dtype of the zero states and of the outputs, as in `dynamic_rnn`;
            required unless all states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`. Default: all steps.
        scope: The name of the layers in profiles; "stack_bidirectional_rnn" by default.
        implementation: As in `dynamic_rnn`, for every layer.

    Returns:
        `(outputs, states_fw, states_bw)`. `outputs` is the list of outputs of the top
        layer, as in `static_bidirectional_rnn`. The two tuples of states hold the final
        state of each layer.

    Raises:
        TypeError: If an entry of `cells_fw` or `cells_bw` is not a cell; see also
            `static_rnn`.
        ValueError: If cells and states are not lists or tuples of equal length, or if
            there are no cells; see also `static_bidirectional_rnn`.

    Source: `tf.contrib.rnn.stack_bidirectional_rnn`, which accepts only lists of cells.
    """
    options: Any = {
        "dtype": as_dtype_or_none(dtype),
        "sequence_length": sequence_length,
        "implementation": implementation,
    }

    def run(fw: Any, bw: Any, xs: PyTree, **given: Any) -> tuple[PyTree, ...]:
        outputs, *state = static_bidirectional_rnn(fw, bw, xs, **given, **options)
        return outputs, state

    cells = cells_fw, cells_bw
    states = initial_states_fw, initial_states_bw
    outputs, finals = run_layers(run, inputs, cells, states, scope)
    return outputs, *finals


@with_hints
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
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
) -> tuple[PyTree, tuple[PyTree, ...], tuple[PyTree, ...]]:
    """Runs stacked layers of `bidirectional_dynamic_rnn`.

    Each layer reads both outputs of the layer below. With one `MultiRNNCell` for each
    direction, a layer would read only the output of its own direction.

    Args:
        cells_fw: A sequence of bound cells, one for each layer. Bind cells with dropout
            to different keys, because equal keys drop the same units.
        cells_bw: The cells of the backward direction, one for each layer.
        inputs: `[batch, time, ...]`, or `[time, batch, ...]` if `time_major`; or a nest
            of such arrays with equal time and batch sizes.
        initial_states_fw: A list or tuple with the initial forward state of each layer,
            in which None stands for a zero state. Default: zero states.
        initial_states_bw: The initial backward states, like `initial_states_fw`.
        dtype: The dtype of the zero states and of the outputs, as in `dynamic_rnn`;
            required unless all states are given.
        sequence_length: The length of each row, `[batch]`, integers, clamped to
            `[0, time]`. Default: all steps.
        parallel_iterations: As in `dynamic_rnn`.
        time_major: Whether time is the first axis of inputs and outputs.
        scope: The name of the layers in profiles; "stack_bidirectional_rnn" by default.
        swap_memory: As in `dynamic_rnn`.
        resets: As in `bidirectional_dynamic_rnn`, in every layer.
        implementation: As in `dynamic_rnn`, for every layer.
        mask: As in `dynamic_rnn`.

    Returns:
        `(outputs, states_fw, states_bw)`. `outputs` are the outputs of the top layer,
        in which the forward and backward outputs are concatenated along axis 2, leaf by
        leaf. The two tuples of states hold the final state of each layer.

    Raises:
        TypeError: If an entry of `cells_fw` or `cells_bw` is not a cell; see also
            `dynamic_rnn`.
        ValueError: If cells and states are not lists or tuples of equal length, there
            are no cells, or the outputs of two cells cannot be concatenated; see also
            `dynamic_rnn`.

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
    outputs, (states_fw, states_bw) = run_dynamic_layers(
        inputs,
        (cells_fw, cells_bw),
        (initial_states_fw, initial_states_bw),
        scope,
        sequence_length=sequence_length,
        dtype=as_dtype_or_none(dtype),
        parallel_iterations=parallel_iterations,
        swap_memory=swap_memory,
        time_major=time_major,
        resets=resets,
        implementation=implementation,
        mask=mask,
    )
    return outputs, states_fw, states_bw


def run_dynamic_layers(
    inputs: PyTree, cells: Pair, states: Pair, scope: str | None, **options: Any
) -> tuple[PyTree, ...]:
    """Runs layers of `bidirectional_dynamic_rnn` with these options.

    Returns `(outputs, (states_fw, states_bw))`. With `return_states`, the result has a
    third element, a pair with the state after each step.
    """

    def run(fw: Any, bw: Any, xs: PyTree, **given: Any) -> tuple[PyTree, ...]:
        outputs, *found = bidirectional_dynamic_rnn(fw, bw, xs, **given, **options)
        return joined(*outputs, axis=2), *found

    return run_layers(run, inputs, cells, states, scope)


def run_layers(
    run: Callable[..., tuple[PyTree, ...]],
    xs: PyTree,
    cells: Pair,
    states: Pair,
    scope: str | None,
) -> tuple[PyTree, ...]:
    """Checks the lists of both directions, and runs one layer after another.

    Returns `(outputs, (states_fw, states_bw))`, where `states_fw` holds the final state
    of each layer. If `run` returns more pairs, so does this function, with a tuple of
    all layers for each direction.

    Args:
        run: Runs one layer; returns `(outputs, (state_fw, state_bw), ...)`.
        xs: The inputs.
        cells: The forward cells and the backward cells.
        states: The initial states of these cells.
        scope: The name of the layers in profiles. None for the default name.
    """
    cells_fw, cells_bw = cells
    check_both_lists(cells_fw, cells_bw)
    depth = len(cells_fw)
    no_states = [None] * depth
    starts = [no_states if given is None else given for given in states]
    must = f"be a list of {counted(depth, 'state')}, one for each layer"
    fix = "Pass lengths as `sequence_length=`."
    for name, given in zip(("fw", "bw"), starts, strict=True):
        fits = is_list_of(given, depth) and not any(isinstance(x, int) for x in given)
        expect(fits, f"initial_states_{name}", must, given, fix)
    finals = []
    with jax.named_scope(as_scope(scope, "stack_bidirectional_rnn")):
        layers = zip(cells_fw, cells_bw, *starts, strict=True)
        for i, (fw, bw, state_fw, state_bw) in enumerate(layers):
            first = {"initial_state_fw": state_fw, "initial_state_bw": state_bw}
            which = f"`initial_state_fw` is entry {i} of the forward states"
            with error_note(f"Raised by layer {i}, where {which}."):
                xs, *final = run(fw, bw, xs, scope=f"cell_{i}", **first)
            finals.append(final)
    return xs, *(tuple(zip(*pairs, strict=True)) for pairs in zip(*finals, strict=True))


def init_stack_bidirectional(
    cells_fw: Sequence[UnboundCellLike],
    cells_bw: Sequence[UnboundCellLike],
    key: Key,
    inputs: Shaped | PyTree,
    dtype: DType | None = None,
) -> tuple[list[Params], list[Params]]:
    """Creates parameters for the cells of `stack_bidirectional_dynamic_rnn`.

    The cells of the lowest layer receive `inputs`. The cells of each other layer
    receive both outputs of the layer below, concatenated.

    Args:
        cells_fw: A sequence of unbound cells, one for each layer.
        cells_bw: The unbound cells of the backward direction, one for each layer.
        key: A random key.
        inputs: One step of inputs, `[batch, depth]` or a nest, as arrays or as
            `jax.ShapeDtypeStruct`s; only shapes and dtypes are used.
        dtype: The dtype of the parameters. Default: the attribute `dtype` of each cell
            or, if this attribute is None, the dtype of the inputs.

    Returns:
        `(params_fw, params_bw)`: two lists with the parameters of each layer, as
        returned by the `init` method of the layer's cell.

    Raises:
        TypeError: If `key` is not a random key, or if a cell has no `init`.
        ValueError: If `cells_fw` and `cells_bw` are not lists or tuples of equal
            length, there are no cells, or the outputs of a layer cannot be
            concatenated.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cells = [jaxrnn.GRUCell(5), jaxrnn.GRUCell(2)]
        >>> step = jax.ShapeDtypeStruct((4, 3), jnp.float32)
        >>> params_fw, params_bw = jaxrnn.init_stack_bidirectional(
        ...     cells, cells, jax.random.key(0), step
        ... )
        >>> [p["gates"]["kernel"].shape for p in params_fw]  # Rows: inputs and state.
        [(8, 10), (12, 4)]
    """
    check_both_lists(cells_fw, cells_bw)
    check_key(key)
    params_fw: list[Params] = []
    params_bw: list[Params] = []
    directions = (("cells_fw", cells_fw, params_fw), ("cells_bw", cells_bw, params_bw))
    for i in range(len(cells_fw)):
        outputs = []
        with error_note(f"Raised by layer {i}."):
            for n, (name, cells, params) in enumerate(directions):
                check_is_unbound_cell(f"{name}[{i}]", cells[i])
                params.append(cells[i].init(fold_in(key, 2 * i + n), inputs, dtype))
                outputs.append(output_of(cells[i], params[i], inputs, dtype))
            inputs = jax.eval_shape(lambda *pair: joined(*pair, axis=1), *outputs)
    return params_fw, params_bw
