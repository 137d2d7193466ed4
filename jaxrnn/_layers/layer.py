"""Layers: one or more cells that run over sequences as a unit.

Each linen or nnx module holds a layer: a cell with one direction, a pair of cells with
two directions, or a stack of such pairs. Layers do not depend on Flax.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .._base.arguments import check_both_lists, check_entries, check_instance
from .._base.cell_keys import fold
from .._base.errors import InvalidValue, describe, describe_structure
from .._base.lengths import lengths_for
from .._base.math import is_float
from .._base.typing import DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random, check_rnn_cell, scope_name
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMStateTuple
from .._drivers.bidirectional import (
    bidirectional_dynamic_rnn,
    joined,
    run_backward,
)
from .._drivers.dynamic_rnn import dynamic_rnn
from .checks import check_count, params_of_cell, unwrapped

BoundCells: TypeAlias = Any
"""A bound cell, or a tuple of bound cells or of such tuples."""
Merge: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`merge(outputs_fw, outputs_bw)` returns the outputs of a layer."""


class Layer(abc.ABC):
    """One or more cells that run over sequences as a unit.

    The parameters are nested dicts. Each cell's parameters are stored under the name of
    the cell's scope in TensorFlow.
    """

    @abc.abstractmethod
    def parts(self) -> "Mapping[str, RNNCell | Layer]":
        """The cells or sublayers, each under the key of its parameters."""

    @property
    def cells(self) -> tuple[RNNCell, ...]:
        """All cells; the first cell reads the inputs."""
        cells: list[RNNCell] = []
        for part in self.parts().values():
            cells.extend(part.cells if isinstance(part, Layer) else [part])
        return tuple(cells)

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters of one cell or sublayer; see `init`."""
        return self.parts()[name].init(key, step, dtype)

    def init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters, given one step of inputs with leaves `[batch, ...]`."""
        names = self.parts()
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: self.init_part(name, k, step, dtype) for name, k in keys}

    def bind(self, params: Params, key: Key | None = None) -> BoundCells:
        """The bound cells, in the structure that the layer was constructed from."""
        parts = enumerate(self.parts().items())
        return tuple(part.bind(params[k], fold(key, i)) for i, (k, part) in parts)

    @abc.abstractmethod
    def params_of(self, *cells: BoundCells) -> Params:
        """The parameters of bound cells; the inverse of `bind`.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this layer's cells.
        """

    @abc.abstractmethod
    def run(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        key: Key | None,
        **options: Any,
    ) -> tuple[PyTree, ...]:
        """Runs over sequences with one batch axis, and returns `(outputs, state)`.

        Args:
            params: Parameters as `init` returns them.
            inputs: `[rows, time, ...]`, or `[time, rows, ...]` if `time_major`; or a
                nest of such arrays.
            state: The initial state, each leaf `[rows, ...]`; None for the zero state.
            key: The random key of the run; None for a deterministic run.
            **options: Arguments of `dynamic_rnn`. With `return_states`, a third value
                is returned: the states after all steps, with the axes of the outputs.
        """

    def run_step(
        self, params: Params, step: PyTree, dtype: DType, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step from the zero state, and returns `(output, state)`."""
        inputs = jax.tree.map(lambda x: jnp.expand_dims(x, 1), step)
        outputs, state = self.run(params, inputs, None, key, dtype=dtype)
        return jax.tree.map(lambda y: jnp.squeeze(y, 1), outputs), state

    def draws_random_numbers(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether any cell draws random numbers."""
        declared = any_is_random(self.cells)
        return self._reads_key(params, step, dtype) if declared is None else declared

    def _reads_key(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether any result of one step depends on the random key.

        One step is traced under `vmap` over keys. The results that become batched
        depend on the key.
        """
        has_axis: list[bool] = []

        @custom_vmap
        def observe(results: PyTree) -> PyTree:
            return results

        @observe.def_vmap
        def _(size: int, is_batched: list, results: PyTree) -> tuple[PyTree, PyTree]:
            del size
            has_axis.extend(jax.tree.leaves(is_batched))
            return results, is_batched[0]

        def run(keys: Key, *arguments: PyTree) -> PyTree:
            params, step = in_dtype(dtype, arguments)
            run = functools.partial(self.run_step, params, step, dtype)
            return jax.vmap(lambda key: observe(run(key)))(keys)

        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
        jax.eval_shape(run, keys, params, step)
        return any(has_axis)

    def check_not_random(self, params: Params, step: PyTree, dtype: DType) -> None:
        """Raises ValueError for a cell that draws random numbers."""
        if self.draws_random_numbers(params, step, dtype):
            raise InvalidValue(
                "`cell` must not draw random numbers, because Flax's RNN gives it no "
                f"keys, got {self.cells[0]!r}. Use the RNN of jaxrnn."
            )


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

    def params_of(self, *cells: BoundCells) -> Params:
        """The parameters of a single bound cell, as `{scope: parameters}`."""
        (cell,) = check_count(1, cells)
        return {self.name: params_of_cell(self.cell, cell)}

    def run(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        key: Key | None,
        **options: Any,
    ) -> tuple[PyTree, ...]:
        """Runs `dynamic_rnn`, over reversed rows if `reverse` is True."""
        cell = self.bind(params, key)
        if not self.reverse:
            return dynamic_rnn(cell, inputs, initial_state=state, **options)
        batch_axis = 1 if options.get("time_major", False) else 0
        time = jax.tree.leaves(inputs)[0].shape[1 - batch_axis]
        lengths = options.get("sequence_length")
        options["sequence_length"] = lengths_for(lengths, inputs, time, batch_axis)
        return run_backward(
            cell, inputs, initial_state=state, keep_order=self.keep_order, **options
        )


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
    merge: Merge

    def parts(self) -> Mapping[str, OneDirection]:
        """The forward and the backward direction, under `fw` and `bw`."""
        return {"fw": OneDirection(self.cell_fw), "bw": OneDirection(self.cell_bw)}

    def params_of(self, *cells: BoundCells) -> Params:
        """The parameters of two cells: `{"fw": {scope: ...}, "bw": {scope: ...}}`."""
        params: Params = {}
        pairs = zip(self.parts().items(), check_count(2, cells), strict=True)
        for (name, part), own in pairs:
            # Converters return lists of cells, one cell for each layer.
            listed = own if isinstance(own, list | tuple) else [own]
            params[name] = part.params_of(*listed)
        return params

    def run(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        key: Key | None,
        **options: Any,
    ) -> tuple[PyTree, ...]:
        """Runs `bidirectional_dynamic_rnn`, and merges its outputs."""
        what = "a pair (state_fw, state_bw)"
        if state is None:
            state = (None, None)
        elif isinstance(state, LSTMStateTuple):  # An LSTMStateTuple is also a pair.
            got = describe_structure(state)
            raise InvalidValue(f"`initial_state` must be {what}, got {got}.")
        check_entries("initial_state", state, 2, what)
        reset_state = options.pop("reset_state", None)
        if reset_state is not None:
            raise InvalidValue(
                "`reset_state` must be None for two directions, which are always reset "
                f"to zeros, got {describe(reset_state)}."
            )
        cell_fw, cell_bw = self.bind(params, key)
        state_fw, state_bw = state
        outputs, *states = bidirectional_dynamic_rnn(
            cell_fw,
            cell_bw,
            inputs,
            initial_state_fw=state_fw,
            initial_state_bw=state_bw,
            **options,
        )
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
            run = functools.partial(layer.run_step, dtype=dtype)
            step, _ = jax.eval_shape(run, jax.eval_shape(init, key), step)
        return super().init_part(name, key, step, dtype)

    def bind(self, params: Params, key: Key | None = None) -> BoundCells:
        """A tuple of bound forward cells, and a tuple of bound backward cells."""
        return tuple(zip(*super().bind(params, key), strict=True))

    def params_of(self, *cells: BoundCells) -> Params:
        """The parameters of all cells: `{"cell_0": {"fw": ..., "bw": ...}, ...}`."""
        cells_fw, cells_bw = check_count(2, cells)
        check_count(len(self.layers), cells_fw)
        check_count(len(self.layers), cells_bw)
        layers = zip(self.parts().items(), cells_fw, cells_bw, strict=True)
        return {name: layer.params_of(fw, bw) for (name, layer), fw, bw in layers}

    def run(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        key: Key | None,
        **options: Any,
    ) -> tuple[PyTree, ...]:
        """Returns the outputs of the top layer and the states of all layers."""
        found = []
        layers = zip(self.parts().items(), self._pairs(state), strict=True)
        for i, ((name, layer), pair) in enumerate(layers):
            inputs, *of_layer = layer.run(
                params[name], inputs, pair, fold(key, i), **options
            )
            found.append(of_layer)  # Final states, and optionally states of all steps.
        return inputs, *(tuple(zip(*s, strict=True)) for s in zip(*found, strict=True))

    def _pairs(self, state: PyTree) -> list[PyTree]:
        """The forward and the backward initial state of each layer.

        Raises:
            ValueError: If `state` is not two sequences with one state for each layer.
        """
        count = len(self.layers)
        if state is None:
            return [None] * count
        what = f"(states_fw, states_bw), each with one state for each of {count} layers"
        check_entries("initial_state", state, 2, what)
        for states in state:
            check_entries("initial_state", states, count, what)
        return list(zip(*state, strict=True))


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Concatenates the outputs of both directions along the last axis of each leaf."""
    return joined(outputs_fw, outputs_bw, axis=-1)


def make_one_direction(
    cell: RNNCell, reverse: bool = False, keep_order: bool = False
) -> OneDirection:
    """A unidirectional layer; raises TypeError if the cell is not an `RNNCell`."""
    check_rnn_cell("cell", cell)
    return OneDirection(cell, reverse, keep_order)


def make_two_directions(fw: RNNCell, bw: RNNCell, merge: Merge) -> TwoDirections:
    """A bidirectional layer.

    Raises:
        TypeError: If a cell is not an `RNNCell`, or `merge` is not a function.
    """
    check_rnn_cell("cell_fw", fw)
    check_rnn_cell("cell_bw", bw)
    fix = "Pass `jnp.add` to sum them."
    check_instance("merge", merge, Callable, "a function of both outputs", fix)
    return TwoDirections(fw, bw, merge)


def make_stack(cells_fw: Sequence[RNNCell], cells_bw: Sequence[RNNCell]) -> Stack:
    """A stack of bidirectional layers.

    Raises:
        TypeError: If a cell is not an `RNNCell`.
        ValueError: If there are no cells, or if the two directions have different
            numbers of cells.
    """
    check_both_lists(cells_fw, cells_bw)
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        for i, cell in enumerate(cells):
            check_rnn_cell(f"{name}[{i}]", cell)
    pairs = zip(cells_fw, cells_bw, strict=True)
    return Stack(tuple(TwoDirections(fw, bw, concatenate) for fw, bw in pairs))


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating-point arrays cast to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
