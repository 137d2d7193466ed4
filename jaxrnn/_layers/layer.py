"""Layers: cells, and in which directions they run over time.

What modules of Flax hold. Nothing here knows of Flax: a layer makes parameters, and
runs with them.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import dce_jaxpr
from .._autodiff.leaves import is_float
from .._base.arguments import check_both_lists
from .._base.errors import describe
from .._base.keys import fold
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from .._drivers.dynamic_rnn import dynamic_rnn
from .._time import masking
from .cells import check_cells, core, params_of, so_many


@dataclasses.dataclass(frozen=True)
class Way:
    """How a layer runs: what the drivers call by the same names."""

    dtype: DType
    key: Key | None = None
    time_major: bool = False
    parallel_iterations: int | None = None
    swap_memory: Any = False
    implementation: Any = None

    def as_arguments(self) -> dict[str, Any]:
        """For a driver."""
        values = vars(self).copy()
        del values["key"]
        return values

    def reverse(self, tree: PyTree, lengths: Array | None) -> PyTree:
        """Sequences from the last step of each row to the first."""
        return masking.reverse_sequence(tree, lengths, self.time_major)


class Layer(abc.ABC):
    """Cells that run over time together.

    Their parameters are nested dicts, each cell's under TensorFlow's name of its scope.
    """

    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The keys of the parameters."""

    @abc.abstractmethod
    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """The parameters under one of the names; see `init`."""

    def init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Fresh parameters for such a step of inputs, each leaf `[batch, ...]`."""
        keys = jax.random.split(key, len(self.names()))
        named = zip(self.names(), keys, strict=True)
        return {name: self.init_part(name, k, step, dtype) for name, k in named}

    @abc.abstractmethod
    def run(
        self,
        params: Params,
        inputs: PyTree,
        lengths: Array | None,
        state: PyTree,
        way: Way,
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of sequences with one axis of rows."""

    @abc.abstractmethod
    def bound(self, params: Params, key: Key | None = None) -> Any:
        """The cells with these parameters, nested as the layer was given its cells."""

    @abc.abstractmethod
    def unbound(self, where: str, *cells: Any) -> Params:
        """The parameters of the cells that `bound` gave, or of such.

        Raises:
            TypeError: If one is no cell with its parameters.
            ValueError: If one is of another cell than the layer's.
        """

    @property
    @abc.abstractmethod
    def lowest(self) -> RNNCell:
        """A cell that reads the inputs."""

    def of_one_step(
        self, params: Params, step: PyTree, way: Way
    ) -> tuple[PyTree, PyTree]:
        """The output of one step, and the state after it."""
        axis = 0 if way.time_major else 1
        steps = jax.tree.map(lambda x: jnp.expand_dims(x, axis), step)
        outputs, state = self.run(params, steps, None, None, way)
        return jax.tree.map(lambda y: jnp.squeeze(y, axis), outputs), state

    def draws(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether a random key changes anything."""

        def run(key: Key, *given: PyTree) -> PyTree:
            params, step = in_dtype(dtype, given)
            return self.of_one_step(params, step, Way(dtype, key))

        key = jax.eval_shape(lambda: jax.random.key(0))
        jaxpr = jax.make_jaxpr(run)(key, params, step).jaxpr
        _, is_used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return is_used[0]

    def check_quiet(
        self, where: str, params: Params, step: PyTree, dtype: DType
    ) -> None:
        """Raises ValueError if a random key changes anything."""
        if self.draws(params, step, dtype):
            raise ValueError(
                f"{where}: a cell that draws noise, {self.lowest!r}, gets no keys from "
                "Flax's RNN. Use the RNN of jaxrnn, or the cell without noise."
            )


@dataclasses.dataclass(frozen=True)
class OneWay(Layer):
    """A cell from the first step of each row to the last, or the other way.

    Attributes:
        cell: The cell.
        reverse: Whether it begins with the last step.
        keep_order: Whether the outputs of a reversed run stand beside their inputs.
    """

    cell: RNNCell
    reverse: bool = False
    keep_order: bool = False

    def names(self) -> tuple[str, ...]:
        """The cell's scope."""
        return (core(self.cell)._scope(),)

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """The cell's parameters."""
        del name
        return self.cell.init(key, step, dtype)

    def run(
        self,
        params: Params,
        inputs: PyTree,
        lengths: Array | None,
        state: PyTree,
        way: Way,
    ) -> tuple[PyTree, PyTree]:
        """As `dynamic_rnn`."""
        cell = self.bound(params, way.key)
        inputs = way.reverse(inputs, lengths) if self.reverse else inputs
        outputs, state = dynamic_rnn(cell, inputs, lengths, state, **way.as_arguments())
        if self.reverse and self.keep_order:
            outputs = way.reverse(outputs, lengths)
        return outputs, state

    def bound(self, params: Params, key: Key | None = None) -> BoundCell:
        """The cell with its parameters."""
        (name,) = self.names()
        return self.cell.bind(params[name], key)

    def unbound(self, where: str, *cells: Any) -> Params:
        """`{scope: parameters}` of one cell."""
        (name,) = self.names()
        (cell,) = so_many(where, 1, cells)
        return {name: params_of(where, self.cell, cell)}

    @property
    def lowest(self) -> RNNCell:
        """The cell."""
        return self.cell


@dataclasses.dataclass(frozen=True)
class TwoWays(Layer):
    """A cell forwards and one backwards.

    Attributes:
        cell_fw: The cell forwards.
        cell_bw: The cell backwards.
        merge: `merge(outputs_fw, outputs_bw)`, what is put out.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: Callable[[PyTree, PyTree], PyTree]

    def names(self) -> tuple[str, ...]:
        """`fw` and `bw`."""
        return ("fw", "bw")

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """`{scope: the cell's parameters}`."""
        return self._ways()[name].init(key, step, dtype)

    def run(
        self,
        params: Params,
        inputs: PyTree,
        lengths: Array | None,
        state: PyTree,
        way: Way,
    ) -> tuple[PyTree, PyTree]:
        """As `bidirectional_dynamic_rnn`, the outputs merged; a pair of states."""
        fw, bw = self.bound(params, way.key)
        pair = (None, None) if state is None else state
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                "`initial_state` must be a pair, of the state forwards and the state "
                f"backwards, got {describe(state)}."
            )
        state_fw, state_bw = pair
        (outputs_fw, outputs_bw), states = bidirectional_dynamic_rnn(
            fw, bw, inputs, lengths, state_fw, state_bw, **way.as_arguments()
        )
        return self.merge(outputs_fw, outputs_bw), states

    def bound(self, params: Params, key: Key | None = None) -> Any:
        """Both cells with their parameters."""
        return tuple(
            one.bound(params[name], fold(key, i))
            for i, (name, one) in enumerate(self._ways().items())
        )

    def unbound(self, where: str, *cells: Any) -> Params:
        """`{"fw": {scope: ...}, "bw": {scope: ...}}` of two cells."""
        pairs = zip(self._ways().items(), so_many(where, 2, cells), strict=True)
        # Converters give lists of cells, one for each layer.
        only = lambda cell: cell if isinstance(cell, list | tuple) else (cell,)
        return {name: one.unbound(where, *only(cell)) for (name, one), cell in pairs}

    @property
    def lowest(self) -> RNNCell:
        """One of the two."""
        return self.cell_fw

    def _ways(self) -> dict[str, OneWay]:
        return {"fw": OneWay(self.cell_fw), "bw": OneWay(self.cell_bw)}


@dataclasses.dataclass(frozen=True)
class Stack(Layer):
    """Layers one on the other: each reads what the one below puts out."""

    layers: tuple[Layer, ...]

    def names(self) -> tuple[str, ...]:
        """`cell_0`, `cell_1`, ..., from the lowest."""
        return tuple(f"cell_{i}" for i in range(len(self.layers)))

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """The parameters of one layer."""
        place = self.names().index(name)
        for layer in self.layers[:place]:
            init = functools.partial(layer.init, step=step, dtype=dtype)
            run = functools.partial(layer.of_one_step, way=Way(dtype))
            step, _ = jax.eval_shape(run, jax.eval_shape(init, key), step)
        return self.layers[place].init(key, step, dtype)

    def run(
        self,
        params: Params,
        inputs: PyTree,
        lengths: Array | None,
        state: PyTree,
        way: Way,
    ) -> tuple[PyTree, PyTree]:
        """The outputs of the highest layer, and a tuple with each layer's state."""
        finals = []
        states = [None] * len(self.layers) if state is None else state
        if not isinstance(states, tuple | list) or len(states) != len(self.layers):
            raise ValueError(
                f"`initial_state` must have a pair of states for each of "
                f"{len(self.layers)} layers, got {describe(state)}."
            )
        layers = zip(self.names(), self.layers, states, strict=True)
        for name, layer, state in layers:
            its_way = dataclasses.replace(way, key=fold(way.key, len(finals)))
            inputs, final = layer.run(params[name], inputs, lengths, state, its_way)
            finals.append(final)
        return inputs, tuple(finals)

    def bound(self, params: Params, key: Key | None = None) -> Any:
        """A tuple of cells forwards and one of cells backwards, with parameters."""
        pairs = [
            layer.bound(params[name], fold(key, i))
            for i, (name, layer) in enumerate(
                zip(self.names(), self.layers, strict=True)
            )
        ]
        return tuple(zip(*pairs, strict=True))

    def unbound(self, where: str, *cells: Any) -> Params:
        """`{"cell_0": {"fw": ...}, ...}` of cells forwards and cells backwards."""
        for each in so_many(where, 2, cells):
            so_many(where, len(self.layers), each)
        layers = zip(self.names(), self.layers, *cells, strict=True)
        return {name: layer.unbound(where, *pair) for name, layer, *pair in layers}

    @property
    def lowest(self) -> RNNCell:
        """That of the lowest layer."""
        return self.layers[0].lowest


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """Floating arrays in that dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Both side by side, along the last axis of each leaf."""
    join = lambda fw, bw: jnp.concatenate([fw, bw], axis=-1)
    return jax.tree.map(join, outputs_fw, outputs_bw)


def pair(where: str, cell_fw: Any, cell_bw: Any, merge: Any) -> TwoWays:
    """A layer of two directions.

    Raises:
        TypeError: If one is no cell, or `merge` is no function.
    """
    check_cells(where, cell_fw=cell_fw, cell_bw=cell_bw)
    if not callable(merge):
        raise TypeError(
            f"{where}: `merge` must be a function of both outputs, got "
            f"{describe(merge)}. `jnp.add` sums them."
        )
    return TwoWays(cell_fw, cell_bw, merge)


def stack(where: str, cells_fw: Any, cells_bw: Any) -> Stack:
    """Layers of two directions.

    Raises:
        TypeError: If one is no cell.
        ValueError: If there are no cells, or not as many of both.
    """
    check_both_lists(where, cells_fw, cells_bw)
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        check_cells(where, **{f"{name}[{i}]": cell for i, cell in enumerate(cells)})
    pairs = zip(cells_fw, cells_bw, strict=True)
    return Stack(tuple(TwoWays(fw, bw, concatenate) for fw, bw in pairs))
