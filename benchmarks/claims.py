"""What README.md and docs/guide/speed.md say about speed, written from the results.

    python -m benchmarks.claims

The results are `benchmarks/results/race_<preset>_<processor>.json`. The texts replace
what is between the comments `<!-- race: NAME -->` and `<!-- /race -->` of the pages.
"""

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .report import MEDIAN, grid

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "README.md", ROOT / "docs" / "guide" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- race: (\w+) -->\n).*?(<!-- /race -->)", re.DOTALL)

BY_HAND = "Hand-written loops, Flax or JAX"
CONTESTANTS = {  # Of each library; the faster one counts.
    BY_HAND: ["by_hand"],
    "Flax": ["linen", "nnx"],
    "Haiku": ["haiku"],
    "Keras (JAX)": ["keras"],
    "TensorFlow": ["tensorflow"],
    "PyTorch": ["torch"],
}
FASTER = "faster than jaxrnn in"
MODES = {"train": "training", "forward": "inference"}
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A case on a processor.

    Attributes:
        preset: The preset of the race.
        processor: The processor, its vectors and the date.
        row: The case in the result.
    """

    preset: str
    processor: str
    row: Row

    @property
    def mode(self) -> str:
        """The mode of the case: "train" or "forward"."""
        return self.row["case"]["mode"]

    @property
    def is_padded(self) -> bool:
        """Whether the rows have different lengths."""
        return self.row["case"]["lengths"] in ("uniform", "short")

    @property
    def is_large(self) -> bool:
        """Whether the layer has more than 64 units."""
        return self.row["case"]["units"] > 64

    @property
    def place(self) -> tuple[bool, bool, bool]:
        """The place of the case's column in a table, compared with other cases."""
        return self.is_padded, self.mode != "train", not self.is_large

    def spread(self, library: str) -> list[float] | None:
        """The library's time divided by jaxrnn's; None if it did not run."""
        peers = [self.row["peers"].get(name, {}) for name in CONTESTANTS[library]]
        found = [peer["ratios"]["ms"] for peer in peers if "ratios" in peer]
        return min(found, key=operator.itemgetter(MEDIAN), default=None)

    def ratio(self, library: str) -> float | None:
        """The median of `spread`."""
        found = self.spread(library)
        return found and found[MEDIAN]


Text = Callable[[Iterable[Measured]], str]


def measured() -> list[Measured]:
    """All cases of all processors, with XLA's default options."""
    found = []
    for file in sorted(RESULTS.glob("race_*_*.json")):
        result = json.loads(file.read_text())
        machine = result["machine"]
        sets = machine["instruction sets"].split(", ")
        vectors = next(text for name, text in VECTORS.items() if name in sets)
        processor = f"{machine['processor']} with {vectors}, {result['date']}"
        if not machine.get("XLA_FLAGS"):
            preset = file.stem.split("_")[1]
            found += [Measured(preset, processor, row) for row in result["cases"]]
    return found


def conditions(cases: Iterable[Measured]) -> str:
    """The processors and dates."""
    return "; ".join(dict.fromkeys(case.processor for case in cases)) + "."


def overview(shown: Callable[[list[float]], str]) -> Text:
    """The ratios of each library by the kind of case, and how often it wins."""

    def text(cases: Iterable[Measured]) -> str:
        groups: dict[str, list[Measured]] = {}
        for case in sorted(cases, key=operator.attrgetter("place")):
            size = "padded" if case.is_padded else "large" if case.is_large else "small"
            groups.setdefault(f"{MODES[case.mode]}, {size}", []).append(case)
        rows = []
        for library in CONTESTANTS:
            found = {title: _ratios(library, group) for title, group in groups.items()}
            every = [ratio for ratios in found.values() for ratio in ratios]
            wins = f"{sum(round(one, 2) < 1 for one in every)} of {len(every)} cases"
            cells = {title: shown(ratios) for title, ratios in found.items() if ratios}
            if every:
                rows.append({"": library, **cells, FASTER: wins})
        titles = ["", *groups, FASTER]
        return grid(
            [(title, lambda row, t=title: row.get(t, "")) for title in titles], rows
        )

    return text


def worst(cases: Iterable[Measured]) -> str:
    """The least ratio of all libraries and cases."""
    ratios = [
        (ratio, library, case.row["name"])
        for case in cases
        for library in CONTESTANTS
        if (ratio := case.ratio(library))
    ]
    ratio, library, name = min(ratios)
    return f"The lowest ratio is {_short(ratio)} ({library}), in the case `{name}`."


def _ratios(library: str, cases: Iterable[Measured]) -> list[float]:
    """The ratios of a library in the cases that it ran."""
    return [ratio for case in cases if (ratio := case.ratio(library))]


def _median(ratios: list[float]) -> str:
    return _short(float(np.median(ratios)))


def _range(ratios: list[float]) -> str:
    """The median, the least and the largest ratio."""
    return f"{_median(ratios)} ({_short(min(ratios))} to {_short(max(ratios))})"


def _short(number: float) -> str:
    """A ratio with two decimals, or one from 10."""
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


TEXTS: dict[str, Text] = {
    "conditions": conditions,
    "medians": overview(_median),
    "ranges": overview(_range),
    "worst": worst,
}


def replaced(page: str, cases: list[Measured]) -> str:
    """The page with the texts that the results give."""

    def text(match: re.Match) -> str:
        return f"{match[1]}{TEXTS[match[2]](cases)}\n{match[3]}"

    return MARKED.sub(text, page)


def main() -> None:
    """Write the texts into the pages."""
    cases = measured()
    for page in PAGES:
        page.write_text(replaced(page.read_text(), cases))


if __name__ == "__main__":
    main()
