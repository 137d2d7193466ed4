"""An affine cell whose new state is scaled, by the same numbers at all steps."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._base.typing import Array, Params, PyTree
from .._cells import fields
from .._cells.affine.cell import AffineCell, Stage, Updated
from .._cells.base import scope_name
from .._cells.params import ParamSpec, Specs, zeros


@fields.dataclass
class CellWithScaledState(AffineCell):
    """Runs `cell`, but multiplies each new state by `scales`.

    The parameters are `{"cell": ..., "scales": ...}`. The scales are an element-wise
    parameter, so a loop does not save them for each step.
    """

    cell: AffineCell
    state_size: ClassVar[Any] = property(lambda self: self.cell.state_size)
    output_size: ClassVar[Any] = property(lambda self: self.cell.output_size)
    enter: ClassVar[Any] = property(lambda self: self.cell.enter)
    name: ClassVar[Any] = property(lambda self: scope_name(self.cell))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the wrapped cell, of which the last also scales the state."""
        *others, last = self.cell.stages

        def scale(x: Array, scale: Array) -> Array:
            # A scale of 0 also replaces infinity and NaN.
            return jnp.where(scale > 0, x * scale, jnp.zeros((), x.dtype))

        def update(params: Params, z: Array, carry: PyTree) -> Updated:
            output, state = last.update(params, z, carry)
            return output, jax.tree.map(scale, state, params["scales"])

        return (*others, dataclasses.replace(last, update=update))

    def elementwise_specs(self) -> Specs:
        """Specs of the cell's element-wise parameters and of the scales."""
        return self.cell.elementwise_specs() | {"scales": ParamSpec((), zeros)}

    def stage_params(self, params: Params) -> Params:
        """The parameters of the cell's stages, and the scales."""
        return self.cell.stage_params(params["cell"]) | {"scales": params["scales"]}
