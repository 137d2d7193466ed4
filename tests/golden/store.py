"""Reads the recorded cases and their arrays, which `README.md` describes."""

import collections
import functools
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from . import trees

HERE = pathlib.Path(__file__).resolve().parent
Case = dict[str, Any]
Structures = dict[str, Any]
RESULTS = ("outputs", "state", "results")


@functools.cache
def recorded(folder: str, file: str = "cases") -> dict[str, list[Case]]:
    """The lists of a file of cases, with the defaults filled in."""
    stored = json.loads((HERE / folder / f"{file}.json").read_text())
    defaults = stored["defaults"]
    return {kind: [defaults[kind] | row for row in stored[kind]] for kind in defaults}


@functools.cache
def attention() -> list[Case]:
    """The cases of `attention.json`."""
    place = {"folder": "", "family": "attention", "function": "attention"}
    return [row | place for row in json.loads((HERE / "attention.json").read_text())]


@functools.cache
def stored(folder: str, family: str) -> dict[str, dict[str, np.ndarray]]:
    """All arrays of one family's file, by case and path."""
    found: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    with np.load(HERE / folder / f"{family}.npz", allow_pickle=False) as file:
        for key in file.files:
            name, slash, path = key.partition("/")
            found[name][slash + path] = file[key]
    return found


def arrays(case: Case) -> dict[str, np.ndarray]:
    """All arrays of the case by path, such as `/params/kernel`."""
    found = stored(case["folder"], case["family"])[case["name"]]
    if "" in found:
        return _unpack(case["structures"], found[""])
    return {
        path.replace("/w/", "/w_"): _unsigned_to_bfloat16(array)
        for path, array in found.items()
    }


def structures(case: Case) -> Structures:
    """The structures of a case's trees; those of attention are dicts of its paths."""
    if "structures" in case:
        return case["structures"]
    top: Structures = {}
    for path, array in arrays(case).items():
        first, *keys = path[1:].split("/")
        if not first.startswith(("w_", "grads")):
            node, name = top, first
            for key in keys:
                node, name = node.setdefault(name, {"dict": {}})["dict"], key
            node[name] = trees.describe(array)
    return top


def below(case: Case, prefix: str) -> dict[str, np.ndarray]:
    """The case's arrays below `prefix`, such as `grads`, by what follows it."""
    start = f"/{prefix}"
    found = arrays(case).items()
    return {k[len(start) :]: a for k, a in found if f"{k}/".startswith(f"{start}/")}


def is_float(description: str) -> bool:
    """Whether a dtype, with or without a shape behind it, is floating-point."""
    return description.partition("[")[0].removeprefix("b").startswith("float")


def layout(structures: Structures) -> list[tuple[str, str]]:
    """Path and description of all arrays of a packed case, in their order."""
    trees = {name: list(_leaves(s, f"/{name}")) for name, s in structures.items()}
    stored = [leaf for leaves in trees.values() for leaf in leaves]
    results = trees.pop("results")
    given = [leaf for leaves in trees.values() for leaf in leaves]
    stored += [(f"/w_{path[1:]}", leaf) for path, leaf in results if is_float(leaf)]
    return stored + [(f"/grads{path}", leaf) for path, leaf in given if is_float(leaf)]


def _unpack(structures: Structures, stored: np.ndarray) -> dict[str, np.ndarray]:
    arrays, start = {}, 0
    for path, description in layout(structures):
        name, _, sizes = description.rstrip("]").partition("[")
        shape = [int(size) for size in sizes.split(",") if size]
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        end = start + dtype.itemsize * math.prod(shape)
        arrays[path] = stored[start:end].view(dtype).reshape(shape)
        start = end
    return arrays


def _unsigned_to_bfloat16(array: np.ndarray) -> np.ndarray:
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array


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
