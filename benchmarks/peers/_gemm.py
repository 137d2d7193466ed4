"""The operands of a cell's matrix products."""

from typing import Any

import numpy as np

from ..core.built import LeftOutError
from ..core.cases import Case
from ..core.data import Data
from ..core.layouts import BLOCKS

NAMES = ("steps", "kernels", "back_steps", "back_kernels", "by_weights", "by_inputs")


def operands(case: Case, data: Data) -> dict[str, Any]:
    """The operands, by the loop or the large product that they belong to.

    For each product of a step, with `D` the inputs of its layer and `W` its blocks:
    `steps` `[B, D + H]` by `kernels` `[D + H, W]`; backward `back_steps` `[B, W]` by
    `back_kernels` `[W, H]`; `by_weights` `[TB, D + H]` and `[TB, W]`; `by_inputs`
    `[TB, W]` and `[W, D]`.

    Raises:
        LeftOutError: If the products alone are no limit of the case.
    """
    if data.lengths is not None:
        raise LeftOutError("a limit for dense rows only")
    if case.mode == "step":
        raise LeftOutError("a limit without an optimizer")
    rng = np.random.default_rng(0)

    def normal(*shape):
        return 0.1 * rng.standard_normal(shape, np.float32)

    batch, units, rows = case.batch, case.units, case.batch * case.time
    result: dict[str, list[Any]] = {name: [] for name in NAMES}
    for depth in case.layer_depths:
        for gates in BLOCKS[case.layer_cell].values():
            width = len(gates) * units
            result["steps"].append(normal(batch, depth + units))
            result["kernels"].append(normal(depth + units, width))
            result["back_steps"].append(normal(batch, width))
            result["back_kernels"].append(normal(width, units))
            z = normal(rows, width)
            result["by_weights"].append((normal(rows, depth + units), z))
            result["by_inputs"].append((z, normal(width, depth)))
    return result
