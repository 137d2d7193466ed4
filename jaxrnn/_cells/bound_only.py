"""The base class of cells of other libraries that exist only with their parameters."""

import dataclasses

from .._base.typing import DType, Key, Params, PyTree
from .base import RNNCell


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BoundOnlyCell(RNNCell):
    """A cell around a module that was constructed with its parameters."""

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Refused: `as_cell` has bound the parameters.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "init: this cell has its parameters already, those that `as_cell` bound. "
            "Run it as it is: `jaxrnn.dynamic_rnn(as_cell(...), x, dtype=x.dtype)`."
        )
