"""What a layer is: cells that run over time together, with their parameters.

The modules of Flax hold layers. Nothing here knows of Flax.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._autodiff.jax_internals import dce_jaxpr
from .._autodiff.leaves import is_float
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells.base import RNNCell, any_is_random


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a layer runs: a random key, and arguments of the drivers."""

    dtype: DType
    key: Key | None = None
    time_major: bool = False
    parallel_iterations: int | None = None
    swap_memory: Any = False
    implementation: Any = None

    @classmethod
    def of(cls, module: Any, dtype: DType, key: Key | None) -> "RunOptions":
        """The options of a module that has attributes of the drivers' names."""
        return cls(
            dtype,
            key,
            module.time_major,
            module.parallel_iterations,
            module.swap_memory,
            module.implementation,
        )

    def as_arguments(self) -> dict[str, Any]:
        """Keyword arguments of a driver."""
        values = vars(self).copy()
        del values["key"]
        return values


class Layer(abc.ABC):
    """Cells that run over time together.

    Their parameters are nested dicts, with those of each cell under TensorFlow's name
    of its scope.
    """

    @property
    @abc.abstractmethod
    def cells(self) -> tuple[RNNCell, ...]:
        """All cells, first one that reads the inputs."""

    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The keys of the parameters."""

    @abc.abstractmethod
    def init_one(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        """The parameters under one of the names; see `init`."""

    def init(self, key: Key, step: PyTree, dtype: DType) -> Params:
        """Fresh parameters for one step of inputs, each leaf `[batch, ...]`."""
        keys = jax.random.split(key, len(self.names()))
        named = zip(self.names(), keys, strict=True)
        return {name: self.init_one(name, k, step, dtype) for name, k in named}

    @abc.abstractmethod
    def bind(self, params: Params, key: Key | None = None) -> Any:
        """The bound cells, nested as the layer was given its cells."""

    @abc.abstractmethod
    def params_of(self, where: str, *cells: Any) -> Params:
        """The parameters of bound cells: the inverse of `bind`.

        Raises:
            TypeError: If one is not a bound cell.
            ValueError: If one is of another cell than the layer's.
        """

    @abc.abstractmethod
    def run(
        self,
        params: Params,
        inputs: PyTree,
        lengths: Array | None,
        state: PyTree,
        options: RunOptions,
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of sequences with one batch axis."""

    def run_step(
        self, params: Params, step: PyTree, options: RunOptions
    ) -> tuple[PyTree, PyTree]:
        """`(output, state)` of one step from the zero state."""
        axis = 0 if options.time_major else 1
        inputs = jax.tree.map(lambda x: jnp.expand_dims(x, axis), step)
        outputs, state = self.run(params, inputs, None, None, options)
        return jax.tree.map(lambda y: jnp.squeeze(y, axis), outputs), state

    def is_random(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether one of the cells draws random numbers."""
        declared = any_is_random(self.cells)
        if declared is None:
            return self._reads_key(params, step, dtype)
        return declared

    def _reads_key(self, params: Params, step: PyTree, dtype: DType) -> bool:
        """Whether a random key changes a result of one step, found by tracing it.

        `dynamic_rnn` keeps what it traced: a cell's own code runs once.
        """

        def run(key: Key, *arguments: PyTree) -> tuple[PyTree, PyTree]:
            params, step = in_dtype(dtype, arguments)
            return self.run_step(params, step, RunOptions(dtype, key))

        key = jax.eval_shape(lambda: jax.random.key(0))
        jaxpr = jax.make_jaxpr(run)(key, params, step).jaxpr
        _, is_used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return is_used[0]

    def check_not_random(
        self, where: str, params: Params, step: PyTree, dtype: DType
    ) -> None:
        """Raises ValueError for a cell that draws random numbers."""
        if self.is_random(params, step, dtype):
            raise ValueError(
                f"{where}: a cell that draws noise, {self.cells[0]!r}, gets no keys "
                "from Flax's RNN. Use the RNN of jaxrnn, or the cell without noise."
            )


def in_dtype(dtype: DType, tree: PyTree) -> PyTree:
    """The nest with its floating arrays in that dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
