"""The cases, and the presets of each command."""

import dataclasses
import functools
import itertools
import re

# Results count as equal up to this deviation, relative to an array's norm.
TOLERANCE = 1e-3
LSTMS = "lstm", "peephole"  # Cells with a state (c, h).
LINEAR = "mingru", "lru", "rglru"
MATRICES = "mlstm", "gated_delta"
HEADS = 4  # The heads of a cell in `MATRICES`.


@dataclasses.dataclass(frozen=True)
class Case:
    """A benchmark case: a cell, its sizes, the lengths of the rows and a mode.

    Attributes:
        cell: "lstm", "peephole", "gru", "gru_after" (which resets after the product)
            or "lstm2" (two layers). Only jaxrnn has linear recurrences (`LINEAR`) and
            cells whose state is a matrix (`MATRICES`).
        batch: The number of rows, B.
        time: The number of steps, T.
        depth: The size of the inputs, D.
        units: The size of the state, H.
        lengths: "dense" (no lengths), "uniform" (in 1..T), "short" (in 1..T/4) or
            "resets" (no lengths, but rows whose state is reset to zeros at some steps).
        mode: "forward"; "train" (forward, and the gradients with respect to parameters,
            inputs and initial state).
        run: How the peer runs it, for example "xla" or "raw_rnn"; empty for its
            default.
        dtype: The dtype of parameters, inputs and state.
        pattern: What surrounds or replaces the layer, as users write it by hand:
            "rollout", "scanned", "replay", "associative", "chunked", "bidirectional",
            "sampling" or "mapped" (a model for one sequence, mapped over the rows);
            empty for a layer alone.
    """

    cell: str
    batch: int
    time: int
    depth: int
    units: int
    lengths: str = "dense"
    mode: str = "train"
    run: str = ""
    dtype: str = "float32"
    pattern: str = ""

    @property
    def label(self) -> str:
        """The name of the case without its mode."""
        shape = f"B{self.batch} T{self.time} D{self.depth} H{self.units}"
        dtype = self.dtype if self.dtype != "float32" else ""
        parts = (self.pattern, self.cell, shape, self.lengths, self.run, dtype)
        return " ".join(filter(None, parts))

    @property
    def name(self) -> str:
        """The name that `--only` matches and that identifies saved results."""
        return f"{self.label} {self.mode}"

    @property
    def layer_cell(self) -> str:
        """The cell of each layer."""
        return "lstm" if self.cell == "lstm2" else self.cell

    @property
    def layer_depths(self) -> tuple[int, ...]:
        """The input size of each layer, or of each direction."""
        if self.pattern == "bidirectional":
            return self.depth, self.depth
        return (self.depth, self.units) if self.cell == "lstm2" else (self.depth,)

    @property
    def output_size(self) -> int:
        """The size of the outputs; those of two directions are concatenated."""
        return self.units * (2 if self.pattern == "bidirectional" else 1)

    @property
    def burn_in(self) -> int:
        """The number of first steps that have no gradient and no outputs."""
        return self.time // 3 if self.pattern == "replay" else 0

    @property
    def state_sizes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays in a row of a layer's state, by name."""
        if self.cell in MATRICES:
            head = self.units // HEADS
            matrix = (HEADS, head, head)
            if self.cell == "mlstm":
                return {"c": matrix, "n": (HEADS, head), "m": (HEADS,)}
            return {"h": matrix}
        if self.cell == "lru":
            names = ("real", "imag")
        else:
            names = ("c", "h") if self.layer_cell in LSTMS else ("h",)
        return dict.fromkeys(names, (self.units,))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the arrays in a layer's state."""
        return tuple(self.state_sizes)


