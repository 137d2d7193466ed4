"""`Layer`: cells that run over time together, with their parameters.

The modules of linen and nnx hold layers, which do not depend on Flax.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .._base.cell_keys import fold
from .._base.math import is_float
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a layer runs: a random key, and arguments of the drivers.

    Attributes:
        dtype: The dtype of the zero state and of the outputs.
        key: The random key of the run, or None for a deterministic run.
        sequence_length: int32 `[rows]`, or None for all steps.
        resets: Bool, with the first two axes of the inputs, or None.
        reset_state: As in `dynamic_rnn`; None for layers of two directions.
        time_major: As in `dynamic_rnn`.
        parallel_iterations: As in `dynamic_rnn`.
        swap_memory: As in `dynamic_rnn`.
        implementation: As in `dynamic_rnn`.
        mask: Bool, with the first two axes of the inputs, or None.
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
        """The options of a module, from its attributes of the same names.

        `given` are arguments of its call; one that is None leaves the attribute, or the
        default.
        """
        names = ("time_major", "parallel_iterations", "swap_memory", "implementation")
        options = {name: getattr(module, name) for name in (*names, "return_states")}
        options |= {name: value for name, value in given.items() if value is not None}
        options["return_states"] = bool(options["return_states"])
        return cls(dtype, key, **options)

    def as_arguments(self) -> dict[str, Any]:
        """Keyword arguments of a driver."""
        return {name: value for name, value in vars(self).items() if name != "key"}


class Layer(abc.ABC):
    """Cells that run over time together.

    Their parameters are nested dicts, those of a cell under the name that TensorFlow
    gives its scope.
    """

    @abc.abstractmethod
    def parts(self) -> Mapping[str, Any]:
        """The cells or layers that it consists of, under the keys of the parameters."""

    @property
    def cells(self) -> tuple[RNNCell, ...]:
        """All cells; the first reads the inputs."""
        cells_of = lambda part: part.cells if isinstance(part, Layer) else (part,)
        return tuple(cell for part in self.parts().values() for cell in cells_of(part))

    def init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """The parameters of one part; see `init`."""
        return self.parts()[name].init(key, step, dtype)

    def init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Fresh parameters for one step of inputs, each leaf `[batch, ...]`."""
        names = self.parts()
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: self.init_part(name, k, step, dtype) for name, k in keys}

    def bind(self, params: Params, key: Key | None = None) -> Any:
        """The bound cells, in the structure in which the layer was given its cells."""
        parts = enumerate(self.parts().items())
        return tuple(part.bind(params[k], fold(key, i)) for i, (k, part) in parts)

    @abc.abstractmethod
    def params_of(self, caller: str, *cells: Any) -> Params:
        """The parameters of bound cells: the inverse of `bind`.

        Raises:
            TypeError: If one is not a bound cell.
            ValueError: If one is not a cell of this layer.
        """

    @abc.abstractmethod
    def run(
        self, params: Params, inputs: PyTree, state: PyTree, options: RunOptions
    ) -> tuple[PyTree, ...]:
        """`(outputs, state)` of sequences with one batch axis.

        Args:
            params: Parameters as `init` returns them.
            inputs: `[rows, time, ...]`, or `[time, rows, ...]` if
                `options.time_major`; or a nest.
            state: A state in the structure of the layer's, each leaf `[rows, ...]`;
                None for the zero state.
            options: How to run. With `return_states` the states after all steps are a
                third value, with the axes of the outputs.
        """

    def run_step(
        self, params: Params, step: PyTree, options: RunOptions
    ) -> tuple[PyTree, PyTree]:
        """`(output, state)` of one step from the zero state."""
        inputs = jax.tree.map(lambda x: jnp.expand_dims(x, 1), step)
        outputs, state, *_ = self.run(params, inputs, None, options)
        return jax.tree.map(lambda y: jnp.squeeze(y, 1), outputs), state

    def draws_random_numbers(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether one of the cells draws random numbers."""
        declared = any_is_random(self.cells)
        if declared is None:
            return self._reads_key(params, step, dtype)
        return declared

    def _reads_key(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether a random key changes a result of one step, found by tracing it.

        It does if results get an axis where the key alone has one.
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

    def check_not_random(
        self, caller: str, params: Params, step: PyTree, dtype: DType
    ) -> None:
        """Raises ValueError for a cell that draws random numbers."""
        if self.draws_random_numbers(params, step, dtype):
            raise ValueError(
                f"{caller}: a cell that draws random numbers, {self.cells[0]!r}, gets "
                "no keys from Flax's RNN. Use jaxrnn's, or a cell that draws none."
            )


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating arrays in that dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
