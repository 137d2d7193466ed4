"""What is timed: a case, and how to choose among cases."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# The largest deviation, relative to an array's norm, of results that count as equal.
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 5e-2}
# Adam divides by the gradient's size, which amplifies the rounding of small ones.
STEP_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time: a cell, its sizes, the lengths of the rows and a mode.

    Attributes:
        cell: "lstm", "peephole", "gru", "gru_after" (which resets after the product),
            "rnn", "mgu" (a user's own cell), or "lstm2" (two layers); or one of
            `benchmarks.recurrences.cases`.
        batch: The number of rows, B.
        time: The number of steps, T.
        depth: The size of the inputs, D.
        units: The size of the state, H.
        lengths: "dense" (no lengths), "uniform" (in 1..T), "short" (in 1..T/4) or
            "one_long" (one row of T, the others in 1..T/8).
        mode: "forward"; "train" (forward, and the gradients with respect to parameters,
            inputs and initial state); "step" (a training step with Adam); "stream"
            (forward, B=1).
        group: "race", "scaling" or "growth" for tables of time against T, or
            "accelerator".
        arithmetic: "float32" (products in float32), "tf32" (arrays in float32,
            products in JAX's default precision: TF32 on a GPU, bfloat16 on a TPU)
            or "bfloat16" (arrays and products).
    """

    cell: str
    batch: int
    time: int
    depth: int
    units: int
    lengths: str = "dense"
    mode: str = "train"
    group: str = "race"
    arithmetic: str = "float32"

    @property
    def shape(self) -> str:
        """The sizes as text."""
        return f"B{self.batch} T{self.time} D{self.depth} H{self.units}"

    @property
    def label(self) -> str:
        """The case without its mode."""
        kind = self.arithmetic if self.group == "accelerator" else self.lengths
        return f"{self.cell} {self.shape} {kind}"

    @property
    def name(self) -> str:
        """What `--only` matches; also the key of saved results."""
        name = f"{self.label} {self.mode}"
        return f"scaling {name}" if self.group == "scaling" else name

    @property
    def dtype(self) -> str:
        """The dtype of parameters, inputs and state."""
        return "bfloat16" if self.arithmetic == "bfloat16" else "float32"

    @property
    def tolerance(self) -> float:
        """The largest deviation of results that count as equal."""
        return STEP_TOLERANCE if self.mode == "step" else TOLERANCE[self.arithmetic]

    @property
    def is_forward(self) -> bool:
        """Whether no gradients are computed."""
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


def make_cases(
    cell: str,
    *shape: int,
    lengths: Iterable[str] = ("dense",),
    modes: Iterable[str] = ("forward", "train"),
    **fields: str,
) -> list[Case]:
    """A case for each kind of lengths and each mode."""
    pairs = itertools.product(lengths, modes)
    return [Case(cell, *shape, *pair, **fields) for pair in pairs]


def select(presets: Mapping[str, Sequence[Any]], preset: str, only: str | None) -> list:
    """The cases of a preset whose name matches `only`, a regular expression.

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
