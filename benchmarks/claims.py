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

from .report import grid, ratio, values

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "README.md", ROOT / "docs" / "guide" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- race: (\w+) -->\n).*?(<!-- /race -->)", re.DOTALL)

LIBRARIES = {  # The contestants of each library; the faster one counts.
    "Flax": ["linen", "nnx"],
    "Haiku": ["haiku"],
    "Keras (JAX)": ["keras"],
    "TensorFlow": ["tensorflow"],
    "PyTorch": ["torch"],
}
MODES = {"train": "training", "forward": "inference"}
CELLS = {
    "lstm": "LSTM",
    "lstm2": "two LSTMs",
    "peephole": "LSTM with peepholes",
    "gru_after": "GRU of PyTorch",
}
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
    def name(self) -> str:
        """The cell, the rows, steps, inputs and units, and the lengths."""
        case = self.row["case"]
        sizes = (case[name] for name in ("batch", "time", "depth", "units"))
        name = f"{CELLS[case['cell']]} {', '.join(map(str, sizes))}"
        most = {"uniform": case["time"], "short": case["time"] // 4}
        lengths = most.get(case["lengths"])
        return f"{name}, lengths 1 to {lengths}" if lengths else name

    def ratio(self, library: str) -> float | None:
        """The library's time divided by jaxrnn's; None if it did not run."""
        found = [ratio(self.row, peer, "jaxrnn") for peer in LIBRARIES[library]]
        return min((one.median for one in found if one), default=None)


def measured() -> list[Measured]:
    """All cases of all processors."""
    found = []
    for file in sorted(RESULTS.glob("race_*_*.json")):
        result = json.loads(file.read_text())
        machine = result["machine"]
        sets = machine["instruction sets"].split(", ")
        vectors = next(text for name, text in VECTORS.items() if name in sets)
        processor = f"{machine['processor']} with {vectors}, {result['date']}"
        preset = file.stem.split("_")[1]
        if preset == "patterns":
            continue  # Its peers are programs, not libraries.
        found += [Measured(preset, processor, row) for row in result["cases"]]
    return found


def overview(cases: Iterable[Measured]) -> str:
    """The cases, the processors, and the range of the ratios of each mode."""
    cases = list(cases)
    processors = "; ".join(dict.fromkeys(case.processor for case in cases))
    units = sorted(case.row["case"]["units"] for case in cases)
    ranges = []
    for mode, title in MODES.items():
        of_mode = (_pairs(case) for case in cases if case.mode == mode)
        ratios = [one for pairs in of_mode for _, one in pairs]
        ends = f"{_short(min(ratios))} to {_short(max(ratios))}"
        median = _short(float(np.median(ratios)))
        ranges.append(f"{ends} times as long as jaxrnn for {title} (median {median})")
    lost = sum(any(_is_faster(one) for _, one in _pairs(case)) for case in cases)
    return (
        f"Over all {len(cases)} measured cases of {units[0]} to {units[-1]} units "
        f"({processors}), on two cores, the other libraries that ran them take "
        f"{', and '.join(ranges)}. In {lost} of these cases, another library is faster."
    )


def faster(cases: Iterable[Measured]) -> str:
    """A list of the cases in which another library takes less time than jaxrnn."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for case in cases:
        for library, one in _pairs(case):
            if _is_faster(one):
                key = library, MODES[case.mode], case.processor
                found.setdefault(key, []).append(f"{case.name} ({_short(one)})")
    return "\n".join(
        f"- {library}, {title} ({processor}): {'; '.join(names)}"
        for (library, title, processor), names in found.items()
    )


def table(mode: str) -> Callable[[Iterable[Measured]], str]:
    """The tables of the page's cases in a mode, one for each processor."""

    def tables(cases: Iterable[Measured]) -> str:
        of_mode = [c for c in cases if (c.preset, c.mode) == ("page", mode)]
        texts = []
        for processor in dict.fromkeys(case.processor for case in of_mode):
            rows = [{"case": c} for c in of_mode if c.processor == processor]
            columns = [
                ("rows, steps, inputs, units", lambda row: row["case"].name),
                ("jaxrnn, ms", lambda row: _milliseconds(row["case"])),
                *((library, _cell(library)) for library in LIBRARIES),
            ]
            texts.append(f"{processor}:\n\n{grid(columns, rows)}")
        return "\n\n".join(texts)

    return tables


def wide(cases: Iterable[Measured]) -> str:
    """The tables of the wide layers, one for each processor."""
    tables: dict[str, dict[str, Row]] = {}
    for case in cases:
        if case.preset == "wide":
            size = case.row["case"]
            sizes = f"{size['time']}, {size['depth']}, {size['units']}"
            name = f"{MODES[case.mode]}, {CELLS[size['cell']]} {sizes}"
            row = tables.setdefault(case.processor, {}).setdefault(name, {"name": name})
            row[size["batch"]] = _cell("PyTorch")({"case": case})
    texts = []
    for processor, rows in tables.items():
        batches = sorted({key for row in rows.values() for key in row} - {"name"})
        columns = [("steps, inputs, units", operator.itemgetter("name"))]
        columns += [(_rows(n), lambda row, n=n: row.get(n, "")) for n in batches]
        texts.append(f"{processor}:\n\n{grid(columns, rows.values())}")
    return "\n\n".join(texts)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _pairs(case: Measured) -> list[tuple[str, float]]:
    """The libraries that ran the case, and their ratios."""
    pairs = ((library, case.ratio(library)) for library in LIBRARIES)
    return [(library, one) for library, one in pairs if one is not None]


def _is_faster(ratio: float) -> bool:
    """Whether another library is faster, by the ratio that the pages show."""
    return round(ratio, 2) < 1


def _cell(library: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        one = row["case"].ratio(library)
        return "" if one is None else _short(one)

    return cell


def _milliseconds(case: Measured) -> str:
    return f"{np.median(values(case.row, 'jaxrnn', 'ms')):.3g}"


def _short(number: float) -> str:
    """A ratio with two decimals, or one from 10."""
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


TEXTS: dict[str, Callable[[Iterable[Measured]], str]] = {
    "overview": overview,
    "faster": faster,
    "training": table("train"),
    "inference": table("forward"),
    "wide": wide,
}


def replaced(page: str, cases: list[Measured]) -> str:
    """The page with the texts that the results give."""

    def text(match: re.Match) -> str:
        return f"{match[1]}\n{TEXTS[match[2]](cases)}\n\n{match[3]}"

    return MARKED.sub(text, page)


def main() -> None:
    """Write the texts into the pages."""
    cases = measured()
    for page in PAGES:
        page.write_text(replaced(page.read_text(), cases))


if __name__ == "__main__":
    main()
