"""What the Pallas kernels share: their inputs, and how they are called."""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.typing import Array, Params, PyTree
from .blocks import Tiles, as_rows
from .implementation import Implementation
from .machines import MACHINES, machine_of
from .work import Work


class ForwardInputs(NamedTuple):
    """What the forward loop reads.

    Attributes:
        lengths: `[batch]`, int32.
        matrices: The matrix of each stage's operand; None for a stage without one.
        biases: The bias of each stage without inputs, `[columns]`; or None.
        elementwise: The parameters that are used elementwise, `[units]` each.
        input_products: The inputs' contribution to each stage's product, with the bias,
            `[time, batch, columns]`, float32; None for a stage without inputs.
        state: The initial state, each leaf `[batch, size]`.
    """

    lengths: Array
    matrices: list[Any]
    biases: list[Any]
    elementwise: Params
    input_products: list[Any]
    state: PyTree


class BackwardInputs(NamedTuple):
    """What the backward loop reads.

    Attributes:
        lengths: `[batch]`, int32.
        matrices: The transposes of those of the forward loop; or None.
        elementwise: The parameters that are used elementwise.
        saved: `(zs, states)` of all steps, `[time, batch, size]` each.
        c_outputs: The cotangents of the outputs, `[time, batch, size]`.
        c_state: The cotangent of the final state, each leaf `[batch, size]`.
    """

    lengths: Array
    matrices: list[Any]
    elementwise: Params
    saved: PyTree
    c_outputs: PyTree
    c_state: PyTree


@dataclasses.dataclass(frozen=True)
class Kernel(Implementation):
    """The forward and the backward loop of an affine cell, each in one kernel.

    Attributes:
        interpret: Whether Pallas's interpreter runs it, on any device: a bool, or
            parameters of the interpreter.
    """

    interpret: Any = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def tiles(self, work: Work, reverse: bool) -> Tiles:
        """The grid of the forward loop, or of the backward loop if `reverse`."""

    @abc.abstractmethod
    def call(self, work: Work, tiles: Tiles, kernel_inputs: Any, outs: list) -> tuple:
        """The results of the forward or the backward kernel.

        Args:
            work: The cell and the sizes.
            tiles: The grid.
            kernel_inputs: `ForwardInputs` or `BackwardInputs`, vectors as matrices of
                one row.
            outs: For each result the tree of its types, and the function that makes a
                leaf's spec.
        """

    def forward(
        self, work: Work, kernel_inputs: ForwardInputs, types: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs the forward loop.

        Args:
            work: The cell and the sizes.
            kernel_inputs: What it reads.
            types: The types of the results of a step, `(output, saved)`, each leaf
                `[batch, size]`; `saved` is `(zs, state)`, or `()`.

        Returns:
            `(output, saved)` of all steps, `[time, batch, size]`, and the final state.
        """
        tiles = self.tiles(work, reverse=False)
        biases, elementwise = as_rows((kernel_inputs.biases, kernel_inputs.elementwise))
        kernel_inputs = kernel_inputs._replace(biases=biases, elementwise=elementwise)
        results = tiles.over_time(types), tiles.by_steps
        final_state = kernel_inputs.state, tiles.by_rows
        return self.call(work, tiles, kernel_inputs, [results, final_state])

    def backward(
        self, work: Work, kernel_inputs: BackwardInputs
    ) -> tuple[list[Array], PyTree, Params]:
        """Runs the backward loop.

        Args:
            work: The cell and the sizes.
            kernel_inputs: What it reads.

        Returns:
            The cotangents of the products, `[time, batch, columns]`, in the dtype of
            the matrices; of the initial state, `[batch, size]`; and of the elementwise
            parameters.
        """
        tiles = self.tiles(work, reverse=True)
        vectors, (zs, _) = kernel_inputs.elementwise, kernel_inputs.saved
        kernel_inputs = kernel_inputs._replace(elementwise=as_rows(vectors))
        c_zs = [jax.ShapeDtypeStruct(z.shape, work.dtype) for z in zs]
        outs = [
            (c_zs, tiles.by_steps),
            (kernel_inputs.c_state, tiles.by_rows),
            (tiles.per_tile(vectors), tiles.by_tile),
        ]
        c_zs, c_state, c_tiles = self.call(work, tiles, kernel_inputs, outs)
        total = lambda c, x: jnp.sum(c, (0, 1)).astype(x.dtype)
        return c_zs, c_state, jax.tree.map(total, c_tiles, vectors)

    @property
    def _memory(self) -> int:
        """The bytes of the machine's memory next to the arithmetic units."""
        named = MACHINES.get(self.machine or "")
        return (named or machine_of(self.platform)).memory
