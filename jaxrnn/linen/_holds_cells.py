"""What the modules share: checks of options; variables to and from bound cells."""

import dataclasses
from typing import Any

import flax.linen as nn

from .._base.typing import Params
from .._layers.layer import Layer
from .._layers.options import check_options, check_unknown


class ChecksOptions(nn.Module):
    """A module of linen whose options are checked when it is constructed."""

    def __post_init__(self) -> None:
        check_options(type(self).__name__, **vars(self))
        super().__post_init__()


class HoldsCells(ChecksOptions):
    """A module of linen that holds a layer."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "HoldsCells":
        """Refuses names of Flax's options with ours."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = [name for name in kwargs if name not in known]
        check_unknown(cls.__name__, "the constructor", unknown)
        return super().__new__(cls)

    @nn.nowrap
    def _layer(self) -> Layer:
        raise NotImplementedError

    @nn.nowrap
    def variables_of(self, *cells: Any) -> Params:
        """The module's variables, with the parameters of these cells.

        Args:
            *cells: As a converter returns them: a bound cell, or forward cells and
                backward cells.

        Returns:
            `{"params": ...}`, for `apply`.

        Raises:
            TypeError: If one is not a bound cell.
            ValueError: If one is not a cell of this module.
        """
        return {"params": self._layer().params_of("variables_of", *cells)}

    @nn.nowrap
    def cells_of(self, variables: Params) -> Any:
        """Bound cells with the parameters in `variables`; inverts `variables_of`.

        Raises:
            ValueError: If `variables` lack a parameter of the module.
        """
        layer = self._layer()
        params = variables.get("params", {})
        names = layer.parts()
        if not names.keys() <= set(params):
            raise ValueError(
                f"cells_of: `variables` must have params {', '.join(names)}, as the "
                f"module, got {', '.join(map(str, params)) or 'none'}."
            )
        return layer.bind(nn.meta.unbox(params))
