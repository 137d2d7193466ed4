"""Cells with their weights into a module's variables, and out of them."""

from typing import Any

import flax.linen as nn

from .._base.typing import Params
from .._layers.layer import Layer


class HoldsCells:
    """What a module of linen with a layer has."""

    @nn.nowrap
    def _layer(self) -> Layer:
        raise NotImplementedError

    @nn.nowrap
    def variables_of(self, *cells: Any) -> Params:
        """The variables of a module that holds these cells' parameters.

        Args:
            *cells: What a converter gives: a bound cell, or cells forwards and cells
                backwards.

        Returns:
            `{"params": ...}`, for `apply`.

        Raises:
            TypeError: If one is no cell with its parameters.
            ValueError: If one is of another cell than the module's.
        """
        return {"params": self._layer().unbound("variables_of", *cells)}

    @nn.nowrap
    def cells_of(self, variables: Params) -> Any:
        """The bound cells that the variables hold: the inverse of `variables_of`."""
        layer = self._layer()
        params = variables.get("params", {})
        missing = [name for name in layer.names() if name not in params]
        if missing:
            raise ValueError(
                f"cells_of: `variables` must have params {', '.join(layer.names())}, "
                f"as the module, got {', '.join(map(str, params)) or 'none'}."
            )
        return layer.bound(nn.meta.unbox(params))
