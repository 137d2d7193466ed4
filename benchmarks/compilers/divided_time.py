"""Plans training steps on one sequence whose time is divided over TPU chips.

    pip install "jax[tpu]" optax
    JAX_PLATFORMS=cpu python -m benchmarks.compilers.divided_time

It compiles a training step for v5e chips: loss, gradients and Adam. It prints a table
and writes it to `benchmarks/results/divided-time-v5e.md`. Nothing is run.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import jaxrnn

from ..absent_devices import absent_devices
from .program import MIB, Compiled, listed, on_mesh, read, save, versions

STEPS, UNITS, HEADS = 2**18, 1024, 8
CELLS = {
    "MinGRU": jaxrnn.MinGRUCell(UNITS),
    "LRU": jaxrnn.LRUCell(UNITS),
    "mLSTM": jaxrnn.MLSTMCell(UNITS, HEADS),
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

    types = jax.eval_shape(make, jax.random.key(0))
    copied = on_mesh(types, NamedSharding(mesh, P()))
    step = jax.jit(functools.partial(train_step, cell), donate_argnums=(0, 1))
    with jax.set_mesh(mesh):
        inputs = on_mesh(x, NamedSharding(mesh, P(None, "time")))
        return read(step.lower(*copied, inputs))


def rows() -> Iterator[list[str]]:
    """The rows of the table, each yielded after its program is compiled."""
    for name, cell in CELLS.items():
        for chips in CHIPS:
            program = compiled(cell, chips)
            yield [
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
    return f"""\
{versions("libtpu", "optax")}. A plan: nothing was run.

A training step (loss, gradients and Adam) of one cell with {UNITS:,} units and inputs
of depth {UNITS:,}, on one row of {STEPS:,} steps in float32. Matrix memories have
{HEADS} heads. Time is divided over the chips of an explicit mesh. The TPU's compiler
reports the memory, the estimated cycles and the collectives of one chip; bytes are the
sizes of their results on a chip. The all-gather is of the maps of the parts, and the
all-reduce sums the gradients of the parameters and the maps. For comparison,
`time x units` of one array is {4 * STEPS * UNITS:,} bytes."""


def main() -> None:
    """Compile every program, print the table and save it."""
    jax.config.update("jax_platforms", "cpu")
    name = "divided-time-v5e"
    save(name, conditions(), HEAD, rows(), name)


if __name__ == "__main__":
    main()
