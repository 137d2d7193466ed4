"""What is measured: numbers of steps, sizes, the loss."""

import dataclasses
from typing import Any

LOSSES = ("final", "outputs")
DTYPES = ("float32", "bfloat16")
NARROW = 2  # The depth of inputs that would otherwise not fit in memory.


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step of an LSTM; `rounds` is how often it is timed."""

    steps: int
    batch: int
    units: int
    depth: int
    dtype: str
    loss: str
    rounds: int

    @property
    def name(self) -> str:
        """The key of saved results."""
        kind = "" if self.dtype == "float32" else f" {self.dtype}"
        sizes = f"B{self.batch} D{self.depth} H{self.units}"
        return f"T{self.steps} {sizes}{kind} {self.loss}"

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Cases of one size.

    Attributes:
        rounds: For each number of steps, how often it is timed.
        batch: The number of rows.
        units: Of the LSTM.
        depth: Of the inputs.
        wide_up_to: With more steps than these, inputs have depth `NARROW`.
    """

    rounds: dict[int, int]
    batch: int = 8
    units: int = 256
    depth: int = 256
    wide_up_to: int = 10_000

    def case(self, steps: int, **changes: Any) -> Case:
        """A case with so many steps, with `changes` of the preset's sizes."""
        larger = [size for size in self.rounds if size >= steps]
        sizes = {
            "batch": self.batch,
            "units": self.units,
            "depth": self.depth if steps <= self.wide_up_to else NARROW,
            "rounds": self.rounds[min(larger, default=max(self.rounds))],
        }
        return Case(steps, **(sizes | changes))


# On two cores a step takes half a millisecond: long runs get few rounds.
PRESETS = {
    "smoke": Preset({64: 1, 128: 1}, batch=2, units=8, depth=4),
    "quick": Preset({1000: 7, 10_000: 3}),
    "full": Preset({1000: 7, 3162: 5, 10_000: 4, 31_623: 1, 100_000: 1}),
    "gpu": Preset(
        dict.fromkeys((250, 500, 1000, 2000, 4000, 8000, 16_000), 7),
        batch=64,
        units=1024,
        depth=1024,
        wide_up_to=16_000,
    ),
}
