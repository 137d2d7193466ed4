"""What the Pallas kernels share: what they read, and how they are called."""

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


class ForwardOperands(NamedTuple):
    """What the loop forward reads.

    Attributes:
        lengths: `[batch]`, int32.
        matrices: What multiplies the state in each stage; None where nothing does.
        biases: What is added in a stage without inputs, `[columns]`; or None.
        elementwise: The parameters that are used elementwise, `[units]` each.
        input_products: The inputs' part of each stage's product, with the bias,
            `[time, batch, columns]`, float32; None for a stage without inputs.
        state: The initial state, each leaf `[batch, size]`.
    """

    lengths: Array
    matrices: list[Any]
    biases: list[Any]
    elementwise: Params
    input_products: list[Any]
    state: PyTree


class BackwardOperands(NamedTuple):
    """What the loop backward reads.

    Attributes:
        lengths: `[batch]`, int32.
        matrices: The transposes of those of the loop forward; or None.
        elementwise: The parameters that are used elementwise.
        saved: `(zs, states)` of all steps, `[time, batch, size]` each.
        c_outputs: The cotangents of the outputs, likewise.
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
        interpret: Whether Pallas's interpreter runs it, on any device; True or
            parameters of the interpreter.
    """

    interpret: Any = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def tiles(self, work: Work, reverse: bool) -> Tiles:
        """The grid of the loop forward, or backward."""

    @abc.abstractmethod
    def call(self, work: Work, tiles: Tiles, operands: Any, outs: list) -> tuple:
        """The results of the kernel that takes such operands.

        Args:
            work: The cell and the sizes.
            tiles: The grid.
            operands: `ForwardOperands` or `BackwardOperands`, vectors as matrices of
                one row.
            outs: For each result the tree of its types, and the function that makes a
                leaf's spec.
        """

    def forward(
        self, work: Work, operands: ForwardOperands, types: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The loop forward.

        Args:
            work: The cell and the sizes.
            operands: What it reads.
            types: Those of the results of a step, `(output, saved)`, each leaf
                `[batch, size]`; `saved` is `(zs, state)`, or `()`.

        Returns:
            `(output, saved)` of all steps, `[time, batch, size]`, and the final state.
        """
        tiles = self.tiles(work, reverse=False)
        biases, elementwise = as_rows((operands.biases, operands.elementwise))
        operands = operands._replace(biases=biases, elementwise=elementwise)
        results = tiles.over_time(types), tiles.by_steps
        final_state = operands.state, tiles.by_rows
        return self.call(work, tiles, operands, [results, final_state])

    def backward(
        self, work: Work, operands: BackwardOperands
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward.

        Returns:
            The cotangents of the products, `[time, batch, columns]`, in the dtype of
            the matrices; of the initial state, `[batch, size]`; and of the elementwise
            parameters.
        """
        tiles = self.tiles(work, reverse=True)
        vectors, (zs, _) = operands.elementwise, operands.saved
        operands = operands._replace(elementwise=as_rows(vectors))
        c_zs = [jax.ShapeDtypeStruct(z.shape, work.dtype) for z in zs]
        outs = [
            (c_zs, tiles.by_steps),
            (operands.c_state, tiles.by_rows),
            (tiles.per_tile(vectors), tiles.by_tile),
        ]
        c_zs, c_state, c_tiles = self.call(work, tiles, operands, outs)
        total = lambda c, x: jnp.sum(c, (0, 1)).astype(x.dtype)
        return c_zs, c_state, jax.tree.map(total, c_tiles, vectors)

    @property
    def _memory(self) -> int:
        """The bytes of memory next to the arithmetic units."""
        named = MACHINES.get(self.machine or "")
        return (named or machine_of(self.platform)).memory
