"""What the planner says of a case on a machine, beside what was measured there."""

from typing import Any

import jax

import jaxrnn

from ..peers._ours import make_cell
from ..ratios import median_ms, times
from .cases import Case
from .names import AHEAD

Result = dict[str, Any]

# What is written of where the device itself is not known to the planner.
USUAL = ("h100", "v5e")


def bound(case: Case, machine: str) -> Result:
    """Milliseconds at best and what each implementation says.

    `xla` is the loop that XLA compiles, `ahead` a kernel's with the products ahead of
    it; with gradients, both hold the large products after it. Products are those that
    JAX makes by default: exact ones, of `float32`, cost more.
    """
    inputs = jax.ShapeDtypeStruct((case.batch, case.time, case.depth), case.dtype)
    found = jaxrnn.explain(make_cell(case), inputs, machine=machine)
    xla, kernel, products = found.xla, found.kernel, found.products
    if case.is_forward:
        loop, ahead = xla.forward, kernel.forward + products.forward
    else:
        # The products after the loop: XLA's training holds them, a kernel's does not.
        loop, ahead = xla.training, kernel.training + products.training
    return {
        "xla": 1e3 * loop,
        "ahead": 1e3 * ahead,
        "verdicts": {v.implementation: [v.serves, v.reason] for v in found.verdicts},
    }


def bounds(rows: list[Result], machine: str) -> dict[str, Result]:
    """Those of all cases that have one, by name."""
    return {row["name"]: bound(Case(**row["case"]), machine) for row in rows}


def by_bound(row: Result, peer: str, bound: Result) -> float | None:
    """A peer's measured time by its least; None if it did not run."""
    if not len(times(row, peer)):
        return None
    return median_ms(row, peer) / bound["ahead" if peer in AHEAD else "xla"]
