"""Plans training steps on one sequence whose time is divided over TPU chips.

    pip install "jax[tpu]" optax
    JAX_PLATFORMS=cpu python -m benchmarks.compilers.divided_time

It compiles a training step for v5e chips: loss, gradients and Adam. It prints a table
and writes it to `benchmarks/results/divided-time-v5e.md`. Nothing is run.
"""

import datetime
import functools
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import jaxrnn

from ..absent_devices import absent_devices
from .hlo import Collective
from .program import MIB, Compiled, read

FILE = Path(__file__).parents[1] / "results" / "divided-time-v5e.md"
STEPS, UNITS, HEADS = 2**18, 1024, 8
CELLS = {
    "MinGRU": jaxrnn.MinGRUCell(UNITS),
    "LRU": jaxrnn.LRUCell(UNITS),
    "mLSTM": jaxrnn.MLSTMCell(UNITS, HEADS),
    "Gated DeltaNet": jaxrnn.GatedDeltaNetCell(UNITS, HEADS),
}
CHIPS = 1, 4, 8, 16
OPTIMIZER = optax.adam(1e-3)


def train_step(cell: jaxrnn.RNNCell, params: Any, state: Any, x: Any) -> Any:
    """One step of Adam on the mean square of the outputs."""

    def loss(params: Any) -> jax.Array:
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        return jnp.mean(outputs**2)

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = OPTIMIZER.update(gradient, state)
    return value, optax.apply_updates(params, updates), state


def compiled(
    cell: jaxrnn.RNNCell, chips: int, steps: int = STEPS, depth: int = UNITS
) -> Compiled:
    """The program of each chip for one row of inputs `[1, steps, depth]`."""
    devices = np.asarray(absent_devices("v5e", chips))
    mesh = Mesh(devices, ("time",), axis_types=(AxisType.Explicit,))
    x = jax.ShapeDtypeStruct((1, steps, depth), jnp.float32)

    def make(key: jax.Array) -> tuple[Any, Any]:
        params = cell.init(key, x.update(shape=(1, depth)))
        return params, OPTIMIZER.init(params)

    put = lambda spec, x: x.update(sharding=NamedSharding(mesh, spec))
    copied = jax.tree.map(
        functools.partial(put, P()), jax.eval_shape(make, jax.random.key(0))
    )
    step = jax.jit(functools.partial(train_step, cell), donate_argnums=(0, 1))
    with jax.set_mesh(mesh):
        return read(step.lower(*copied, put(P(None, "time"), x)))


def listed(exchanged: list[Collective]) -> str:
    """The kinds of collectives with the total size of their results in bytes."""
    kinds = sorted({one.kind for one in exchanged})
    sums = {k: sum(one.bytes for one in exchanged if one.kind == k) for k in kinds}
    return ", ".join(f"{n:,} {kind}" for kind, n in sums.items()) or "none"


def row(name: str, chips: int) -> list[str]:
    """The cells of a row of the table."""
    program = compiled(CELLS[name], chips)
    return [
        name,
        f"{chips}",
        f"{program.arguments / MIB:,.0f} + {program.temporary / MIB:,.0f}",
        f"{program.cycles / 1e6:,.0f}",
        listed(program.in_loops),
        listed(program.outside),
    ]


HEAD = (
    "cell",
    "chips",
    "memory of a chip, MiB: arguments + temporary",
    "cycles, millions",
    "in loops",
    "bytes outside of loops",
)


def conditions() -> str:
    """The text above the table."""
    packages = ("jax", "jaxlib", "libtpu", "optax")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"""\
Saved on {datetime.date.today()}. A plan: nothing was run.

Versions: {versions}.

A training step (loss, gradients and Adam) of one cell with {UNITS:,} units and inputs
of depth {UNITS:,}, on one row of {STEPS:,} steps in float32. Matrix memories have
{HEADS} heads. Time is divided over the chips of an explicit mesh. The TPU's compiler
reports the memory, the estimated cycles and the collectives of one chip; bytes are the
sizes of their results on a chip. The all-gather is of the maps of the parts, and the
all-reduce sums the gradients of the parameters and the maps. For comparison,
`time x units` of one array is {4 * STEPS * UNITS:,} bytes.
"""


def main() -> None:
    """Compile every program, print the table and save it."""
    jax.config.update("jax_platforms", "cpu")
    lines = [f"| {' | '.join(HEAD)} |", "|---" + "|---:" * 3 + "|---" * 2 + "|"]
    print(*lines, sep="\n")
    for name in CELLS:
        for chips in CHIPS:
            lines.append(f"| {' | '.join(row(name, chips))} |")
            print(lines[-1], flush=True)
    FILE.write_text("\n".join(["# divided-time-v5e\n", conditions(), *lines]) + "\n")


if __name__ == "__main__":
    main()
