"""Reads a compiled program: loops, collectives, and its memory."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

_HEAD = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{\s*")
_OPERATION = re.compile(r"(?:ROOT )?%?[\w.\-]+ = (\S.*?) ([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations"
    r"|\w+_computation)=\{?((?:%?[\w.\-]+(?:, ?)?)+)"
)
_LOOP = re.compile(r"\b(?:body|condition)=%?([\w.\-]+)")
_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_ARRAY = re.compile(r"\b(pred|[subf]+\d+\w*|c\d+)\[([\d,]*)\]")


class Operation(NamedTuple):
    """An operation of a program.

    Attributes:
        kind: For example "fusion" or "all-reduce-start".
        types: The types of its results.
        line: Its line in the program's text.
    """

    kind: str
    types: str
    line: str

    @property
    def called(self) -> list[str]:
        """The names of the computations that the operation calls."""
        names = ", ".join(_CALLED.findall(self.line))
        return re.findall(r"[\w.\-]+", names)


class Collective(NamedTuple):
    """An exchange between devices: its kind, and its result's bytes per device."""

    kind: str
    bytes: int


class Program:
    """A parsed program.

    Attributes:
        computations: The operations of each computation, by its name.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Operation]] = {}
        name = ""
        for line in text.splitlines():
            if not line.startswith((" ", "}")) and (head := _HEAD.fullmatch(line)):
                name = head[1]
                self.computations[name] = []
            elif found := _OPERATION.match(line.strip()) if name else None:
                operation = Operation(found[2], found[1], line.strip())
                self.computations[name].append(operation)

    def in_loops(self) -> set[str]:
        """The names of the computations that loops run, directly or through calls."""
        found, waiting = set(), []
        for operation in self.operations():
            waiting += _LOOP.findall(operation.line)
        while waiting:
            name = waiting.pop()
            if name in self.computations and name not in found:
                found.add(name)
                for operation in self.computations[name]:
                    waiting += operation.called
        return found

    def operations(self) -> Iterator[Operation]:
        """All operations."""
        for operations in self.computations.values():
            yield from operations

    def collectives(self) -> tuple[list[Collective], list[Collective]]:
        """The collectives inside and outside of loops, each sorted by kind and size."""
        in_loops = self.in_loops()
        inside, outside = [], []
        for name, operations in self.computations.items():
            (inside if name in in_loops else outside).extend(operations)
        return _collectives(inside), _collectives(outside)


def collectives(text: str) -> tuple[list[str], list[str]]:
    """The kinds of collectives in a program's text, inside and outside of loops."""
    inside, outside = Program(text).collectives()
    return [c.kind for c in inside], [c.kind for c in outside]


def _collectives(operations: list[Operation]) -> list[Collective]:
    """The collectives among the operations.

    A TPU may split a collective into parts, which have a `chain_id`, to overlap it with
    other work. Parts of the same kind and size count once.
    """
    whole, parts = [], set()
    for operation in operations:
        kind = operation.kind.removesuffix("-start")
        if kind not in _COLLECTIVES:
            continue
        found = Collective(kind, _bytes(operation))
        if "chain_id" in operation.line:
            parts.add(found)
        else:
            whole.append(found)
    return sorted([*whole, *parts])


def _bytes(operation: Operation) -> int:
    """The bytes of the results, without operands, which a start also returns."""
    sizes = [
        int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64))
        * _bytes_of(dtype)
        for dtype, shape in _ARRAY.findall(operation.types)
    ]
    is_start = operation.kind in ("all-gather-start", "collective-permute-start")
    if is_start and operation.types.startswith("("):
        # The operands, the same number of results, and scalar counters.
        arrays = [size for size in sizes if size > 4] or sizes
        return sum(arrays[len(arrays) // 2 :])
    return sum(sizes)


def _bytes_of(dtype: str) -> int:
    if dtype == "pred":
        return 1
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 0


# What the compiler reports.


class Compiled(NamedTuple):
    """The numbers of a compiled program.

    Attributes:
        temporary: The bytes of its temporary memory on a device.
        host: The bytes of its temporary memory on the host.
        in_loops: The collectives inside of loops.
        outside: The collectives outside of loops.
    """

    temporary: int
    host: int
    in_loops: list[Collective]
    outside: list[Collective]


def read(lowered: Any) -> Compiled:
    """Compile a lowered program and read its numbers."""
    compiled = lowered.compile()
    program, memory = Program(compiled.as_text()), compiled.memory_analysis()
    sizes = memory.temp_size_in_bytes, memory.host_temp_size_in_bytes
    return Compiled(*sizes, *program.collectives())


def on_mesh(types: Any, sharding: Any) -> Any:
    """The types with a sharding: one for all leaves, or a tree with one per leaf."""
    if isinstance(sharding, NamedSharding):
        sharding = jax.tree.map(lambda _: sharding, types)
    put = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    return jax.tree.map(put, types, sharding)