def select(cases: list[Case], only: str | None) -> list[Case]:
    """The cases whose name matches `only`, a regular expression.

    Raises:
        ValueError: If no case matches, or if `only` is not a valid regular expression.
    """
    try:
        chosen = [case for case in cases if re.search(only or "", case.name)]
    except re.error as error:
        raise ValueError(f"--only {only!r}: {error}") from None
    if not chosen:
        names = "\n  ".join(case.name for case in cases)
        raise ValueError(f"no case matches {only!r}; the cases:\n  {names}")
    return chosen


def make_cases(
    cells: str,
    *shapes: tuple[int, int, int, int],
    lengths: str = "dense",
    modes: str = "forward train",
    runs: str = "",
    dtypes: str = "float32",
    pattern: str = "",
) -> list[Case]:
    """A case for each combination; the words of a string are alternatives.

    A shape is rows, steps, inputs and units.
    """
    words = (text.split(" ") for text in (lengths, modes, runs, dtypes))
    kinds = itertools.product(cells.split(), shapes, *words)
    return [Case(cell, *shape, *rest, pattern) for cell, shape, *rest in kinds]


Presets = dict[str, list[Case]]

SMALL = (3, 8, 4, 5)
RACE: Presets = {
    "smoke": [
        *make_cases("lstm", SMALL, lengths="uniform"),
        *make_cases("lstm2 peephole gru gru_after", SMALL, modes="train"),
    ],
    "quick": [
        *make_cases("lstm", (16, 120, 96, 160)),
        *make_cases(
            "lstm", (64, 200, 128, 256), lengths="uniform short", modes="train"
        ),
        *make_cases("gru", (16, 120, 96, 160), modes="train"),
        *make_cases("lstm", (1, 150, 128, 128), modes="forward"),
    ],
}

# The cases of docs/guide/speed.md. Most were never run while developing the loops.
_PAGE = [
    (48, 80, 192, 320),
    (16, 120, 96, 160),
    (64, 100, 256, 256),
    (32, 60, 96, 192),
    (24, 90, 80, 200),
    (40, 60, 300, 384),
    (96, 50, 100, 150),
]
_RAGGED = [(50, 120, 100, 200), (64, 200, 128, 256)]
_ONE_ROW = [(400, 160, 128), (400, 200, 200), (400, 160, 320), (1000, 256, 256)]
RACE["page"] = [
    *make_cases("lstm", *_PAGE),
    *make_cases("lstm2", (32, 100, 128, 128)),
    *make_cases("gru_after", (16, 120, 96, 160)),
    *make_cases("gru_after", (20, 100, 120, 180), modes="train"),
    *make_cases("peephole", (32, 100, 128, 128), modes="train"),
    *make_cases("lstm", *_RAGGED, lengths="uniform short", modes="train"),
    *make_cases("lstm", *((1, *shape) for shape in _ONE_ROW), modes="forward"),
]

# The matrices of these layers exceed a core's own caches.
_WIDE = [(50, 256, 512), (50, 200, 700), (50, 512, 1024)]
_wide = lambda *rows: [(n, *shape) for shape in _WIDE for n in rows]
RACE["wide"] = [
    *make_cases("lstm", *_wide(1, 4, 8, 16, 32, 64)),
    *make_cases("gru_after", *_wide(1, 16, 64)),
]

_FEW_UNITS = [(n, 100, 16, units) for n in (1, 16, 128) for units in (16, 32, 64)]
RACE["small"] = [
    *make_cases("lstm", *_FEW_UNITS),
    *make_cases("gru_after", (16, 100, 16, 32), (128, 100, 16, 64)),
]

