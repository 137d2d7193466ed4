"""The cost of returning the states of all steps, and of masks with gaps.

    taskset -c 0 python -m benchmarks.states_and_masks

Runs with and without the feature alternate in one process on one core. Their CPU times
are compared, so other work on the machine matters little. The script writes
`results/states_and_masks.md`.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn

ROUNDS, CALLS = 15, 3
RESULTS = pathlib.Path(__file__).parent / "results" / "states_and_masks.md"
KEPT = 0.7  # The share of valid steps, both of masks and of lengths.
CASES: dict[str, tuple[jaxrnn.RNNCell, tuple[int, int, int]]] = {
    "LSTM B32 T100 D64 H128": (jaxrnn.LSTMCell(128), (32, 100, 64)),
    "LSTM B8 T400 D32 H64": (jaxrnn.LSTMCell(64), (8, 400, 32)),
    "LSTM B64 T50 D256 H256": (jaxrnn.LSTMCell(256), (64, 50, 256)),
    "GRU B32 T100 D64 H128": (jaxrnn.GRUCell(128), (32, 100, 64)),
    "basic RNN B32 T100 D64 H128": (jaxrnn.BasicRNNCell(128), (32, 100, 64)),
    "MinGRU B8 T1024 D64 H256": (jaxrnn.MinGRUCell(256), (8, 1024, 64)),
}
HEAD = """# States of every step, and masks with gaps

CPU time of a run with the feature, divided by the CPU time without it; medians of \
{rounds} alternating rounds on one core. "mask" is compared with lengths that keep the \
same number of steps. `python -m benchmarks.states_and_masks`, jaxrnn {version}, \
JAX {jax}, {native}.

| case | loop | mode | states | states, with lengths | mask |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Measure all cases and write the table."""
    text = HEAD.format(
        rounds=ROUNDS,
        version=jaxrnn.__version__,
        jax=jax.__version__,
        native=jaxrnn.native_status(),
    )
    print(text, end="")
    for name, (cell, shape) in CASES.items():
        is_affine = isinstance(cell, jaxrnn.AffineCell)
        for loop in ("default", "xla") if is_affine else ("default",):
            for mode in ("forward", "training"):
                figures = " | ".join(
                    f"{r:.2f}" for r in ratios(cell, shape, loop, mode)
                )
                row = f"| {name} | {loop} | {mode} | {figures} |\n"
                print(row, end="", flush=True)
                text += row
    RESULTS.write_text(text)


def ratios(
    cell: jaxrnn.RNNCell, shape: tuple[int, int, int], loop: str, mode: str
) -> tuple[float, float, float]:
    """The three columns of a row, for inputs `[batch, time, depth]` of this shape."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    mask = jnp.asarray(rng.random(shape[:2]) < KEPT)
    params = cell.init(jax.random.key(0), x[:, 0])
    lengths = {"sequence_length": mask.sum(1, dtype=jnp.int32)}
    options = {"implementation": None if loop == "default" else loop}

    def call(given: dict[str, Any], return_states: bool = False) -> Callable[[], Any]:
        static = options | {"return_states": return_states, "dtype": jnp.float32}
        run = functools.partial(_run, cell, static)
        fn = jax.jit(run if mode == "forward" else functools.partial(_train, run))
        return lambda: jax.block_until_ready(fn(params, x, given))

    dense = _ratio(call({}), call({}, return_states=True))
    ragged = _ratio(call(lengths), call(lengths, return_states=True))
    return dense, ragged, _ratio(call(lengths), call({"mask": mask}))


def _run(cell: jaxrnn.RNNCell, static: Any, params: Any, x: Any, given: Any) -> Any:
    return jaxrnn.dynamic_rnn(cell.bind(params), x, **given, **static)


def _train(run: Callable, params: Any, x: Any, given: Any) -> Any:
    """A loss on the outputs, and its gradients; the states are also returned."""

    def loss(params: Any, x: Any) -> Any:
        outputs, *rest = run(params, x, given)
        return jnp.sum(outputs**2), rest

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)


def _ratio(without: Callable[[], Any], having: Callable[[], Any]) -> float:
    calls = without, having
    for call in calls:
        call()
    rounds = [[_cpu_seconds(call) for call in calls] for _ in range(ROUNDS)]
    return float(np.median([b / a for a, b in rounds]))


def _cpu_seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
