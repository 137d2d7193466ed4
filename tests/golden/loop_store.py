"""How the goldens of the loops are stored: one run of bytes for each case.

A file with an array under each name would be mostly names. Here the structures of a
case's trees, kept in `cases.json`, tell where each array lies. Their order is

- `/params...`, `/given...`, `/results...`, `/start...`: leaf by leaf;
- `/w_results...`: cotangents of the floating-point leaves of the results;
- `/grads/params...` and so on: gradients of all that is floating-point and given.
"""

import json
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

Structures = dict[str, Any]


def _leaves(structure: Any, path: str) -> Iterator[tuple[str, str]]:
    """Pairs of path and description, such as `"float32[3,4]"`."""
    if isinstance(structure, str):
        yield path, structure
        return
    ((kind, parts),) = structure.items()
    keys = "ch" if kind == "LSTMStateTuple" else map(str, range(len(parts)))
    named = parts.items() if kind == "dict" else zip(keys, parts, strict=True)
    for key, part in named:
        yield from _leaves(part, f"{path}/{key}")


def layout(structures: Structures) -> list[tuple[str, str]]:
    """Path and description of all arrays of a case, in their order."""
    trees = {name: list(_leaves(s, f"/{name}")) for name, s in structures.items()}
    stored = [leaf for leaves in trees.values() for leaf in leaves]
    results = trees.pop("results")
    given = [leaf for leaves in trees.values() for leaf in leaves]
    stored += [(f"/w_{path[1:]}", leaf) for path, leaf in results if is_float(leaf)]
    return stored + [(f"/grads{path}", leaf) for path, leaf in given if is_float(leaf)]


def is_float(description: str) -> bool:
    """Whether a dtype, with or without a shape behind it, is floating-point."""
    return description.partition("[")[0].removeprefix("b").startswith("float")


def pack(structures: Structures, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The bytes of all arrays of a case.

    Raises:
        ValueError: If the arrays are not those that `structures` tell.
    """
    found = {
        path: f"{a.dtype}[{','.join(map(str, a.shape))}]" for path, a in arrays.items()
    }
    if found != dict(layout(structures)):
        raise ValueError(f"{found} is not {layout(structures)}.")
    parts = [arrays[path].tobytes() for path, _ in layout(structures)]
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack(structures: Structures, stored: np.ndarray) -> dict[str, np.ndarray]:
    """All arrays of a case by path; the inverse of `pack`."""
    arrays, start = {}, 0
    for path, description in layout(structures):
        name, _, sizes = description.rstrip("]").partition("[")
        dtype, shape = np.dtype(name), [int(size) for size in sizes.split(",") if size]
        end = start + dtype.itemsize * math.prod(shape)
        arrays[path] = stored[start:end].view(dtype).reshape(shape)
        start = end
    return arrays


def mark(case: dict[str, Any]) -> int:
    """A number that changes when the case does."""
    return zlib.crc32(json.dumps(case, sort_keys=True).encode())
