"""Compares jaxrnn's loops with peers by the numbers of the TPU and GPU compilers.

    JAX_PLATFORMS=cpu python -m benchmarks.compilers --target v5e

Nothing runs. For TPUs, the table shows the compiler's estimate of cycles. It excludes
waiting for memory, and element-wise work that is fused with a product. For GPUs, the
table shows the number of launches. It is written to `benchmarks/results/`.
"""

import argparse
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn

from ..absent_devices import KINDS, absent_devices
from ..cases import LINEAR, MATRICES, Case, make_cases
from ..data import make_data
from ..peers import _jax
from .program import MIB, compiled_for, save, versions

Program = tuple[Callable, tuple]

NOTE = (
    "float32, time-major. Nothing was run: the compiler estimates cycles, and launches "
    "are counted. MiB are temporary memory. Seconds are one compilation on a machine "
    "with other work."
)
LOOPS = make_cases(
    "lstm gru_after",
    (64, 256, 256, 512),
    (16, 512, 128, 1024),
    (128, 64, 512, 256),
    lengths="dense uniform",
)
SCANS = make_cases(
    " ".join(LINEAR), (8, 1024, 512, 512), (4, 8192, 512, 512), modes="train"
)
CHUNKS = make_cases(" ".join(MATRICES), (8, 1024, 512, 512), modes="train")
# The cases, and the files and runs of jaxrnn and the peer.
PEERS = [
    (LOOPS, ("jaxrnn", "xla"), ("linen", "")),
    (SCANS, ("jaxrnn", "xla"), ("recurrences", "associative")),
    (CHUNKS, ("jaxrnn", "xla"), ("recurrences", "chunked")),
    (CHUNKS, ("jaxrnn", "resets"), ("recurrences", "chunked")),
]
MEMORIES = [
    (jaxrnn.LinearAttentionMemoryCell, {}),
    (jaxrnn.LinearAttentionMemoryCell, {"key_decay": True}),
    (jaxrnn.DeltaMemoryCell, {}),
    (jaxrnn.DeltaMemoryCell, {"key_decay": True}),
    (jaxrnn.DPLRMemoryCell, {}),
]


def programs() -> Iterator[tuple[str, Callable[[], list[Program]]]]:
    """The name of each row, and a function that returns jaxrnn's program and a peer's.

    A program is a function and the types of its arguments.
    """
    for cases, ours, peer in PEERS:
        for case in cases:
            run = "resets " * (ours[1] == "resets")
            make = lambda case=case, pair=(ours, peer): [
                of_peer(case, *one) for one in pair
            ]
            yield f"{run}{case.name}", make
    for kind, options in MEMORIES:
        name = " ".join([kind.__name__, *options, "B8 T1024 D512 H512 train"])
        yield name, functools.partial(memory, kind(4, 128, 128, **options))


def of_peer(case: Case, peer: str, run: str) -> Program:
    """The first program of a peer for a case."""
    case = dataclasses.replace(case, run=run)
    built = importlib.import_module(f"benchmarks.peers.{peer}").build
    function, args = _jax.program(case, next(iter(built(case, make_data(case)).nets)))
    return function, jax.tree.map(jax.typeof, jax.tree.map(jnp.asarray, args))


def memory(cell: Any) -> list[Program]:
    """The gradients of a memory without projections, 4 heads, and of a scan of it."""
    step = cell.apply, cell.state_size, cell.output_size, cell.init

    def loss(inputs: Any, cell: Any) -> jax.Array:
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=jnp.float32)
        return jnp.sum(outputs**2)

    types = jax.tree.map(
        lambda size: jax.ShapeDtypeStruct((8, 1024, *size), jnp.float32),
        cell.input_sizes,
        is_leaf=lambda size: type(size) is tuple,
    )
    cells = cell, jaxrnn.FunctionCell(*step)
    gradients = [jax.grad(functools.partial(loss, cell=each)) for each in cells]
    return [(gradient, (types,)) for gradient in gradients]


def row(device: Any, name: str, make: Callable[[], list[Program]]) -> list[str]:
    """The cells of a row, with the ratio of jaxrnn's work to the peer's."""
    pair = [compiled_for(device, function, *types) for function, types in make()]
    if pair[0].cycles:
        work = [one.cycles / 1e6 for one in pair]
    else:
        work = [one.launches for one in pair]
    return [
        name,
        *(f"{one:,.2f}" if pair[0].cycles else f"{one:,}" for one in work),
        f"{work[0] / work[1]:.2f}",
        *(f"{one.temporary / MIB:,.0f}" for one in pair),
        *(f"{one.seconds:.1f}" for one in pair),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Compile all programs, print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=KINDS, default="v5e")
    parser.add_argument("--only", metavar="REGEX", help="select by name; save nothing")
    options = parser.parse_args(arguments)
    (device,) = absent_devices(options.target)
    work = "launches" if options.target == "h100" else "cycles, millions"
    titles = ["program", f"{work}: ours", "peer", "ours ÷ peer"]
    titles += ["MiB: ours", "peer", "seconds: ours", "peer"]
    chosen = [one for one in programs() if re.search(options.only or "", one[0])]
    rows = (row(device, *one) for one in chosen)
    file = "" if options.only else f"compilers_{options.target}"
    text = f"{versions('flax', 'libtpu', 'jax-cuda12-plugin')}; {NOTE}"
    save(f"Compiler estimates for {options.target}", text, titles, rows, file)


if __name__ == "__main__":
    main()
