"""Unidirectional and bidirectional layers, and stacks of bidirectional layers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_both_lists, check_entries, check_instance
from .._base.cell_keys import fold
from .._base.errors import InvalidValue, describe, describe_structure
from .._base.typing import DType, Key, Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMStateTuple
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from .._drivers.dynamic_rnn import dynamic_rnn
from .._loops.masking import reverse_resets, reverse_sequence
from .cell_checks import check_are_cells, check_count, params_of_cell, unwrapped
from .layer import Layer, RunOptions


@dataclasses.dataclass(frozen=True)
class OneDirection(Layer):
    """A cell that reads each row from its first step to its last, or in reverse.

    Attributes:
        cell: The cell.
        reverse: Whether the cell reads each row from its last step to its first.
        keep_order: Whether the outputs of a reversed run are in the order of the
            inputs; otherwise they are in the order in which they are computed.
    """

    cell: RNNCell
    reverse: bool = False
    keep_order: bool = False

    @property
    def name(self) -> str:
        """The cell's TensorFlow scope, the key of its parameters."""
        return scope_name(unwrapped(self.cell))

    def parts(self) -> Mapping[str, RNNCell]:
        """The cell, under the name of its scope."""
        return {self.name: self.cell}

    def bind(self, params: Params, key: Key | None = None) -> BoundCell:
        """The cell, bound to its part of `params`."""
        return self.cell.bind(params[self.name], key)

    def params_of(self, *cells: Any) -> Params:
        """The parameters of a single bound cell, as `{scope: parameters}`."""
        (cell,) = check_count(1, cells)
        return {self.name: params_of_cell(self.cell, cell)}

    def run(
        self, params: Params, inputs: PyTree, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """Runs `dynamic_rnn`, over reversed rows if `reverse` is True."""
        cell, arguments = self.bind(params, options.key), options.as_arguments()
        lengths, time_major = options.sequence_length, options.time_major
        flip = lambda tree: reverse_sequence(tree, lengths, time_major)
        if self.reverse:
            inputs, arguments["mask"] = flip((inputs, options.mask))
            args = options.resets, lengths, options.mask, time_major
            arguments["resets"] = reverse_resets(*args)
        results = dynamic_rnn(cell, inputs, initial_state=state, **arguments)
        if self.reverse and self.keep_order:
            outputs, state, *states = results
            return flip(outputs), state, *flip(states)
        return results


@dataclasses.dataclass(frozen=True)
class TwoDirections(Layer):
    """A forward cell and a backward cell, with parameters under `fw` and `bw`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the layer.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: Callable[[PyTree, PyTree], PyTree]

    def parts(self) -> Mapping[str, OneDirection]:
        """The forward and the backward direction, under `fw` and `bw`."""
        return {"fw": OneDirection(self.cell_fw), "bw": OneDirection(self.cell_bw)}

    def params_of(self, *cells: Any) -> Params:
        """The parameters of two cells: `{"fw": {scope: ...}, "bw": {scope: ...}}`."""
        pairs = zip(self.parts().items(), check_count(2, cells), strict=True)
        # Converters return lists of cells, one cell for each layer.
        as_list = lambda cell: cell if isinstance(cell, list | tuple) else (cell,)
        return {k: part.params_of(*as_list(c)) for (k, part), c in pairs}

    def run(
        self, params: Params, inputs: PyTree, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """Runs `bidirectional_dynamic_rnn`, and merges its outputs."""
        fw, bw = self.bind(params, options.key)
        state = (None, None) if state is None else state
        what = "a pair (state_fw, state_bw)"
        if isinstance(state, LSTMStateTuple):  # An LSTMStateTuple is also a pair.
            got = describe_structure(state)
            raise InvalidValue(f"`initial_state` must be {what}, got {got}.")
        check_entries("initial_state", state, 2, what)
        arguments = options.as_arguments()
        if arguments.pop("reset_state") is not None:
            raise InvalidValue(
                "`reset_state` must be None for two directions, which are always reset "
                f"to zeros, got {describe(options.reset_state)}."
            )
        arguments["initial_state_fw"], arguments["initial_state_bw"] = state
        outputs, *states = bidirectional_dynamic_rnn(fw, bw, inputs, **arguments)
        return self.merge(*outputs), *states


@dataclasses.dataclass(frozen=True)
class Stack(Layer):
    """Bidirectional layers, each of which reads the outputs of the layer below.

    The parameters are stored under `cell_0`, `cell_1`, ..., lowest layer first.

    Attributes:
        layers: The layers, lowest first.
    """

    layers: tuple[TwoDirections, ...]

    def parts(self) -> Mapping[str, TwoDirections]:
        """The layers, under `cell_0`, `cell_1`, and so on."""
        return {f"cell_{i}": layer for i, layer in enumerate(self.layers)}

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters of one layer, given one step of the stack's inputs."""
        for below, layer in self.parts().items():
            if below == name:
                break
            init = functools.partial(layer.init, step=step, dtype=dtype)
            run = functools.partial(layer.run_step, options=RunOptions(dtype))
            step, _ = jax.eval_shape(run, jax.eval_shape(init, key), step)
        return super().init_part(name, key, step, dtype)

    def bind(self, params: Params, key: Key | None = None) -> tuple[Any, ...]:
        """A tuple of bound forward cells, and a tuple of bound backward cells."""
        return tuple(zip(*super().bind(params, key), strict=True))

    def params_of(self, *cells: Any) -> Params:
        """The parameters of all cells: `{"cell_0": {"fw": ..., "bw": ...}, ...}`."""
        for each in check_count(2, cells):
            check_count(len(self.layers), each)
        pairs = zip(self.parts().items(), *cells, strict=True)
        return {n: layer.params_of(*pair) for (n, layer), *pair in pairs}

    def run(
        self, params: Params, inputs: PyTree, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """Returns the outputs of the top layer and the states of all layers."""
        found = []
        layers = zip(self.parts().items(), self._pairs(state), strict=True)
        for i, ((name, layer), pair) in enumerate(layers):
            own = dataclasses.replace(options, key=fold(options.key, i))
            inputs, *of_layer = layer.run(params[name], inputs, pair, own)
            found.append(of_layer)  # Final states, and optionally states of all steps.
        return inputs, *(tuple(zip(*s, strict=True)) for s in zip(*found, strict=True))

    def _pairs(self, state: PyTree) -> list[Any]:
        """The forward and the backward initial state of each layer.

        Raises:
            ValueError: If `state` is not two sequences with one state for each layer.
        """
        count = len(self.layers)
        if state is None:
            return [None] * count
        has_length = lambda x, n: isinstance(x, tuple | list) and len(x) == n
        if not has_length(state, 2) or not all(has_length(s, count) for s in state):
            raise InvalidValue(
                "`initial_state` must be (states_fw, states_bw), two sequences of "
                f"length {count}, one state per layer, got {describe_structure(state)}."
            )
        return list(zip(*state, strict=True))


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Concatenates the outputs of both directions along the last axis of each leaf."""
    join = lambda fw, bw: jnp.concatenate([fw, bw], axis=-1)
    return jax.tree.map(join, outputs_fw, outputs_bw)


def make_one_direction(
    cell: Any, reverse: bool = False, keep_order: bool = False
) -> OneDirection:
    """A unidirectional layer; raises TypeError if the cell is not an `RNNCell`."""
    check_are_cells(cell=cell)
    return OneDirection(cell, reverse, keep_order)


def make_two_directions(fw: Any, bw: Any, merge: Any) -> TwoDirections:
    """A bidirectional layer.

    Raises:
        TypeError: If a cell is not an `RNNCell`, or `merge` is not a function.
    """
    check_are_cells(cell_fw=fw, cell_bw=bw)
    what, fix = "a function of both outputs", "Pass `jnp.add` to sum them."
    check_instance("merge", merge, Callable, what, fix)
    return TwoDirections(fw, bw, merge)


def make_stack(cells_fw: Any, cells_bw: Any) -> Stack:
    """A stack of bidirectional layers.

    Raises:
        TypeError: If a cell is not an `RNNCell`.
        ValueError: If there are no cells, or if the two directions have different
            numbers of cells.
    """
    check_both_lists(cells_fw, cells_bw)
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        named = {f"{name}[{i}]": cell for i, cell in enumerate(cells)}
        check_are_cells(**named)
    pairs = zip(cells_fw, cells_bw, strict=True)
    return Stack(tuple(TwoDirections(fw, bw, concatenate) for fw, bw in pairs))
