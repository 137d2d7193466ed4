"""What README.md and docs/guide/speed.md say about speed, written from the results.

    python -m benchmarks.claims

The results are `benchmarks/results/race_<preset>_<processor>.json`. The texts replace
what is between the comments `<!-- race: NAME -->` and `<!-- /race -->` of the pages.
They say of which commits the results are.
"""

import dataclasses
import itertools
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
XLA_LOOP = "jaxrnn_xla"  # jaxrnn without its native loops.
TIMES = "{forward} times as long at inference and {train} times as long in training."
ROLLOUTS = f"In rollouts with resets, a hand-written loop of Flax's cell takes {TIMES}"
SCANNED = f"Over the same window in one call, a scan of Flax's cell takes {TIMES}"
ONE_STEP = {"rollout", "sampling"}  # Patterns that run one step a call.

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A case on a processor.

    Attributes:
        preset: The preset of the race.
        processor: The processor, its vectors, the commit and the date.
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
    def size(self) -> str:
        """The kind of the case in the tables."""
        return "padded" if self.is_padded else "large" if self.is_large else "small"

    @property
    def pattern(self) -> str:
        """What is around or in place of the layer; empty for a layer alone."""
        return self.row["case"]["pattern"]

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

    def is_lost(self, library: str) -> bool:
        """Whether the library is faster, as the tables show it."""
        return round(self.ratio(library) or 1, 2) < 1


Text = Callable[[Iterable[Measured]], str]


def measured() -> list[Measured]:
    """All cases of all processors."""
    found = []
    for file in sorted(RESULTS.glob("race_*_*.json")):
        result = json.loads(file.read_text())
        machine = result["machine"]
        sets = machine["instruction sets"].split(", ")
        vectors = next(text for name, text in VECTORS.items() if name in sets)
        commit = f"commit {result['commits']['jaxrnn']}"
        processor = f"{machine['processor']} with {vectors}, {commit}, {result['date']}"
        preset = file.stem.split("_")[1]
        found += [Measured(preset, processor, row) for row in result["cases"]]
    return found


def conditions(cases: Iterable[Measured]) -> str:
    """The processors, commits and dates."""
    return "; ".join(dict.fromkeys(case.processor for case in cases)) + "."


def ranges(cases: Iterable[Measured]) -> str:
    """The ratios of each library by the kind of case, and how often it wins."""
    groups: dict[str, list[Measured]] = {}
    for case in sorted(cases, key=operator.attrgetter("place")):
        groups.setdefault(f"{MODES[case.mode]}, {case.size}", []).append(case)
    rows = []
    for library in CONTESTANTS:
        found = {title: _ratios(library, group) for title, group in groups.items()}
        every = [ratio for ratios in found.values() for ratio in ratios]
        lost = sum(case.is_lost(library) for case in itertools.chain(*groups.values()))
        wins = f"{lost} of {len(every)} cases"
        cells = {title: _range(ratios) for title, ratios in found.items() if ratios}
        if every:
            rows.append({"": library, **cells, FASTER: wins})
    titles = ["", *groups, FASTER]
    return grid(
        [(title, lambda row, t=title: row.get(t, "")) for title in titles], rows
    )


def sizes(cases: Iterable[Measured]) -> str:
    """The sizes and the processors of the layers in each column."""
    groups: dict[str, list[Measured]] = {}
    for case in sorted(cases, key=operator.attrgetter("place")):
        groups.setdefault(case.size, []).append(case)
    texts = []
    for size, group in groups.items():
        units = [case.row["case"]["units"] for case in group]
        makers = sorted({case.processor.partition(" with")[0] for case in group})
        where = " or ".join(makers)
        texts.append(
            f"*{size}* layers have {min(units)} to {max(units)} units ({where})"
        )
    text = "; ".join(texts)
    return f"{text[0]}{text[1].upper()}{text[2:]}. Padded rows have random lengths."


def losses(cases: Iterable[Measured]) -> str:
    """Where a library is faster than jaxrnn, and by how much at worst."""
    found, texts = list(cases), []
    for library in CONTESTANTS:
        lost = [case for case in found if case.is_lost(library)]
        if not lost:
            continue
        if library == BY_HAND:
            is_step = {case.pattern for case in lost} <= ONE_STEP
            where = "hand-written loops" + " if each call runs only one step" * is_step
        else:
            units = min(case.row["case"]["units"] for case in lost)
            where = f"{library} on some layers of {units} units or more"
        longest = _short(1 / min(_ratios(library, lost)))
        texts.append(f"up to {longest} times as long as {where}")
    return f"In some cases, jaxrnn takes longer: {', and '.join(texts)}."


def without_native(cases: Iterable[Measured]) -> str:
    """The times of jaxrnn without its native loops."""
    spans: dict[str, list[float]] = {}
    for case in sorted(cases, key=operator.attrgetter("place")):
        peer = case.row["peers"].get(XLA_LOOP, {})
        if "ratios" in peer and not case.pattern:
            spans.setdefault(case.size, []).append(peer["ratios"]["ms"][MEDIAN])
    *texts, last = (
        f"{_span(found)} times as long on {size} layers"
        for size, found in spans.items()
    )
    return f"Without native loops, jaxrnn takes {', '.join(texts)}, and {last}."


def by_hand(pattern: str, sentence: str) -> Text:
    """A sentence with the ratios of a pattern by hand, in each mode."""

    def text(cases: Iterable[Measured]) -> str:
        of_pattern = [case for case in cases if case.pattern == pattern]
        spans = {
            mode: _span(_ratios(BY_HAND, [c for c in of_pattern if c.mode == mode]))
            for mode in MODES
        }
        return sentence.format(**spans)

    return text


def _span(ratios: list[float]) -> str:
    """The least and the largest ratio."""
    low, high = _short(min(ratios)), _short(max(ratios))
    return low if low == high else f"{low} to {high}"


def _ratios(library: str, cases: Iterable[Measured]) -> list[float]:
    """The ratios of a library in the cases that it ran."""
    return [ratio for case in cases if (ratio := case.ratio(library))]


def _range(ratios: list[float]) -> str:
    """The median, the least and the largest ratio."""
    median = _short(float(np.median(ratios)))
    return f"{median} ({_short(min(ratios))} to {_short(max(ratios))})"


def _short(number: float) -> str:
    """A ratio with two decimals, or one from 10."""
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


TEXTS: dict[str, Text] = {
    "conditions": conditions,
    "ranges": ranges,
    "sizes": sizes,
    "losses": losses,
    "without_native": without_native,
    "rollouts": by_hand("rollout", ROLLOUTS),
    "scanned": by_hand("scanned", SCANNED),
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
