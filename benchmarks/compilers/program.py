"""Compiles a program for absent devices and reads the compiler's numbers.

Cycles are the TPU compiler's estimates, which exclude waiting for memory. Launches are
counted in the program's text. Neither is a measurement.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import operator
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from .. import report
from ..machine import commit
from .hlo import Collective, Operation, Program

MIB = 2**20
RESULTS = Path(__file__).parents[1] / "results"
# Operations that have no cost.
_FREE = frozenset(
    {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program and its numbers.

    Attributes:
        text: The compiled program.
        arguments: The bytes of its arguments on a device.
        temporary: The bytes of its temporary memory on a device.
        host: The bytes of its temporary memory on the host.
        seconds: The time to compile it.
        cycles: The TPU compiler's estimate, over all iterations of each loop; 0 for
            other devices.
        launches: The number of operations, over all iterations of each loop. A GPU
            launches each of them.
        unknown_loops: The number of loops whose iterations are known only at run time.
            In `cycles` and `launches`, they count as one iteration.
        in_loops: The collectives inside of loops.
        outside: The collectives outside of loops.
    """

    text: str = dataclasses.field(repr=False)
    arguments: int
    temporary: int
    host: int
    seconds: float
    cycles: int
    launches: int
    unknown_loops: int
    in_loops: list[Collective]
    outside: list[Collective]


def compiled_for(device: Any, fn: Callable, *types: Any) -> Compiled:
    """Compile `fn` for one device.

    The types are placed on a mesh with that device, so jaxrnn can see its platform.

    Args:
        device: One of `absent_devices`.
        fn: A function of trees of arrays.
        *types: The types of its arguments, trees of `jax.ShapeDtypeStruct`.
    """
    mesh = Mesh(np.asarray([device]), ("device",))
    return read(jax.jit(fn).lower(*on_mesh(types, NamedSharding(mesh, P()))))


def on_mesh(types: Any, sharding: Any) -> Any:
    """The types with a sharding: one for all leaves, or a tree with one per leaf."""
    if isinstance(sharding, NamedSharding):
        sharding = jax.tree.map(lambda _: sharding, types)
    put = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return jax.tree.map(put, types, sharding)


def read(lowered: Any) -> Compiled:
    """Compile a lowered program and read its numbers."""
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    program = Program(text)
    return Compiled(
        text,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.host_temp_size_in_bytes,
        seconds,
        *work_of(program),
        *program.collectives(),
    )


def work_of(program: Program) -> tuple[int, int, int]:
    """`(cycles, launches, unknown_loops)`; see `Compiled`.

    JAX's `cost_analysis` has no cycles, and counts the body of a loop once. For a
    conditional, only the more expensive branch counts.
    """
    nothing = np.zeros(3, int)

    @functools.cache
    def of(name: str) -> np.ndarray:
        return sum(map(of_operation, program.computations.get(name, ())), nothing)

    def of_operation(operation: Operation) -> np.ndarray:
        if operation.kind in _FREE or operation.kind.endswith("-done"):
            return nothing
        if operation.kind == "while":
            (body,) = re.findall(r"\bbody=%?([\w.\-]+)", operation.line)
            trips = _trips(program, operation)
            scale = (trips or 1, trips or 1, 1)
            return of(body) * scale + (0, 0, trips is None)
        if operation.kind == "conditional":
            return max(map(of, operation.called), key=tuple)
        if operation.kind == "call":
            return sum(map(of, operation.called), nothing)
        estimate = re.search(r'"estimated_cycles":"(\d+)"', operation.line)
        return np.array([int(estimate[1]) if estimate else 0, 1, 0])

    return tuple(of(program.entry).tolist())


def _trips(program: Program, loop: Operation) -> int | None:
    """A loop's number of iterations, from its annotation or its condition."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.line):
        return int(known[1])
    (condition,) = re.findall(r"\bcondition=%?([\w.\-]+)", loop.line)
    text = "\n".join(one.line for one in program.computations[condition])
    constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", text)
    is_known = constants and "direction=LT" in text
    return max(map(int, constants)) if is_known else None


# Pages.


def versions(*packages: str) -> str:
    """The day, the commit, and the versions of JAX and of installed packages."""
    installed = {one.name: one.version for one in importlib.metadata.distributions()}
    names = [name for name in ("jax", "jaxlib", *packages) if name in installed]
    found = ", ".join(f"{name} {installed[name]}" for name in names)
    return f"{datetime.date.today().isoformat()}, commit {commit(RESULTS)}; {found}"


def listed(exchanged: list[Collective]) -> str:
    """The kinds of collectives with the total bytes of their results."""
    sums = {kind: 0 for kind, _ in sorted(exchanged)}
    for kind, size in exchanged:
        sums[kind] += size
    return ", ".join(f"{size:,} {kind}" for kind, size in sums.items()) or "none"


def save(
    title: str,
    text: str,
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    name: str,
) -> None:
    """Print a page with a table, and write it to `benchmarks/results/<name>.md`."""
    from tqdm import tqdm

    columns = [(one, operator.itemgetter(n)) for n, one in enumerate(titles)]
    page = report.join(f"# {title}", text, report.grid(columns, list(tqdm(rows))))
    print(page)
    if name:
        (RESULTS / f"{name}.md").write_text(f"{page}\n")
