"""Compiles a program for absent devices and reads the compiler's numbers.

Cycles are the TPU compiler's estimates, which exclude waiting for memory. Launches are
counted in the program's text. Neither is a measurement.
"""

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from .hlo import Collective, Operation, Program

MIB = 2**20
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
    """`(cycles, launches, unknown_loops)`; see `Compiled`."""
    work = _Work(program)
    cycles, launches = work.of(program.entry)
    return cycles, launches, work.unknown_loops


class _Work:
    """The estimated cycles and the number of operations of a program's computations.

    For a conditional, only the more expensive branch counts.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.unknown_loops = program, 0
        self.of = functools.cache(self._of)

    def _of(self, name: str) -> tuple[int, int]:
        works = map(self._of_operation, self.program.computations.get(name, ()))
        return _sums(list(works))

    def _of_operation(self, operation: Operation) -> tuple[int, int]:
        if operation.kind in _FREE or operation.kind.endswith("-done"):
            return 0, 0
        if operation.kind == "while":
            times = self._trips(operation)
            (body,) = re.findall(r"\bbody=%?([\w.\-]+)", operation.line)
            cycles, launches = self.of(body)
            return times * cycles, times * launches
        if operation.kind == "conditional":
            return max(map(self.of, operation.called))
        if operation.kind == "call":
            return _sums(list(map(self.of, operation.called)))
        estimate = re.search(r'"estimated_cycles":"(\d+)"', operation.line)
        return int(estimate[1]) if estimate else 0, 1

    def _trips(self, loop: Operation) -> int:
        """A loop's number of iterations, from its annotation or its condition."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.line):
            return int(known[1])
        (condition,) = re.findall(r"\bcondition=%?([\w.\-]+)", loop.line)
        lines = [o.line for o in self.program.computations[condition]]
        constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(lines))
        if constants and any("direction=LT" in line for line in lines):
            return max(map(int, constants))
        self.unknown_loops += 1
        return 1


def _sums(works: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(cycles for cycles, _ in works), sum(launches for _, launches in works)
