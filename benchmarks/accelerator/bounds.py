"""The planner's bounds of a case on a machine, to compare with what was measured."""

from typing import Any

import jax

import jaxrnn

from ..core.cases import Case
from ..peers._ours import make_cell

Row = dict[str, Any]


def explain(case: Case, machine: str | None) -> jaxrnn.Explanation:
    """The planner's explanation of a case.

    Raises:
        ValueError: If it knows no such machine.
    """
    inputs = jax.ShapeDtypeStruct((case.batch, case.time, case.depth), case.dtype)
    return jaxrnn.explain(make_cell(case), inputs, machine=machine)


def bounds(rows: list[Row], machine: str) -> dict[str, Row]:
    """For each case, by name: the least milliseconds, and all verdicts.

    `xla` is the loop that XLA compiles, `ahead` a kernel's with the products before it;
    with gradients, both include the large products after it. Products are those that
    JAX makes by default: exact ones, of `float32`, cost more.
    """
    return {row["name"]: _bound(Case(**row["case"]), machine) for row in rows}


def _bound(case: Case, machine: str) -> Row:
    found = explain(case, machine)
    kind = "forward" if case.is_forward else "training"
    # The products after the loop: XLA's training includes them, a kernel's not.
    loop, kernel, products = (
        1e3 * getattr(bound, kind)
        for bound in (found.xla, found.kernel, found.products)
    )
    verdicts = {v.implementation: [v.serves, v.reason] for v in found.verdicts}
    return {"xla": loop, "ahead": kernel + products, "verdicts": verdicts}
