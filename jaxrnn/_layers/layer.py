"""`Layer`: one or more cells that run over sequences as a unit.

Each linen or nnx module holds a layer. Layers do not depend on Flax.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .._base.cell_keys import fold
from .._base.errors import InvalidValue
from .._base.math import is_float
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options for running a layer: a random key, and arguments for the drivers.

    Attributes:
        dtype: The dtype of the zero state and of the outputs.
        key: The random key of the run, or None for a deterministic run.
        sequence_length: int32 `[rows]`, or None for all steps.
        resets: Bool, in the shape of the inputs' first two axes, or None.
        reset_state: As in `dynamic_rnn`; must be None for bidirectional layers.
        time_major: As in `dynamic_rnn`.
        parallel_iterations: As in `dynamic_rnn`.
        swap_memory: As in `dynamic_rnn`.
        implementation: As in `dynamic_rnn`.
        mask: Bool, in the shape of the inputs' first two axes, or None.
        return_states: As in `dynamic_rnn`.
    """

    dtype: DType
    key: Key | None = None
    sequence_length: Array | None = None
    resets: Array | None = None
    reset_state: PyTree = None
    time_major: bool = False
    parallel_iterations: int | None = None
    swap_memory: Any = False
    implementation: Any = None
    mask: Array | None = None
    return_states: bool = False

    @classmethod
    def of(
        cls, module: Any, dtype: DType, key: Key | None, **given: Any
    ) -> "RunOptions":
        """Reads a module's options from its attributes of the same names.

        The arguments in `given` come from a call of the module. Arguments other than
        None override attributes and defaults.
        """
        names = ("time_major", "parallel_iterations", "swap_memory", "implementation")
        options = {name: getattr(module, name) for name in (*names, "return_states")}
        options |= {name: value for name, value in given.items() if value is not None}
        options["return_states"] = bool(options["return_states"])
        return cls(dtype, key, **options)

    def as_arguments(self) -> dict[str, Any]:
        """The options as keyword arguments for a driver."""
        return {name: value for name, value in vars(self).items() if name != "key"}


class Layer(abc.ABC):
    """One or more cells that run over sequences as a unit.

    The parameters are nested dicts. Each cell's parameters are stored under the name of
    the cell's scope in TensorFlow.
    """

    @abc.abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """The cells or sublayers, each under the key of its parameters."""

    @property
    def cells(self) -> tuple[RNNCell, ...]:
        """All cells; the first cell reads the inputs."""
        cells_of = lambda part: part.cells if isinstance(part, Layer) else (part,)
        return tuple(cell for part in self.parts().values() for cell in cells_of(part))

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters of one cell or sublayer; see `init`."""
        return self.parts()[name].init(key, step, dtype)

    def init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Initial parameters, given one step of inputs with leaves `[batch, ...]`."""
        names = self.parts()
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: self.init_part(name, k, step, dtype) for name, k in keys}

    def bind(self, params: Params, key: Key | None = None) -> Any:
        """The bound cells, in the structure that the layer was constructed from."""
        parts = enumerate(self.parts().items())
        return tuple(part.bind(params[k], fold(key, i)) for i, (k, part) in parts)

    @abc.abstractmethod
    def params_of(self, *cells: Any) -> Params:
        """The parameters of bound cells; the inverse of `bind`.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this layer's cells.
        """

    @abc.abstractmethod
    def run(
        self, params: Params, inputs: PyTree, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """Runs over sequences with one batch axis, and returns `(outputs, state)`.

        Args:
            params: Parameters as `init` returns them.
            inputs: `[rows, time, ...]`, or `[time, rows, ...]` if
                `options.time_major`; or a nest of such arrays.
            state: The initial state, each leaf `[rows, ...]`; None for the zero state.
            options: The options of the run. With `return_states`, a third value is
                returned: the states after all steps, with the axes of the outputs.
        """

    def run_step(
        self, params: Params, step: PyTree, options: RunOptions
    ) -> tuple[PyTree, PyTree]:
        """Runs one step from the zero state, and returns `(output, state)`."""
        inputs = jax.tree.map(lambda x: jnp.expand_dims(x, 1), step)
        outputs, state, *_ = self.run(params, inputs, None, options)
        return jax.tree.map(lambda y: jnp.squeeze(y, 1), outputs), state

    def draws_random_numbers(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether any cell draws random numbers."""
        declared = any_is_random(self.cells)
        if declared is None:
            return self._reads_key(params, step, dtype)
        return declared

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
            run = lambda key: self.run_step(params, step, RunOptions(dtype, key))
            return jax.vmap(lambda key: observe(run(key)))(keys)

        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
        jax.eval_shape(run, keys, params, step)
        return any(has_axis)

    def check_not_random(self, params: Params, step: PyTree, dtype: DType) -> None:
        """Raises ValueError for a cell that draws random numbers."""
        if self.draws_random_numbers(params, step, dtype):
            raise InvalidValue(
                "`cell` must not draw random numbers, because Flax's RNN "
                f"gives it no keys, got {self.cells[0]!r}. Use the RNN of jaxrnn, or a "
                "cell that draws none."
            )


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating-point arrays cast to `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
