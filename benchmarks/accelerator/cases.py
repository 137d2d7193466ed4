"""What is timed on an accelerator: a case has an arithmetic too."""

import dataclasses

from .. import cases

# How far two of the same arithmetic may be apart, in parts of an array's norm.
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 5e-2}
ARITHMETICS = tuple(TOLERANCE)


@dataclasses.dataclass(frozen=True)
class Case(cases.Case):
    """As a case of the race, with dense rows.

    Attributes:
        arithmetic: "float32" (products in all of it), "tf32" (arrays in float32,
            products as JAX makes them by default: TF32 on a GPU, of bfloat16 on a TPU)
            or "bfloat16" (arrays and products).
    """

    arithmetic: str = "float32"

    @property
    def name(self) -> str:
        """What `--only` is matched against, and what saved results are known by."""
        return f"{self.cell} {self.shape} {self.arithmetic} {self.mode}"

    @property
    def dtype(self) -> str:
        """That of parameters, inputs and state."""
        return "bfloat16" if self.arithmetic == "bfloat16" else "float32"

    @property
    def tolerance(self) -> float:
        """How far numbers count as the same."""
        return TOLERANCE[self.arithmetic]
