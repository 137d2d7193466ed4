"""A training step for 1 to 256 TPU chips, planned on paper: nothing runs.

    pip install "jax[tpu]" -e ".[examples]"
    JAX_PLATFORMS=cpu python -m benchmarks.compilers.scaling

It compiles the step of `examples/distributed/train.py` for v5e chips, with copies of
the parameters (data parallel) and with divided ones (FSDP), 64 rows on each chip. The
meshes are explicit: the types of arrays say how each is divided, so drivers know the
layout while JAX traces them, and the compiler has none to choose.

It prints a table and writes it to `benchmarks/results/scaling-v5e.md`. The compiler
says the memory, the estimated cycles and the collectives; least times follow from the
figures that Google publishes.
"""

import collections
import dataclasses
import datetime
import functools
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from jaxrnn._drivers.absent_devices import absent_devices

from .hlo import Collective
from .program import MIB, Compiled, read

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from distributed import datasets, train

FILE = Path(__file__).parents[1] / "results" / "scaling-v5e.md"
SOURCE = "https://cloud.google.com/tpu/docs/v5e"
PRODUCTS = 197e12
"""Operations a second of a chip's products in bfloat16, by the source."""
LINKS = 200e9
"""Bytes a second that a chip sends. The source has 400 GB/s for both directions."""

CHIPS = 1, 4, 16, 64, 256
LAYOUTS = "data parallel", "FSDP"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a step on each chip; `units` counts one direction."""

    rows: int = 64
    steps: int = 512
    features: int = 256
    units: int = 2048
    classes: int = 1024

    @property
    def operations(self) -> int:
        """The operations of a chip's products in both LSTMs.

        Of a step of a row these are the gates, the kernel's gradient and the state's
        gradient; the frames have none.
        """
        gates, reads = 4 * self.units, self.features + self.units
        return 2 * self.rows * self.steps * 2 * gates * (2 * reads + self.units)


def types_of(chips: int, layout: str, sizes: Sizes) -> tuple[train.Config, Any, Any]:
    """`(config, state, batch)` of the step; the last two are types on a mesh."""
    mesh = Mesh(
        np.asarray(absent_devices("v5e", chips)),
        ("data",),
        axis_types=(AxisType.Explicit,),
    )
    rows = chips * sizes.rows
    config = train.Config(units=sizes.units, batch_size=rows, mesh="explicit")
    frames = jax.ShapeDtypeStruct((rows, sizes.steps, sizes.features), np.float32)
    of_row = lambda dtype: jax.ShapeDtypeStruct((rows,), dtype)
    batch = datasets.Batch(
        frames, *map(of_row, (np.int32, np.int32, np.bool_, np.int32))
    )
    records = datasets.Records(frames, batch.lengths, batch.labels)
    dataset = datasets.Dataset(records, records, sizes.steps, sizes.classes)
    state = jax.eval_shape(lambda: train.init(config, dataset, jax.random.key(0)))

    def put(spec: P, leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def of_state(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        is_cells_kernel = {"fw", "bw"} & set(names) and leaf.ndim == 2
        divided = names[0] == "carry" or (layout == "FSDP" and is_cells_kernel)
        return put(P("data") if divided else P(), leaf)

    state = jax.tree_util.tree_map_with_path(of_state, state)
    return config, state, jax.tree.map(functools.partial(put, P("data")), batch)


def compiled(chips: int, layout: str, sizes: Sizes | None = None) -> Compiled:
    """The step as a chip runs it."""
    config, state, batch = types_of(chips, layout, sizes or Sizes())
    step = jax.jit(functools.partial(train.update, config), donate_argnums=0)
    with jax.set_mesh(batch.frames.sharding.mesh):
        return read(step.lower(state, batch))


def sent(exchanged: list[Collective], chips: int) -> float:
    """The bytes that a chip sends at least, by ring algorithms."""
    share = (chips - 1) / chips
    factors = {"all-reduce": 2 * share, "all-gather": share}
    factors |= {"reduce-scatter": chips - 1, "all-to-all": share}
    factors["collective-permute"] = 1
    return sum(factors[one.kind] * one.bytes for one in exchanged)


def least_products(sizes: Sizes) -> float:
    """The seconds that a chip's products take at least."""
    return sizes.operations / PRODUCTS


# The table


def listed(exchanged: list[Collective]) -> str:
    """The kinds of collectives, with the bytes of their results."""
    sums = collections.Counter()
    for one in exchanged:
        sums[one.kind] += one.bytes
    return ", ".join(f"{n / 1e6:.1f} MB {kind}" for kind, n in sums.items()) or "none"


def row(chips: int, layout: str, sizes: Sizes) -> list[str]:
    """The cells of a row of the table."""
    program = compiled(chips, layout, sizes)
    exchange, products = sent(program.outside, chips) / LINKS, least_products(sizes)
    return [
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
    "collectives in loops",
    "outside of loops",
    "exchange at least, ms",
    "bound by",
    "rows where equal",
)


def conditions(sizes: Sizes) -> str:
    """What the table is of, and where its numbers come from."""
    packages = ("jax", "jaxlib", "libtpu", "optax")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"""\
Saved on {datetime.date.today()}. Planned on paper: nothing was run.

Versions: {versions}.

The step of `examples/distributed/train.py`: loss, gradients, and Adam with a clipped
gradient, on an explicit mesh. The network is a bidirectional LSTM of {sizes.units}
units in each direction, with {sizes.features} features and {sizes.classes} classes, in
float32, which a TPU multiplies in bfloat16. Each chip has {sizes.rows} rows of
{sizes.steps} steps. FSDP divides the kernels of the cells and their optimizer state.

The TPU's compiler reports the memory, the cycles and the collectives of one chip. Its
cycles are an estimate that leaves out waiting for memory. Bytes are the size of
a collective's result.

Least times follow from [Google's figures]({SOURCE}).
At {PRODUCTS / 1e12:.0f} TFLOP/s in bfloat16 the products of both LSTMs take at least
{1e3 * least_products(sizes):.1f} ms on every chip. The interconnect of a chip has
400 GB/s in both directions together, over four links, so a chip sends
{LINKS / 1e9:.0f} GB/s. An all-reduce sends at least twice the bytes of its result, an
all-gather once, both less one part. With 4 chips only two links of each lead to another
chip: there the exchange takes twice the time of the table. With fewer rows of
{sizes.steps} steps on a chip than the last column says, the exchange takes longer than
the products.
"""


def table(sizes: Sizes) -> Iterator[str]:
    """The lines of the table, as programs are compiled."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" + "|---:" * 3 + "|---" * 2 + "|---:|---|---:|"
    for layout in LAYOUTS:
        for chips in CHIPS:
            if chips > 1 or layout == LAYOUTS[0]:
                yield f"| {' | '.join(row(chips, layout, sizes))} |"


def main() -> None:
    """Compiles every program, prints the table and saves it."""
    jax.config.update("jax_platforms", "cpu")
    sizes, lines = Sizes(), []
    for line in table(sizes):
        print(line, flush=True)
        lines.append(line)
    FILE.write_text("\n".join(["# scaling-v5e\n", conditions(sizes), *lines]) + "\n")


if __name__ == "__main__":
    main()
