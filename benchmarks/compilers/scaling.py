"""Plans a training step for 1 to 256 TPU chips, without running it.

    pip install "jax[tpu]" -e ".[examples]"
    JAX_PLATFORMS=cpu python -m benchmarks.compilers.scaling

It compiles the step of `examples/distributed/train.py` for v5e chips, with 64 rows on
each chip. The parameters are replicated (data parallel) or sharded (FSDP). The meshes
are explicit: shardings are part of the array types, so drivers see the layout while JAX
traces them, and the compiler chooses no layout.

It prints a table and writes it to `benchmarks/results/scaling-v5e.md`. The compiler
reports the memory, the estimated cycles and the collectives. Lower bounds of times
follow from figures that Google publishes.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from ..absent_devices import absent_devices
from .hlo import Collective
from .program import MIB, Compiled, listed, on_mesh, read, save, versions

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from distributed import datasets, train

SOURCE = "https://cloud.google.com/tpu/docs/v5e"
PRODUCTS = 197e12
"""Peak operations per second of a chip for bfloat16 products, from the source."""
LINKS = 200e9
"""Bytes per second that a chip sends. The source gives 400 GB/s for both directions."""

CHIPS = 1, 4, 16, 64, 256
LAYOUTS = "data parallel", "FSDP"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a training step on each chip, with `units` per direction."""

    rows: int = 64
    steps: int = 512
    features: int = 256
    units: int = 2048
    classes: int = 1024

    @property
    def operations(self) -> int:
        """The number of operations in a chip's products, for both LSTMs.

        The products of a row's time step compute the gates, the kernel's gradient and
        the state's gradient. The frames need no gradient.
        """
        gates, reads = 4 * self.units, self.features + self.units
        return 2 * self.rows * self.steps * 2 * gates * (2 * reads + self.units)


def types_of(chips: int, layout: str, sizes: Sizes) -> tuple[train.Config, Any, Any]:
    """`(config, state, batch)` of the step; the last two hold types on a mesh."""
    mesh = Mesh(
        np.asarray(absent_devices("v5e", chips)),
        ("data",),
        axis_types=(AxisType.Explicit,),
    )
    rows = chips * sizes.rows
    config = train.Config(units=sizes.units, batch_size=rows, mesh="explicit")
    frames = jax.ShapeDtypeStruct((rows, sizes.steps, sizes.features), np.float32)
    resets = jax.ShapeDtypeStruct((rows, sizes.steps), np.bool_)
    numbers = [jax.ShapeDtypeStruct((rows,), np.int32)] * 3
    batch = datasets.Batch(frames, resets, *numbers)
    records = datasets.Records(frames, batch.lengths, batch.labels)
    dataset = datasets.Dataset(records, records, sizes.steps, sizes.classes)
    state = jax.eval_shape(lambda: train.init(config, dataset, jax.random.key(0)))

    divided = NamedSharding(mesh, P("data"))

    def of_state(path: tuple, leaf: Any) -> NamedSharding:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        is_cells_kernel = {"fw", "bw"} & set(names) and leaf.ndim == 2
        if names[0] == "carry" or (layout == "FSDP" and is_cells_kernel):
            return divided
        return NamedSharding(mesh, P())

    shardings = jax.tree_util.tree_map_with_path(of_state, state)
    return config, on_mesh(state, shardings), on_mesh(batch, divided)


def compiled(chips: int, layout: str, sizes: Sizes | None = None) -> Compiled:
    """The compiled program of each chip."""
    config, state, batch = types_of(chips, layout, sizes or Sizes())
    step = jax.jit(functools.partial(train.update, config), donate_argnums=0)
    with jax.set_mesh(batch.frames.sharding.mesh):
        return read(step.lower(state, batch))


def sent(exchanged: list[Collective], chips: int) -> float:
    """A lower bound of the bytes that a chip sends, with ring algorithms."""
    share = (chips - 1) / chips
    factors = {"all-reduce": 2 * share, "all-gather": share}
    factors |= {"reduce-scatter": chips - 1, "all-to-all": share}
    factors["collective-permute"] = 1
    return sum(factors[one.kind] * one.bytes for one in exchanged)


def least_products(sizes: Sizes) -> float:
    """A lower bound of the seconds of a chip's products."""
    return sizes.operations / PRODUCTS


def rows(sizes: Sizes) -> Iterator[list[str]]:
    """The rows of the table, each yielded after its program is compiled."""
    for layout in LAYOUTS:
        for chips in CHIPS if layout == LAYOUTS[0] else CHIPS[1:]:
            program = compiled(chips, layout, sizes)
            exchange = sent(program.outside, chips) / LINKS
            products = least_products(sizes)
            yield [
                layout,
                str(chips),
                f"{program.arguments / MIB:.0f} + {program.temporary / MIB:.0f}",
                f"{program.cycles / 1e6:.0f}",
                listed(program.in_loops),
                listed(program.outside),
                f"{1e3 * exchange:.2f}",
                "products" if products >= exchange else "exchange",
                f"{sizes.rows * exchange / products:.1f}",
            ]


HEAD = (
    "layout",
    "chips",
    "memory of a chip, MiB: arguments + temporary",
    "cycles, millions",
    "bytes of collectives in loops",
    "outside of loops",
    "minimum exchange, ms",
    "bound by",
    "break-even rows",
)


def conditions(sizes: Sizes) -> str:
    """The text above the table: the program and the sources of the numbers."""
    return f"""\
{versions("libtpu", "optax")}. A plan: nothing was run.

The step of `examples/distributed/train.py`: loss, gradients, and Adam with a clipped
gradient, on an explicit mesh. The network is a bidirectional LSTM of {sizes.units}
units in each direction, with {sizes.features} features and {sizes.classes} classes, in
float32, which a TPU multiplies in bfloat16. Each chip has {sizes.rows} rows of
{sizes.steps} steps. FSDP shards the kernels of the cells and their optimizer state.

The TPU's compiler reports the memory, the cycles and the collectives of one chip. Its
estimate of cycles excludes waiting for memory. Bytes are the size of a collective's
result.

The minimum times follow from [Google's figures]({SOURCE}).
At {PRODUCTS / 1e12:.0f} TFLOP/s in bfloat16, the products of both LSTMs take at least
{1e3 * least_products(sizes):.1f} ms on every chip. A chip's interconnect has 400 GB/s
over four links, both directions together, so a chip sends {LINKS / 1e9:.0f} GB/s. With
n chips, an all-reduce sends at least 2 (n - 1) / n times the bytes of its result, and
an all-gather (n - 1) / n times. With 4 chips, only two links of each chip lead to
another chip, so the exchange takes twice the time in the table. The last column is the
number of rows of {sizes.steps} steps per chip at which exchange and products take
equally long. With fewer rows, the exchange takes longer."""


def main() -> None:
    """Compile every program, print the table and save it."""
    jax.config.update("jax_platforms", "cpu")
    name, sizes = "scaling-v5e", Sizes()
    save(name, conditions(sizes), HEAD, rows(sizes), name)


if __name__ == "__main__":
    main()