_FLAX = "gru_after lstm"
_SMALL = (3, 64, 4, 5)
_POLICIES = [
    (1, 128, 64, 128),
    (16, 128, 128, 128),
    (64, 128, 128, 256),
    (16, 128, 256, 512),
    (1024, 128, 64, 256),
]
_resets = functools.partial(make_cases, lengths="resets")
_both_ways = functools.partial(make_cases, lengths="uniform", pattern="bidirectional")
_draws = functools.partial(make_cases, modes="forward", pattern="sampling")
_mapped = functools.partial(make_cases, pattern="mapped")
RACE["smoke"] += [
    *_resets("lstm", _SMALL, pattern="rollout"),
    *_resets("lstm", _SMALL, modes="train", pattern="scanned"),
    *_resets("gru_after", _SMALL, modes="train", pattern="replay"),
    *_resets("mingru", _SMALL, modes="train", pattern="associative"),
    *make_cases("mlstm", (2, 128, 4, 8), modes="train", pattern="chunked"),
    *_both_ways("lstm", SMALL),
    *_draws("gru_after", SMALL),
    *_mapped("lstm gru_after", SMALL),
    *_mapped("gru", SMALL, modes="train"),
    *_mapped("lru mlstm", (3, 8, 8, 8), modes="train"),
]
RACE["patterns"] = [
    *_resets(_FLAX, *_POLICIES, pattern="rollout"),
    *_resets(_FLAX, *_POLICIES, pattern="scanned"),
    *_resets(_FLAX, (64, 120, 128, 256), pattern="replay"),
    *_resets("mingru", (8, 1024, 128, 128), pattern="associative"),
    *_resets("mingru", (1, 8192, 256, 256), pattern="associative"),
    *make_cases("mlstm", (8, 1024, 256, 256), pattern="chunked"),
    *_both_ways(_FLAX, (32, 100, 128, 128), (64, 200, 128, 256)),
    *_draws(_FLAX, (1, 128, 64, 128), (64, 128, 64, 256)),
    *_mapped(_FLAX, (48, 20, 48, 192), (96, 12, 64, 320)),
    *_mapped(_FLAX, (24, 40, 64, 128), (64, 16, 32, 48)),
    *_mapped("lru", (32, 196, 64, 64)),
    *_mapped("mlstm", (8, 256, 128, 128)),
]

_LOOPS = "xla native"
_SIZES = (32, 100, 128, 128)
_LONG = (8, 1000, 128, 128)
_MEDIUM = (8, 512, 128, 128), (1, 512, 128, 128)
_STRATEGIES = "Recompute() Offload(Recompute(64))"
VERSIONS: Presets = {
    "smoke": [
        *make_cases("lstm", SMALL, lengths="uniform", modes="train", runs=_LOOPS),
        *make_cases("gru", SMALL, modes="train", runs="raw_rnn custom"),
        *make_cases("rglru", (3, 8, 5, 5), modes="forward"),
    ],
    "quick": [
        *make_cases("lstm gru", _SIZES, lengths="dense uniform", runs=_LOOPS),
        *make_cases("lstm", _SIZES, lengths="resets"),
        *make_cases("lstm", _SIZES, lengths="uniform", runs="raw_rnn"),
        *make_cases("lstm", _LONG, modes="train", runs=_STRATEGIES),
        *make_cases(
            "gru", _SIZES, lengths="dense uniform", modes="train", runs="custom"
        ),
        *make_cases("mingru rglru", (8, 1024, 128, 128)),
        *make_cases(" ".join(MATRICES), *_MEDIUM, modes="train"),
    ],
}

COMPILATION: Presets = {
    "smoke": make_cases("lstm", SMALL, lengths="uniform", modes="forward"),
    "quick": make_cases("lstm", (16, 50, 32, 64), lengths="dense uniform"),
}

_LONGER = (8, 1024, 256, 256), (1, 1024, 256, 256)
RECURRENCES: Presets = {
    "smoke": [
        *make_cases("mlstm", (2, 128, 4, 8), modes="forward"),
        *make_cases("gated_delta", (2, 128, 4, 8), modes="train"),
        *make_cases("lru", (2, 8, 8, 8), modes="train"),
    ],
    "quick": make_cases(" ".join(MATRICES), *_LONGER),
    "full": make_cases(" ".join(MATRICES + LINEAR), *_LONGER, (1, 8192, 256, 256)),
}
