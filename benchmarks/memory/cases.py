"""What is measured: numbers of steps, sizes, the loss."""

import dataclasses
from typing import Any

LOSSES = ("final", "outputs")
DTYPES = ("float32", "bfloat16")
NARROW = 2  # The depth of inputs that would not fit otherwise.


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step of an LSTM; `rounds` says how often it is timed."""

    steps: int
    batch: int
    units: int
    depth: int
    dtype: str
    loss: str
    rounds: int

    @property
    def name(self) -> str:
        """Tells it from all others."""
        kind = "" if self.dtype == "float32" else f" {self.dtype}"
        sizes = f"B{self.batch} D{self.depth} H{self.units}"
        return f"T{self.steps} {sizes}{kind} {self.loss}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Cases of one size.

    Attributes:
        rounds: For each number of steps how often it is timed.
        batch: The rows.
        units: Of the LSTM.
        depth: Of the inputs.
        wide_up_to: With more steps than these, inputs have depth `NARROW`.
    """

    rounds: dict[int, int]
    batch: int = 8
    units: int = 256
    depth: int = 256
    wide_up_to: int = 10_000

    def rounds_for(self, steps: int) -> int:
        """Those of the nearest number of steps that is not smaller."""
        above = [size for size in self.rounds if size >= steps]
        return self.rounds[min(above, default=max(self.rounds))]

    def depth_for(self, steps: int) -> int:
        """The depth of inputs with so many steps."""
        return self.depth if steps <= self.wide_up_to else NARROW


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


def make_cases(preset: Preset, changes: dict[str, Any]) -> list[Case]:
    """The cases of a preset, with `changes` of its sizes: those that are not None.

    `steps` is a list; `loss` and `dtype` must be there.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    all_steps = changes.pop("steps", None) or list(preset.rounds)
    return [
        Case(
            **{
                "steps": steps,
                "batch": preset.batch,
                "units": preset.units,
                "depth": preset.depth_for(steps),
                "rounds": preset.rounds_for(steps),
                **changes,
            }
        )
        for steps in sorted(all_steps)
    ]
