"""`jax.vmap` over the parameters of several nets, compared with `jax.lax.map`.

    taskset -c 0 python -m benchmarks.mapped_parameters

The two alternate in one process on one core, and their CPU times are compared. The
script writes `results/mapped_parameters.md`.
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

ROUNDS, SECONDS = 15, 0.06
RESULTS = pathlib.Path(__file__).parent / "results" / "mapped_parameters.md"
# The cell, the number of nets, and the rows, steps and inputs of each.
CASES: list[tuple[jaxrnn.RNNCell, int, tuple[int, int, int]]] = [
    (jaxrnn.LSTMCell(16), 64, (1, 50, 8)),
    (jaxrnn.LSTMCell(32), 16, (8, 100, 16)),
    (jaxrnn.LSTMCell(64), 5, (8, 50, 32)),
    (jaxrnn.LSTMCell(64), 16, (32, 20, 32)),
    (jaxrnn.LSTMCell(128), 5, (32, 50, 64)),
    (jaxrnn.LSTMCell(128), 16, (32, 100, 64)),
    (jaxrnn.GRUCell(32), 64, (8, 50, 16)),
    (jaxrnn.GRUCell(64), 16, (8, 100, 32)),
    (jaxrnn.GRUCell(128), 5, (32, 100, 64)),
    (jaxrnn.GRUCell(128), 16, (1, 100, 64)),
]
HEAD = """# Several nets: `vmap` over parameters compared with `lax.map`

CPU time of `jax.lax.map` over the parameters of all nets, divided by the CPU time of \
`jax.vmap`; medians and quartiles of {rounds} alternating rounds on one core. The nets \
share their inputs, or each has separate inputs. `python -m \
benchmarks.mapped_parameters`, jaxrnn {version}, JAX {jax}, {native}.

| case | mode | shared inputs | separate inputs |
|---|---|---|---|
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
    for cell, nets, shape in CASES:
        name = type(cell).__name__.removesuffix("Cell")
        label = "{} nets, {} B{} T{} D{} H{}"
        label = label.format(nets, name, *shape, cell.output_size)
        for mode in (_forward, _train):
            ratios = (_ratio(cell, nets, shape, mode, own) for own in (False, True))
            row = f"| {label} | {mode.__name__[1:]} | {' | '.join(ratios)} |\n"
            print(row, end="", flush=True)
            text += row
    RESULTS.write_text(text)


def _ratio(
    cell: Any, nets: int, shape: tuple[int, int, int], mode: Callable, own: bool
) -> str:
    """One entry of the table: median and quartiles of the ratio."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(nets, *shape) if own else shape)
    x = jnp.asarray(x, jnp.float32)
    row = jnp.zeros((shape[0], shape[2]))
    keys = jax.random.split(jax.random.key(0), nets)
    params = jax.vmap(lambda key: cell.init(key, row))(keys)
    one = functools.partial(mode, cell)
    if own:
        by_map = lambda params, x: jax.lax.map(lambda args: one(*args), (params, x))
    else:
        by_map = lambda params, x: jax.lax.map(lambda params: one(params, x), params)
    by_vmap = jax.vmap(one, (0, 0 if own else None))
    calls = [_call(fn, params, x) for fn in (by_map, by_vmap)]
    count = max(1, round(SECONDS / max(_seconds(call, 1) for call in calls)))
    rounds = [[_seconds(call, count) for call in calls] for _ in range(ROUNDS)]
    ratios = [mapped / batched for mapped, batched in rounds]
    low, median, high = np.percentile(ratios, (25, 50, 75))
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def _call(fn: Callable, *args: Any) -> Callable[[], Any]:
    compiled = jax.jit(fn).lower(*args).compile()
    call = lambda: jax.block_until_ready(compiled(*args))
    call()
    return call


def _forward(cell: Any, params: Any, x: Any) -> Any:
    return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32)


def _train(cell: Any, params: Any, x: Any) -> Any:
    """A loss on the outputs, and its gradient with respect to the parameters."""
    loss = lambda params: jnp.sum(_forward(cell, params, x)[0] ** 2)
    return jax.value_and_grad(loss)(params)


def _seconds(call: Callable[[], Any], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
