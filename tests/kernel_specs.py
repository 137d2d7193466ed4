"""The shapes that tests and benchmarks of kernels share."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Spec:
    """Sizes of sequences and of a cell.

    Attributes:
        batch: The number of rows.
        time: The number of steps.
        depth: The size of the inputs.
        units: The size of the state.
    """

    batch: int
    time: int
    depth: int
    units: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.time} D{self.depth} H{self.units}"


# Interpreted: rows and steps that fill their tiles and blocks, and that do not.
SMALL = (Spec(4, 8, 3, 5), Spec(11, 13, 2, 4), Spec(1, 1, 1, 1), Spec(9, 3, 7, 16))

# Lowered, compiled, timed, and explained.
LARGE = (
    Spec(16, 1024, 768, 768),
    Spec(64, 100, 256, 256),
    Spec(128, 50, 1024, 1024),
    Spec(1, 2000, 512, 512),
    Spec(16, 512, 2048, 2048),
)
