"""Nests of arrays: paths, types and back, for whoever writes or reads the goldens.

Nests follow TensorFlow's rules: tuples, named tuples, lists and dicts (keys in sorted
order) nest, and everything else, None too, is a leaf.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tree = Any
Structure = str | dict[str, Any]


def children(tree: Tree) -> list[tuple[str, Tree]] | None:
    """The parts of `tree` with their names, or None if it is a leaf."""
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in sorted(tree)]
    if hasattr(tree, "_fields"):
        return [(field, getattr(tree, field)) for field in tree._fields]
    if isinstance(tree, list | tuple):
        return [(str(index), part) for index, part in enumerate(tree)]
    return None


def rebuild(tree: Tree, parts: list[Tree]) -> Tree:
    """A nest of the type of `tree` with the given `parts`."""
    if isinstance(tree, Mapping):
        return dict(zip(sorted(tree), parts, strict=True))
    if hasattr(tree, "_fields"):
        return type(tree)(*parts)
    return type(tree)(parts)


def map_leaves(fn: Callable[[str, Any], Any], tree: Tree, path: str = "") -> Tree:
    """`tree` with each leaf replaced by `fn(path, leaf)`."""
    parts = children(tree)
    if parts is None:
        return fn(path, tree)
    return rebuild(tree, [map_leaves(fn, part, f"{path}/{key}") for key, part in parts])


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of path and leaf, in TensorFlow's order."""
    parts = children(tree)
    if parts is None:
        yield path, tree
        return
    for key, part in parts:
        yield from leaves(part, f"{path}/{key}")


def describe(tree: Tree) -> Structure:
    """The structure of `tree` in JSON: types of nests, dtypes and shapes of leaves.

    A leaf is such as `"float32[3,4]"`.
    """
    parts = children(tree)
    if parts is None:
        shape = ",".join(str(size) for size in tree.shape)
        return f"{tree.dtype}[{shape}]"
    described = [describe(part) for _, part in parts]
    if isinstance(tree, Mapping):
        return {"dict": {key: d for (key, _), d in zip(parts, described, strict=True)}}
    if hasattr(tree, "_fields"):
        return {type(tree).__name__: described}
    return {"list" if isinstance(tree, list) else "tuple": described}


def restore(
    structure: Structure,
    fn: Callable[[str], Any],
    named: Mapping[str, type],
    path: str = "",
) -> Tree:
    """The inverse of `describe`: a nest whose leaf at a path is `fn(path)`.

    `named` holds the classes of named tuples by name.
    """
    if isinstance(structure, str):
        return fn(path)
    ((kind, parts),) = structure.items()
    if kind == "dict":
        return {k: restore(p, fn, named, f"{path}/{k}") for k, p in parts.items()}
    keys = named[kind]._fields if kind in named else map(str, range(len(parts)))
    built = [
        restore(part, fn, named, f"{path}/{key}")
        for key, part in zip(keys, parts, strict=True)
    ]
    if kind in named:
        return named[kind](*built)
    return built if kind == "list" else tuple(built)


def sizes(tree: dict[str, Any], fn: Callable[[dict[str, Any]], Any]) -> Tree:
    """A nest from a tree of sizes (see `README.md`), with `fn(leaf)` at its leaves."""
    if "shape" in tree:
        return fn(tree)
    if "dict" in tree:
        return {key: sizes(part, fn) for key, part in tree["dict"].items()}
    if "list" in tree:
        return [sizes(part, fn) for part in tree["list"]]
    return tuple(sizes(part, fn) for part in tree["tuple"])
