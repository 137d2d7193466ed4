"""The RG-LRU of the package `recurrentgemma`, whose sequences are batch-major."""

from typing import Any

import jax.numpy as jnp
from recurrentgemma import common
from recurrentgemma.jax import layers

from ..core.built import Built, LeftOutError
from ..core.cases import Case
from .data import Data
from .program import variant

USES = ("recurrentgemma", "jax", "jaxlib")
SCANS = {
    "linear scan": common.ScanType.LINEAR_NATIVE,
    "associative scan": common.ScanType.ASSOCIATIVE_NATIVE,
}


def build(case: Case, data: Data, name: str) -> Built:
    """Both scans that run on CPUs."""
    if case.cell != "RGLRU":
        raise LeftOutError("has the RG-LRU alone")
    if case.group != "race":
        raise LeftOutError("not part of the growth")
    return Built(
        {
            scan: variant(case, data, _run(case, kind), batch_major=True)
            for scan, kind in SCANS.items()
        }
    )


def _run(case: Case, kind: Any) -> Any:
    layer = layers.RGLRU(case.units, num_heads=1, scan_type=kind)
    # At position 0 it would have no square root.
    positions = jnp.broadcast_to(1 + jnp.arange(case.time), (case.batch, case.time))

    def run(params: Any, xs: Any, state: Any) -> Any:
        return layer.apply({"params": params}, xs, positions, state)

    return run
