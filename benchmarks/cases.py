"""What is timed: the table of cases, and how to choose from it."""

import dataclasses
import re
from typing import Any

MODES = ("forward", "train", "step", "stream")

# Adam divides by the gradient's size, which brings out the rounding of small ones.
TOLERANCE = {"forward": 1e-3, "stream": 1e-3, "train": 1e-3, "step": 1e-2}


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time: a cell, its sizes, the rows' lengths and a mode.

    Attributes:
        cell: "lstm", "peephole", "gru", "gru_after" (which resets after the product),
            "rnn", "mgu" (a user's own cell), or "lstm2" (two layers).
        batch: Rows, B.
        time: Steps, T.
        depth: The size of the inputs, D.
        units: The size of the state, H.
        lengths: "dense" (no lengths), "uniform" (in 1..T), "short" (in 1..T/4) or
            "one_long" (one row of T, the others in 1..T/8).
        mode: "forward"; "train" (forward and the gradients by parameters, inputs and
            initial state); "step" (a training step with Adam); "stream" (forward, B=1).
        group: "race", or "scaling" for the tables of time against T.
    """

    cell: str
    batch: int
    time: int
    depth: int
    units: int
    lengths: str = "dense"
    mode: str = "train"
    group: str = "race"

    @property
    def shape(self) -> str:
        """The sizes as text, for tables."""
        return f"B{self.batch} T{self.time} D{self.depth} H{self.units}"

    @property
    def name(self) -> str:
        """What `--only` is matched against, and what saved results are known by."""
        name = f"{self.cell} {self.shape} {self.lengths} {self.mode}"
        return name if self.group == "race" else f"{self.group} {name}"

    @property
    def dtype(self) -> str:
        """That of parameters, inputs and state."""
        return "float32"

    @property
    def tolerance(self) -> float:
        """How far, in parts of an array's norm, numbers count as the same."""
        return TOLERANCE[self.mode]

    @property
    def is_forward(self) -> bool:
        """Whether no gradients are asked for."""
        return self.mode in ("forward", "stream")

    @property
    def layer_cell(self) -> str:
        """The cell of each layer."""
        return "lstm" if self.cell == "lstm2" else self.cell

    @property
    def layer_depths(self) -> tuple[int, ...]:
        """The size of the inputs of each layer."""
        return (self.depth, self.units) if self.cell == "lstm2" else (self.depth,)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The parts of a layer's state."""
        return ("c", "h") if self.layer_cell in ("lstm", "peephole") else ("h",)

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return dataclasses.asdict(self)


def _of(
    cell: str,
    *shape: int,
    lengths: tuple[str, ...] = ("dense",),
    modes: tuple[str, ...] = ("forward", "train"),
    group: str = "race",
) -> list[Case]:
    return [
        Case(cell, *shape, lengths=kind, mode=mode, group=group)
        for kind in lengths
        for mode in modes
    ]


ALL_LENGTHS = ("dense", "uniform", "short", "one_long")
ALL_BUT_STREAM = ("forward", "train", "step")

FULL = [
    *_of("lstm", 48, 80, 192, 320, modes=ALL_BUT_STREAM),
    *_of("lstm", 16, 120, 96, 160, modes=ALL_BUT_STREAM),
    *_of("lstm", 64, 200, 128, 256, lengths=ALL_LENGTHS),
    *_of("lstm", 64, 200, 128, 256, lengths=("dense", "uniform"), modes=("step",)),
    *_of("lstm", 64, 100, 256, 256),
    *_of("lstm", 64, 50, 512, 512),
    *_of("lstm", 128, 20, 1024, 1024),
    *_of("lstm", 32, 100, 64, 128),
    *_of("lstm", 8, 4000, 64, 64),
    *_of("lstm", 1, 150, 64, 64, modes=("train", "stream")),
    *_of("lstm", 1, 150, 128, 128, modes=("stream",)),
    *_of("lstm", 1, 1000, 256, 256, modes=("stream",)),
    *_of("gru", 48, 80, 192, 320),
    *_of("gru", 16, 120, 96, 160),
    *_of("gru_after", 48, 80, 192, 320),
    *_of("gru_after", 16, 120, 96, 160),
    *_of("rnn", 32, 100, 128, 128),
    *_of("lstm2", 32, 100, 128, 128),
    *_of("peephole", 32, 100, 128, 128),
    *_of("mgu", 32, 100, 128, 128),
    *(
        case
        for time in (250, 500, 1000, 2000, 4000)
        for case in _of("lstm", 8, time, 64, 64, modes=("train",), group="scaling")
    ),
]

QUICK = [
    *_of("lstm", 16, 120, 96, 160),
    *_of("lstm", 64, 200, 128, 256, lengths=("uniform", "short"), modes=("train",)),
    *_of("gru", 16, 120, 96, 160, modes=("train",)),
    *_of("lstm", 1, 150, 128, 128, modes=("stream",)),
]

SMOKE = [
    *_of("lstm", 3, 8, 4, 5, lengths=("uniform",)),
    *_of("lstm2", 3, 8, 4, 5, modes=("step",)),
    *_of("peephole", 3, 8, 4, 5, modes=("train",)),
    *_of("gru", 3, 8, 4, 5, modes=("train",)),
    *_of("gru_after", 3, 8, 4, 5, modes=("train",)),
    *_of("rnn", 3, 8, 4, 5, lengths=("one_long",), modes=("train",)),
    *_of("mgu", 1, 8, 4, 5, modes=("stream",)),
    *_of("lstm", 2, 16, 4, 5, modes=("train",), group="scaling"),
    *_of("lstm", 2, 32, 4, 5, modes=("train",), group="scaling"),
]

PRESETS = {"smoke": SMOKE, "quick": QUICK, "full": FULL}


def select(
    preset: str, only: str | None = None, presets: dict[str, list[Any]] = PRESETS
) -> list[Any]:
    """The cases of a preset whose name `only`, a regular expression, is found in.

    Raises:
        ValueError: If there are none, or if `only` is no regular expression.
    """
    cases = presets[preset]
    try:
        chosen = [case for case in cases if re.search(only or "", case.name)]
    except re.error as error:
        raise ValueError(f"--only {only!r}: {error}") from None
    if not chosen:
        names = "\n  ".join(case.name for case in cases)
        raise ValueError(
            f"no case of {preset!r} matches {only!r}; its cases:\n  {names}"
        )
    return chosen
