"""Nests, for which the rules of TensorFlow and of JAX's pytrees differ.

* None is a leaf in TensorFlow and an empty nest in JAX. None in an argument raises an
  error and is never dropped.
* A `TensorShape` is a leaf in a structure of sizes. `TensorShape` is not a registered
  pytree node, so it is a leaf in JAX too.
* TensorFlow distinguishes lists, tuples and named tuples only in strict checks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from .errors import InvalidType, InvalidValue, describe_structure, is_array, leaf_name
from .tensor_shape import TensorShape
from .typing import DType, Params, PyTree


class RowlessArray:
    """The base of `TensorArray`, which counts as one array without a batch axis."""


def is_tensor_array(value: Any) -> bool:
    """Whether `value` is a TensorArray; an `is_leaf` function."""
    return isinstance(value, RowlessArray)


def named_leaves(
    name: str, tree: Any, is_leaf: Callable[[Any], bool] = lambda x: False
) -> Iterator[tuple[str, Any]]:
    """A pair `(full name, leaf)` for each leaf; None counts as a leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_or_none(is_leaf))
    return ((leaf_name(name, path), leaf) for path, leaf in leaves)


def map_named(
    name: str,
    fn: Callable[[str, Any], Any],
    tree: Any,
    is_leaf: Callable[[Any], bool] = lambda x: False,
) -> Any:
    """Maps `fn(full name, leaf)` over the leaves of a tree; None counts as a leaf."""

    def named(path: tuple, leaf: Any) -> Any:
        return fn(leaf_name(name, path), leaf)

    return jax.tree_util.tree_map_with_path(named, tree, is_leaf=_or_none(is_leaf))


def _or_none(is_leaf: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda x: x is None or is_leaf(x)


def is_pytree_of_arrays(tree: Any) -> bool:
    """Whether the tree is a nest of arrays and numbers, so that jit accepts it."""
    if jax.tree_util.all_leaves([tree]):
        return False
    return all(
        is_array(leaf) or isinstance(leaf, int | float | complex)
        for leaf in jax.tree.leaves(tree)
    )


def map_sizes(
    fn: Callable[[tuple[int, ...]], Any], size: Any, name: str = "size"
) -> Any:
    """Maps `fn(shape)` over the leaves of `size`; a shape has no batch axis."""
    return map_named(name, lambda name, leaf: fn(_size_shape(name, leaf)), size)


def size_shapes(size: Any, name: str = "size") -> list[tuple[int, ...]]:
    """The shapes of the leaves of `size`, without a batch axis, in flat order."""
    return [_size_shape(full, leaf) for full, leaf in named_leaves(name, size)]


def _size_shape(name: str, leaf: Any) -> tuple[int, ...]:
    """The shape that a leaf of a size describes, such as `(n,)` for an int n.

    Raises:
        ValueError: If the leaf is None.
        TypeError: If the leaf is neither an int nor a `TensorShape`.
    """
    fix = (
        "Pass an int or a TensorShape. A tuple of sizes is a nest of vectors; "
        "`TensorShape([5, 5])` is one array of rank 2."
    )
    if leaf is None:
        raise InvalidValue(f"`{name}` must be known, got None. {fix}")
    try:
        return tuple(leaf if isinstance(leaf, TensorShape) else TensorShape([leaf]))
    except TypeError:
        raise InvalidType(
            f"`{name}` must be an int or a TensorShape, got {leaf!r}. {fix}"
        ) from None


def as_typed(tree: Any) -> tuple:
    """A hashable tree that distinguishes tuples from named tuples, and 1 from True."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
    return treedef, tuple((type(leaf), leaf) for leaf in leaves)


def check_structure(
    what: str, want: Any, got: Any, strict: bool, fix: str = ""
) -> None:
    """Raises unless `got` has the structure of `want`.

    Args:
        what: The beginning of the message, which names `got`.
        want: The expected nest; its leaves do not matter.
        got: The nest to check.
        strict: Whether sequence types must agree. If False, a list may replace a tuple.
        fix: The end of the message, which explains what to do.

    Raises:
        ValueError: If the nests differ.
        TypeError: If `strict` and only the sequence types differ.
    """
    want_def = jax.tree.structure(want)
    got_def = jax.tree.structure(got)
    if want_def == got_def:
        return
    same_but_for_kind = _are_alike(want_def, got_def)
    if same_but_for_kind and not strict:
        return
    error = InvalidType if same_but_for_kind else InvalidValue
    raise error(
        f"{what} must have the structure {describe_structure(want)}, got "
        f"{describe_structure(got)}. {fix}".rstrip()
    )


def _are_alike(want: Any, got: Any) -> bool:
    """Whether two structures differ only in sequence types.

    Named tuples with different fields count as different structures: a tuple with
    fields `(hidden, cell)` does not match one with fields `(c, h)`.
    """
    if want.node_data() is None or got.node_data() is None:
        return want == got
    want_kind, want_data = want.node_data()
    got_kind, got_data = got.node_data()
    if all(issubclass(kind, tuple | list) for kind in (want_kind, got_kind)):
        fields = {getattr(kind, "_fields", None) for kind in (want_kind, got_kind)}
        if len(fields - {None}) > 1:
            return False
    elif (want_kind, str(want_data)) != (got_kind, str(got_data)):
        return False
    pairs = want.children(), got.children()
    return len(pairs[0]) == len(pairs[1]) and all(map(_are_alike, *pairs))


def merge_dicts(what: str, first: Mapping, second: Mapping) -> dict:
    """Merges two nested dicts of `what`.

    Raises:
        ValueError: If both have a leaf under the same keys.
    """
    merged = dict(first)
    for key, value in second.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = merge_dicts(what, merged[key], value)
        else:
            raise InvalidValue(f"{what} must have different names, got {key!r} twice.")
    return merged


def with_structure(structure: Any, tree: PyTree) -> PyTree:
    """Puts the leaves of `tree` into the structure of `structure`."""
    return jax.tree.unflatten(jax.tree.structure(structure), jax.tree.leaves(tree))


def rows_and_dtype(params: Params, inputs: PyTree, dtype: Any = None) -> tuple:
    """The number of rows, and the dtype of the parameters or a default dtype."""
    first = jax.tree.leaves(inputs)[0]
    dtypes = (leaf.dtype for leaf in jax.tree.leaves(params))
    return first.shape[0], next(dtypes, dtype or first.dtype)


def output_of(cell: Any, params: Params, inputs: PyTree, dtype: DType) -> PyTree:
    """The shapes of the cell's output for `inputs`, in the parameters' dtype."""
    rows, dtype = rows_and_dtype(params, inputs, dtype)

    def of_size(size: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *size), dtype)

    return map_sizes(of_size, cell.output_size)
