"""Compares jaxrnn's loops with peers by the numbers of the TPU and GPU compilers.

    JAX_PLATFORMS=cpu python -m benchmarks.compilers --target v5e

Nothing runs. For TPUs, the table shows the compiler's estimate of cycles. It excludes
waiting for memory, and element-wise work that is fused with a product. For GPUs, the
table shows the number of launches. It is written to `benchmarks/results/`.
"""

import argparse
import datetime
import importlib.metadata
import pathlib
import re

import jax
from tqdm import tqdm

from ..absent_devices import KINDS, absent_devices
from .program import MIB, Compiled, compiled_for
from .programs import Row, bare_memories, loops, matrix_memories, recurrences

RESULTS = pathlib.Path(__file__).parents[1] / "results"
PACKAGES = "jax", "jaxlib", "flax", "libtpu", "jax-cuda12-plugin"


def measure(device: jax.Device, row: Row) -> tuple[Compiled, Compiled]:
    """Compile jaxrnn's program and the peer's."""
    nets = row.ours, row.peer
    ours, peer = (compiled_for(device, fn, params, *row.types) for fn, params in nets)
    return ours, peer


def line(row: Row, ours: Compiled, peer: Compiled) -> str:
    """A line of the table, with the ratio of jaxrnn's work to the peer's."""
    if ours.cycles:
        work = [f"{one.cycles / 1e6:.2f}" for one in (ours, peer)]
        ratio = ours.cycles / peer.cycles
    else:
        work = [f"{one.launches:,}" for one in (ours, peer)]
        ratio = ours.launches / peer.launches
    memory = [f"{one.temporary / MIB:,.0f}" for one in (ours, peer)]
    seconds = [f"{one.seconds:.1f}" for one in (ours, peer)]
    cells = row.name, str(row.sizes), *work, f"{ratio:.2f}", *memory, *seconds
    return f"| {' | '.join(cells)} |"


def head(target: str) -> list[str]:
    """The title of the page, the versions, and the titles of the columns."""
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    versions = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    work = "launches" if target == "h100" else "cycles, millions"
    columns = [f"{what}: ours | peer" for what in (work, "MiB", "seconds")]
    columns.insert(1, "ours ÷ peer")
    return [
        f"# Compiler estimates for {target}",
        f"{datetime.date.today().isoformat()}; {', '.join(versions)}; float32. Nothing "
        "was run: the compiler estimates cycles, and launches are counted. MiB are "
        "temporary memory. Seconds are one compilation on a machine with other work.",
        f"| program | sizes | {' | '.join(columns)} |\n{'|---' * 9}|",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Compile all programs, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=KINDS, default="v5e")
    parser.add_argument("--only", metavar="REGEX", default="", help="select by name")
    help = "save the texts of jaxrnn's compiled programs"
    parser.add_argument("--texts", type=pathlib.Path, metavar="FOLDER", help=help)
    options = parser.parse_args(arguments)
    (device,) = absent_devices(options.target)
    text = "\n\n".join(head(options.target))
    file = RESULTS / f"compilers_{options.target}.md"
    rows = [*loops(), *recurrences(), *matrix_memories(), *bare_memories()]
    rows = [row for row in rows if re.search(options.only, f"{row.name} {row.sizes}")]
    for row in tqdm(rows):
        ours, peer = measure(device, row)
        text += "\n" + line(row, ours, peer)
        if options.texts:
            options.texts.mkdir(parents=True, exist_ok=True)
            (options.texts / f"{row.name} {row.sizes}.txt").write_text(ours.text)
    print(text)
    if not options.only:
        file.write_text(text + "\n")


if __name__ == "__main__":
    main()
