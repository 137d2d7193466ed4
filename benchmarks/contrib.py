"""The cells of `jaxrnn.contrib` beside a plain `lax.scan` of the same cell.

    python -m benchmarks.contrib [--only REGEX] [--rounds N]

A plain scan has one step of the cell as its body, and what a step does not change (a
normalized kernel, the keys of a memory) ahead of it, as one would write it by hand. In
a round both run one after the other; a ratio is the scan's time by that of
`dynamic_rnn` in the same round, above 1 `dynamic_rnn` is faster. A cell runs whole
"sequences" by its own `apply_sequence`, or is scanned in "steps". "By an LSTM" is the
time of the core's `LSTMCell`, of as many units, by that of the cell.
"""

import argparse
import dataclasses
import functools
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import contrib

from .core.machine import describe
from .core.ratios import Spread

BATCH, TIME, SIZE = 32, 128, 128
RESULT = Path(__file__).parent / "results" / "contrib.json"
SIZES = (
    f"{BATCH} rows of {TIME} steps, {SIZE} inputs and units, float32, without lengths, "
    "where a row does not say otherwise."
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A cell and its inputs.

    Attributes:
        cell: The cell.
        step: The shape of one row of one step of inputs, or a nest of shapes.
        rows: The number of rows.
        steps: The number of steps.
        classes: The number of ids, for inputs that are integers.
        state: Makes the initial state; None for the zero state.
    """

    cell: jaxrnn.RNNCell
    step: Any = (SIZE,)
    rows: int = BATCH
    steps: int = TIME
    classes: int | None = None
    state: Callable[[], Any] | None = None

    @property
    def label(self) -> str:
        """The cell, and the sizes where they are others."""
        name = type(self.cell).__name__
        if inner := getattr(self.cell, "cell", None):
            name += f"({type(inner).__name__})"
        if mechanism := getattr(self.cell, "attention_mechanism", None):
            name += f", {type(mechanism).__name__}"
        usual = (self.rows, self.steps) == (BATCH, TIME) and self.step == (SIZE,)
        shape = "" if usual else f", B{self.rows} T{self.steps} {self.step}"
        return name + shape


def cases() -> list[Case]:
    """All cells, each at a size that takes some milliseconds."""
    lstm, gru = jaxrnn.LSTMCell(SIZE), jaxrnn.GRUCell(SIZE)
    image = dict(step=(16, 16, 8), rows=8, steps=16)
    attention = contrib.AttentionWrapper(
        lstm, contrib.LuongAttention(SIZE, SIZE), attention_layer_size=SIZE
    )
    additive = contrib.AttentionWrapper(
        lstm, contrib.BahdanauAttention(SIZE, SIZE), attention_layer_size=SIZE
    )
    memory = np.random.default_rng(1).normal(size=(BATCH, 64, SIZE))
    memory = memory.astype(np.float32)
    return [
        Case(contrib.CoupledInputForgetGateLSTMCell(SIZE)),
        Case(contrib.GLSTMCell(SIZE, number_of_groups=2)),
        Case(contrib.LayerNormBasicLSTMCell(SIZE)),
        Case(contrib.LayerNormLSTMCell(SIZE, layer_norm=True)),
        Case(contrib.WeightNormLSTMCell(SIZE)),
        Case(contrib.NASCell(SIZE)),
        Case(contrib.LSTMBlockCell(SIZE)),
        Case(contrib.GRUBlockCellV2(SIZE)),
        Case(contrib.UGRNNCell(SIZE)),
        Case(contrib.IntersectionRNNCell(SIZE)),
        Case(contrib.SRUCell(SIZE)),
        Case(contrib.IndRNNCell(SIZE)),
        Case(contrib.IndyGRUCell(SIZE)),
        Case(contrib.IndyLSTMCell(SIZE)),
        Case(contrib.MinimalRNNCell(SIZE)),
        Case(contrib.CFNCell(SIZE)),
        Case(contrib.HighwayWrapper(gru)),
        Case(contrib.InputProjectionWrapper(gru, SIZE)),
        Case(contrib.OutputProjectionWrapper(gru, SIZE)),
        Case(contrib.EmbeddingWrapper(gru, 1000, SIZE), (1,), classes=1000),
        Case(contrib.AttentionCellWrapper(gru, 8)),
        Case(attention, state=lambda: attention.initial_state(memory)),
        Case(additive, state=lambda: additive.initial_state(memory)),
        Case(contrib.PhasedLSTMCell(SIZE), ((1,), (SIZE,))),
        Case(contrib.ConvLSTMCell(2, (16, 16, 8), 8, (3, 3)), **image),
        Case(
            contrib.TimeFreqLSTMCell(
                16, feature_size=16, frequency_skip=8, num_windows=15
            ),
            steps=32,
        ),
        Case(
            contrib.GridLSTMCell(
                16, feature_size=16, frequency_skip=8, num_frequency_blocks=[15]
            ),
            steps=32,
        ),
        Case(
            contrib.BidirectionalGridLSTMCell(
                16, feature_size=16, frequency_skip=8, num_frequency_blocks=[15]
            ),
            steps=16,
        ),
        Case(contrib.NTMCell(lstm, 64, 16, 1, 1, output_dim=SIZE), steps=32),
    ]


def draw(case: Case) -> Any:
    """The inputs of all steps, time first."""
    rng = np.random.default_rng(0)

    def sequence(shape: tuple[int, ...]) -> jax.Array:
        full = (case.steps, case.rows, *shape)
        if case.classes is not None:
            return jnp.asarray(rng.integers(0, case.classes, full), jnp.int32)
        return jnp.asarray(rng.normal(size=full), jnp.float32)

    is_nest = isinstance(case.step[0], tuple)
    return tuple(map(sequence, case.step)) if is_nest else sequence(case.step)


def by_driver(cell: Any, params: Any, xs: Any, state: Any) -> Any:
    """Outputs and state by `dynamic_rnn`."""
    return jaxrnn.dynamic_rnn(
        cell.bind(params), xs, initial_state=state, dtype=jnp.float32, time_major=True
    )


def by_scan(cell: Any, params: Any, xs: Any, state: Any) -> Any:
    """Outputs and state by a plain scan."""
    given, state = state, cell.start(params, state)
    step = cell.apply
    if isinstance(cell, jaxrnn.AffineCell):
        params = cell.stage_params(params)
        product = lambda k, stage, *args: stage.product(*args)
        step = lambda *args: cell.chain(product, *args)[:2]

    def body(state: Any, x: Any) -> tuple[Any, Any]:
        output, state = step(params, x, state)
        return state, output

    state, outputs = jax.lax.scan(body, state, xs)
    if hasattr(given, "memory"):
        state = state._replace(memory=given.memory)
    return outputs, state


def programs(case: Case) -> dict[str, Callable[[], Any]]:
    """Calls that run each way, forward and for all gradients, compiled."""
    cell, xs = case.cell, draw(case)
    params = cell.init(jax.random.key(0), jax.tree.map(lambda x: x[0], xs))
    state = case.state() if case.state else cell.zero_state(case.rows, jnp.float32)
    found = {}
    for name, run in {"dynamic_rnn": by_driver, "scan": by_scan}.items():
        forward = functools.partial(run, cell)

        def loss(params: Any, xs: Any, state: Any, run: Callable = forward) -> Any:
            leaves = jax.tree.leaves(run(params, xs, state))
            floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(jnp.vdot(x, jnp.cos(x * 0 + x.size)) for x in floats)

        wrt = 0 if case.classes is not None else (0, 1)
        for mode, fn in {"forward": forward, "train": jax.grad(loss, wrt)}.items():
            compiled = jax.jit(fn).lower(params, xs, state).compile()
            found[name, mode] = functools.partial(compiled, params, xs, state)
    return found


def path_of(case: Case) -> str:
    """How it runs: "sequences", or "steps" if its `apply_sequence` declines."""
    reasons: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: reasons.append(record.getMessage())
    log = logging.getLogger("jaxrnn")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    state = case.state() if case.state else None
    xs = draw(case)
    params = case.cell.init(jax.random.key(0), jax.tree.map(lambda x: x[0], xs))
    # Not compiled before: traced here.
    jax.make_jaxpr(functools.partial(by_driver, case.cell))(params, xs, state)
    log.removeHandler(handler)
    return "steps" if any("step by step" in r for r in reasons) else "sequences"


def deviation(runs: dict, mode: str) -> float:
    """The largest difference of the two ways, relative to the largest entry."""
    pairs = zip(
        jax.tree.leaves(runs["dynamic_rnn", mode]()),
        jax.tree.leaves(runs["scan", mode]()),
        strict=True,
    )
    worst = 0.0
    for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        worst = max(worst, float(np.abs(a - b).max() / max(1, np.abs(b).max())))
    return worst


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds of a call, the fastest of two."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def measure(case: Case, lstm: dict, rounds: int) -> dict[str, Any]:
    """The row of a case."""
    path = path_of(case)
    runs = programs(case)
    row: dict[str, Any] = {"cell": case.label, "path": path}
    row["deviation"] = max(deviation(runs, mode) for mode in ("forward", "train"))
    ms: dict[str, list[float]] = {}
    for _ in range(rounds):
        for (name, mode), run in runs.items():
            ms.setdefault(f"{name} {mode}", []).append(timed(run))
        for mode in ("forward", "train"):
            run = lstm["dynamic_rnn", mode]
            ms.setdefault(f"lstm {mode}", []).append(timed(run))
    return {**row, "ms": ms}


def ratio(row: dict[str, Any], other: str, mode: str) -> str:
    """The time of another way by that of `dynamic_rnn`, over the rounds."""
    ours, theirs = (np.array(row["ms"][f"{n} {mode}"]) for n in ("dynamic_rnn", other))
    return str(Spread.of(theirs / ours))


def report(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [
        "| cell | runs | deviation | forward by scan | training by scan | "
        "training by an LSTM |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        scan = [ratio(row, "scan", mode) for mode in ("forward", "train")]
        lines.append(
            f"| `{row['cell']}` | {row['path']} | {row['deviation']:.0e} | "
            f"{' | '.join(scan)} | {ratio(row, 'lstm', 'train')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, saves the rounds after each case, and prints the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.contrib", description=__doc__
    )
    parser.add_argument("--only", default="", help="of the cells, those that match")
    parser.add_argument("--rounds", type=int, default=11, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    chosen = [case for case in cases() if re.search(options.only, case.label)]
    lstm, rows = programs(Case(jaxrnn.LSTMCell(SIZE))), []
    for case in chosen:
        rows.append(measure(case, lstm, options.rounds))
        result = {"machine": describe(), "sizes": SIZES, "rows": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        text = f"# contrib\n\n{SIZES}\n\n{report(rows)}\n"
        options.out.with_suffix(".md").write_text(text)
        print(report(rows[-1:]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
