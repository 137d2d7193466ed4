"""The cases, and the presets of each command."""

import dataclasses
import itertools
import re
from collections.abc import Iterable

# Results count as equal up to this deviation, relative to an array's norm.
TOLERANCE = 1e-3
# In bfloat16. A scan whose gradients are sums of 256 steps deviates by up to 0.06.
HALF_TOLERANCE = 0.2
LSTMS = "lstm", "peephole", "glstm"  # Cells with a state (c, h).
LINEAR = "mingru", "lru", "rglru"
MATRICES = "mlstm", "deltanet", "gated_deltanet"
HEADS = 4  # The heads of a cell in `MATRICES`.
# Adam divides by the gradient's magnitude, which amplifies rounding errors.
STEP_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class Case:
    """A benchmark case: a cell, its sizes, the lengths of the rows and a mode.

    Attributes:
        cell: "lstm", "peephole", "gru", "gru_after" (which resets after the product),
            "rnn", "mgu" (a custom cell) or "lstm2" (two layers). Only jaxrnn has
            "glstm" (an LSTM in 4 groups), linear recurrences (`LINEAR`) and cells whose
            state is a matrix (`MATRICES`).
        batch: The number of rows, B.
        time: The number of steps, T.
        depth: The size of the inputs, D.
        units: The size of the state, H.
        lengths: "dense" (no lengths), "uniform" (in 1..T), "short" (in 1..T/4),
            "one_long" (one row of T, the others in 1..T/8) or "resets" (no lengths, but
            rows whose state is reset to zeros at some steps).
        mode: "forward"; "train" (forward, and the gradients with respect to parameters,
            inputs and initial state); "final" (the parameter gradients of a loss on
            the final state); "step" (a training step with Adam).
        run: How the peer runs it, for example "xla" or "raw_rnn"; empty for its
            default.
        dtype: The dtype of parameters, inputs and state.
        pattern: What surrounds or replaces the layer, as users write it by hand:
            "rollout", "scanned", "replay", "associative", "chunked", "bidirectional"
            or "sampling"; empty for a layer alone.
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
    def tolerance(self) -> float:
        """Results count as equal up to this deviation."""
        if self.dtype != "float32":
            return HALF_TOLERANCE
        return STEP_TOLERANCE if self.mode == "step" else TOLERANCE

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


def _cases(
    cell: str,
    *shape: int,
    lengths: Iterable[str] = ("dense",),
    modes: Iterable[str] = ("forward", "train"),
    runs: Iterable[str] = ("",),
    dtypes: Iterable[str] = ("float32",),
    pattern: str = "",
) -> list[Case]:
    """A case for each combination of lengths, mode, way to run and dtype."""
    kinds = itertools.product(lengths, modes, runs, dtypes)
    return [Case(cell, *shape, *kind, pattern) for kind in kinds]


Presets = dict[str, list[Case]]

TRAIN = ["train"]
BOTH = ("dense", "uniform")
RAGGED = ["uniform"]
HALF = ["bfloat16"]
ALL_LENGTHS = ("dense", "uniform", "short", "one_long")

RACE: Presets = {
    "smoke": [
        *_cases("lstm", 3, 8, 4, 5, lengths=RAGGED),
        *_cases("lstm2", 3, 8, 4, 5, modes=["step"]),
        *_cases("peephole", 3, 8, 4, 5, modes=TRAIN),
        *_cases("gru", 3, 8, 4, 5, modes=TRAIN),
        *_cases("gru_after", 3, 8, 4, 5, modes=TRAIN),
        *_cases("rnn", 3, 8, 4, 5, lengths=["one_long"], modes=TRAIN),
        *_cases("mgu", 1, 8, 4, 5, modes=["forward"]),
    ],
    "quick": [
        *_cases("lstm", 16, 120, 96, 160),
        *_cases("lstm", 64, 200, 128, 256, lengths=("uniform", "short"), modes=TRAIN),
        *_cases("gru", 16, 120, 96, 160, modes=TRAIN),
        *_cases("lstm", 1, 150, 128, 128, modes=["forward"]),
    ],
    "full": [
        *_cases("lstm", 48, 80, 192, 320, modes=("forward", "train", "step")),
        *_cases("lstm", 16, 120, 96, 160, modes=("forward", "train", "step")),
        *_cases("lstm", 64, 200, 128, 256, lengths=ALL_LENGTHS),
        *_cases("lstm", 64, 200, 128, 256, lengths=BOTH, modes=["step"]),
        *_cases("lstm", 64, 50, 512, 512),
        *_cases("lstm", 128, 20, 1024, 1024),
        *_cases("lstm", 32, 100, 64, 128),
        *_cases("lstm", 8, 4000, 64, 64),
        *_cases("lstm", 1, 150, 64, 64),
        *_cases("lstm", 1, 150, 128, 128, modes=["forward"]),
        *_cases("gru", 48, 80, 192, 320),
        *_cases("gru", 16, 120, 96, 160),
        *_cases("gru_after", 48, 80, 192, 320),
        *_cases("rnn", 32, 100, 128, 128),
        *_cases("peephole", 32, 100, 128, 128),
        *_cases("mgu", 32, 100, 128, 128),
    ],
}

# The cases of docs/guide/speed.md. Most were never run while developing the loops.
RACE["page"] = [
    *_cases("lstm", 48, 80, 192, 320),
    *_cases("lstm", 16, 120, 96, 160),
    *_cases("lstm", 64, 100, 256, 256),
    *_cases("lstm", 32, 60, 96, 192),
    *_cases("lstm", 24, 90, 80, 200),
    *_cases("lstm", 40, 60, 300, 384),
    *_cases("lstm", 96, 50, 100, 150),
    *_cases("lstm2", 32, 100, 128, 128),
    *_cases("gru_after", 16, 120, 96, 160),
    *_cases("gru_after", 20, 100, 120, 180, modes=TRAIN),
    *_cases("peephole", 32, 100, 128, 128, modes=TRAIN),
    *_cases("lstm", 50, 120, 100, 200, lengths=("uniform", "short"), modes=TRAIN),
    *_cases("lstm", 64, 200, 128, 256, lengths=("uniform", "short"), modes=TRAIN),
    *_cases("lstm", 1, 400, 160, 128, modes=["forward"]),
    *_cases("lstm", 1, 400, 200, 200, modes=["forward"]),
    *_cases("lstm", 1, 400, 160, 320, modes=["forward"]),
    *_cases("lstm", 1, 1000, 256, 256, modes=["forward"]),
]

# The matrices of these layers exceed a core's own caches.
_BATCHES = {"lstm": (1, 4, 8, 16, 32, 64), "gru_after": (1, 16, 64)}
RACE["wide"] = [
    case
    for cell, batches in _BATCHES.items()
    for shape in [(50, 256, 512), (50, 200, 700), (50, 512, 1024)]
    for batch in batches
    for case in _cases(cell, batch, *shape)
]


def _pattern(
    pattern: str, cells: Iterable[str], *shapes: tuple[int, ...], **kinds: Iterable[str]
) -> list[Case]:
    """The cases of a pattern, for each cell and shape."""
    sizes = itertools.product(cells, shapes)
    return [
        case
        for cell, shape in sizes
        for case in _cases(cell, *shape, pattern=pattern, **kinds)
    ]


FORWARD = ["forward"]
RESETS = ["resets"]
_FLAX = "gru_after", "lstm"
_SMALL = (3, 64, 4, 5)
_POLICIES = [
    (1, 128, 64, 128),
    (16, 128, 128, 128),
    (64, 128, 128, 256),
    (16, 128, 256, 512),
    (1024, 128, 64, 256),
]
RACE["smoke"] += [
    *_pattern("rollout", ["lstm"], _SMALL, lengths=RESETS),
    *_pattern("scanned", ["lstm"], _SMALL, lengths=RESETS, modes=TRAIN),
    *_pattern("replay", ["gru_after"], _SMALL, lengths=RESETS, modes=TRAIN),
    *_pattern("associative", ["mingru"], _SMALL, lengths=RESETS, modes=TRAIN),
    *_pattern("chunked", ["gated_deltanet"], (2, 128, 4, 8), modes=TRAIN),
    *_pattern("bidirectional", ["lstm"], (3, 8, 4, 5), lengths=RAGGED),
    *_pattern("sampling", ["gru_after"], (3, 8, 4, 5), modes=FORWARD),
]
RACE["patterns"] = [
    *_pattern("rollout", _FLAX, *_POLICIES, lengths=RESETS),
    *_pattern("scanned", _FLAX, *_POLICIES, lengths=RESETS),
    *_pattern("replay", _FLAX, (64, 120, 128, 256), lengths=RESETS),
    *_pattern("associative", ["mingru"], (8, 1024, 128, 128), lengths=RESETS),
    *_pattern("associative", ["mingru"], (1, 8192, 256, 256), lengths=RESETS),
    *_pattern("chunked", ["gated_deltanet"], (8, 1024, 256, 256)),
    *_pattern("bidirectional", _FLAX, (32, 100, 128, 128), lengths=RAGGED),
    *_pattern("bidirectional", _FLAX, (64, 200, 128, 256), lengths=RAGGED),
    *_pattern("sampling", _FLAX, (1, 128, 64, 128), modes=FORWARD),
    *_pattern("sampling", _FLAX, (64, 128, 64, 256), modes=FORWARD),
]

LOOPS = ("xla", "native")
STRATEGIES = ("Recompute()", "Nested()", "Offload(Recompute(64))")

VERSIONS: Presets = {
    "smoke": [
        *_cases("lstm", 3, 8, 4, 5, lengths=RAGGED, modes=TRAIN, runs=LOOPS),
        *_cases("gru", 3, 8, 4, 5, modes=TRAIN, runs=["raw_rnn", "Recompute()"]),
        *_cases("rglru", 3, 8, 5, 5, modes=["forward"]),
    ],
    "quick": [
        *_cases("lstm", 32, 100, 128, 128, lengths=BOTH, runs=LOOPS),
        *_cases("gru", 32, 100, 128, 128, lengths=BOTH, runs=LOOPS),
        *_cases("lstm", 32, 100, 128, 128, lengths=RAGGED, runs=["packed", "raw_rnn"]),
        *_cases("lstm", 8, 1000, 128, 128, modes=TRAIN, runs=STRATEGIES),
        *_cases("mgu", 32, 100, 128, 128, lengths=BOTH, modes=TRAIN),
        *_cases("mingru", 8, 1024, 128, 128),
        *_cases("rglru", 8, 1024, 128, 128),
        *_cases("glstm", 32, 100, 128, 256),
    ],
    "full": [
        *_cases("lstm", 16, 120, 96, 160, lengths=BOTH, runs=LOOPS),
        *_cases("lstm", 48, 80, 192, 320, runs=LOOPS),
        *_cases("lstm", 64, 200, 128, 256, lengths=ALL_LENGTHS, runs=LOOPS),
        *_cases("lstm", 64, 200, 128, 256, lengths=ALL_LENGTHS[1:], runs=["packed"]),
        *_cases("lstm", 64, 200, 128, 256, lengths=BOTH, runs=["raw_rnn"]),
        *_cases("lstm", 64, 50, 512, 512, runs=LOOPS),
        *_cases("gru", 16, 120, 96, 160, lengths=BOTH, runs=LOOPS),
        *_cases("gru", 48, 80, 192, 320, runs=LOOPS),
        *_cases("gru", 64, 200, 128, 256, lengths=ALL_LENGTHS, runs=LOOPS),
        *_cases("gru", 64, 200, 128, 256, lengths=RAGGED, runs=["raw_rnn"]),
        *_cases("gru_after", 16, 120, 96, 160, lengths=BOTH),
        *_cases("rnn", 32, 100, 128, 128, lengths=BOTH, runs=LOOPS),
        *_cases("lstm2", 32, 100, 128, 128, lengths=BOTH, runs=LOOPS),
        *_cases("peephole", 32, 100, 128, 128, lengths=BOTH),
        *_cases("mgu", 32, 100, 128, 128, lengths=BOTH),
        *_cases("glstm", 32, 100, 64, 128),
        *_cases("glstm", 32, 100, 256, 512, lengths=BOTH),
        *_cases("lstm", 8, 1000, 256, 256, modes=("train", "final"), runs=STRATEGIES),
        *_cases("mingru", 8, 1024, 128, 128, lengths=BOTH),
        *_cases("mingru", 1, 8192, 256, 256),
        *_cases("rglru", 8, 1024, 128, 128, lengths=BOTH),
        *_cases("rglru", 1, 8192, 256, 256),
    ],
}

# The longest sequences have inputs of size 2, because wide ones would not fit.
MEMORY: Presets = {
    "smoke": _cases("lstm", 2, 64, 4, 8, modes=["final"]),
    "quick": _cases("lstm", 8, 1000, 256, 256, modes=("final", "train")),
    "full": [
        *_cases("lstm", 8, 1000, 256, 256, modes=("final", "train")),
        *_cases("lstm", 8, 10_000, 256, 256, modes=("final", "train")),
        *_cases("lstm", 8, 100_000, 2, 256, modes=["final"]),
    ],
}

COMPILATION: Presets = {
    "smoke": _cases("lstm", 3, 8, 4, 5, lengths=RAGGED, modes=["forward"]),
    "quick": _cases("lstm", 16, 50, 32, 64, lengths=BOTH),
    "full": [
        *_cases("lstm", 16, 50, 32, 64, lengths=BOTH),
        *_cases("gru_after", 16, 50, 32, 64, lengths=BOTH, modes=TRAIN),
        *_cases("lstm2", 16, 50, 32, 64, lengths=BOTH, modes=TRAIN),
        *_cases("lstm", 64, 200, 128, 256, lengths=BOTH, modes=TRAIN),
    ],
}

RECURRENCES: Presets = {
    "smoke": [
        *_cases("mlstm", 2, 128, 4, 8, modes=["forward"]),
        *_cases("gated_deltanet", 2, 128, 4, 8, modes=TRAIN),
        *_cases("lru", 2, 8, 8, 8, modes=TRAIN),
    ],
    "quick": [case for cell in MATRICES for case in _cases(cell, 8, 1024, 256, 256)],
    "full": [],
}
for _cell in MATRICES:
    RECURRENCES["full"] += _cases(_cell, 8, 1024, 256, 256)
    RECURRENCES["full"] += _cases(_cell, 1, 8192, 256, 256, modes=["forward"])
    for _time in (1024, 4096, 16_384, 65_536):
        RECURRENCES["full"] += _cases(_cell, 1, _time, 256, 256, modes=TRAIN)
for _cell in LINEAR:
    for _batch in (1, 8):
        RECURRENCES["full"] += _cases(_cell, _batch, 8192, 256, 256)

# The most important first, because a deadline may cut the last ones.
_GPU = "lstm", "gru_after"
GPU_TIMES = {
    "small": [
        *_cases("lstm", 3, 8, 4, 5, modes=TRAIN),
        *_cases("gru_after", 3, 8, 4, 5, lengths=RAGGED, modes=["forward"]),
        *_cases("lstm", 3, 8, 4, 5, lengths=["resets"], modes=TRAIN, dtypes=HALF),
    ],
    "full": [
        case
        for dtype in ("float32", *HALF)
        for lengths in ("dense", "uniform", "resets")
        for cell in _GPU
        for case in _cases(cell, 64, 256, 256, 512, lengths=[lengths], dtypes=[dtype])
    ],
}
GPU_LOOPS = {
    "small": _cases("lstm", 3, 8, 4, 5, modes=TRAIN),
    "full": [case for cell in _GPU for case in _cases(cell, 64, 256, 256, 512)],
}
# The smallest first, because a device only reports the most memory so far.
GPU_MEMORY = {
    "small": MEMORY["smoke"],
    "full": _cases("lstm", 32, 1000, 256, 512, modes=("final", "train")),
}
