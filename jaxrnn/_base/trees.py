"""Nests of arrays (pytrees), for which TensorFlow and JAX have different rules.

* None is a leaf in TensorFlow and an empty nest in JAX. In jaxrnn, None in a nest of
  inputs or states raises an error instead of being dropped.
* A `TensorShape` is a leaf in a structure of sizes. It is a leaf in JAX too, because
  JAX flattens plain and named tuples, but no other subclass of `tuple`.
* TensorFlow distinguishes lists, tuples and named tuples only in strict checks.

A `ReadOnly` node marks a part of a state that no step changes. `serializable` registers
the classes of states and results with `jax.export`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

from .arguments import as_axis_size, check_given
from .errors import is_array, leaf_name
from .typing import DType, Params, PyTree, Size

T = TypeVar("T", bound=type)


class RowlessArray:
    """The base class of `TensorArray`, for code that cannot import `TensorArray`.

    A TensorArray counts as one array without a batch axis.
    """

    _config: Any  # The arguments with which the array was created.


def is_tensor_array(value: object) -> bool:
    """Whether `value` is a TensorArray; an `is_leaf` function."""
    return isinstance(value, RowlessArray)


def map_parts(
    is_part: Callable[[object], bool], fn: Callable, tree: PyTree, *others: PyTree
) -> PyTree:
    """Maps `fn` over the nodes for which `is_part` is true; other leaves stay."""

    def of_leaf(x: PyTree, *rest: PyTree) -> PyTree:
        return fn(x, *rest) if is_part(x) else x

    return jax.tree.map(of_leaf, tree, *others, is_leaf=is_part)


def opaque(tree: PyTree) -> PyTree:
    """Replaces each TensorArray by 0, so that it counts as one leaf."""
    return map_parts(is_tensor_array, lambda x: 0, tree)


def named_leaves(
    name: str, tree: PyTree, is_leaf: Callable[[object], bool] = lambda x: False
) -> Iterator[tuple[str, Any]]:
    """Returns pairs such as `("state.c", leaf)`; None counts as a leaf."""
    if jax.tree_util.all_leaves([tree]):  # Ten times faster than flattening a leaf.
        return iter([(name, tree)])
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_or_none(is_leaf))
    return ((leaf_name(name, path), leaf) for path, leaf in leaves)


def map_named(
    name: str,
    fn: Callable[[str, Any], Any],
    tree: PyTree,
    is_leaf: Callable[[object], bool] = lambda x: False,
) -> PyTree:
    """Maps `fn("state.c", leaf)` over the leaves of a tree; None counts as a leaf."""
    if jax.tree_util.all_leaves([tree]):
        return fn(name, tree)

    def named(path: tuple, leaf: object) -> Any:
        return fn(leaf_name(name, path), leaf)

    return jax.tree_util.tree_map_with_path(named, tree, is_leaf=_or_none(is_leaf))


def _or_none(is_leaf: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda x: x is None or is_leaf(x)


def is_pytree_of_arrays(tree: PyTree) -> bool:
    """Whether the tree is a nest of arrays and numbers, so that jit accepts it."""
    if jax.tree_util.all_leaves([tree]):
        return False
    return all(
        is_array(leaf) or isinstance(leaf, int | float | complex)
        for leaf in jax.tree.leaves(tree)
    )


class TensorShape(tuple):
    """The shape of one state or output, without its batch axis.

    In `state_size` and `output_size`, a tuple is a structure: `(5, 5)` means two
    vectors of size 5. `TensorShape([5, 5])` means one array `[batch, 5, 5]`, and
    `TensorShape([])` means one number per row, `[batch]`. A `TensorShape` equals the
    tuple and the list of its sizes, as in TensorFlow.

    Args:
        dims: A sequence of non-negative integers, the sizes of the axes; or one integer
            for a single axis.

    Raises:
        TypeError: If `dims` is neither an integer nor a sequence of integers.
        ValueError: If a size is negative or None.

    Source: `tf.TensorShape`, for fully known shapes.
    """

    __slots__ = ()

    def __new__(cls, dims: int | Iterable[int]) -> "TensorShape":
        """Checks the sizes."""
        return cls._partial(_dim(*item) for item in named_dims("dims", dims).items())

    @classmethod
    def _partial(cls, dims: Iterable[int | None]) -> "TensorShape":
        """The shape of a TensorArray's elements; sizes may be None or symbolic."""
        return super().__new__(cls, dims)

    def as_list(self) -> list[int]:
        """The sizes as a list."""
        return list(self)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self)

    ndims = rank

    def num_elements(self) -> int:
        """The product of the sizes; 1 for rank 0."""
        return math.prod(self)

    def __eq__(self, other: object) -> bool:
        """Whether `other` has equal sizes."""
        return tuple(self) == (tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        """Whether `other` differs in rank or in a size."""
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        return f"TensorShape({list(self)})"


def named_dims(name: str, dims: object) -> dict[str, Any]:
    """Maps names such as `dims[0]` to the sizes of axes, or `name` to a single size."""
    if not isinstance(dims, Iterable):
        return {name: dims}
    return {f"{name}[{i}]": dim for i, dim in enumerate(dims)}


def _dim(name: str, value: int, fix: str = "") -> int:
    check_given(name, value, fix, what="an integer")
    return as_axis_size(name, value, fix)


def map_sizes(
    fn: Callable[[tuple[int, ...]], PyTree], size: Size, name: str = "size"
) -> PyTree:
    """Maps `fn(shape)` over the leaves of `size`; a shape lacks the batch axis.

    Args:
        fn: The function of a tuple of ints.
        size: The size of a state or an output.
        name: The name of the size, for messages.

    Raises:
        ValueError: If a leaf is None.
        TypeError: If a leaf is neither an int nor a `TensorShape`.
    """
    return map_named(name, lambda name, leaf: fn(_size_shape(name, leaf)), size)


def types_of_size(size: Size, rows: object, dtype: DType, name: str = "size") -> PyTree:
    """The types of arrays `[rows, ...]` with these sizes and this dtype."""
    return map_sizes(
        lambda shape: jax.ShapeDtypeStruct((rows, *shape), dtype), size, name
    )


def size_shapes(size: Size, name: str = "size") -> list[tuple[int, ...]]:
    """The shapes of the leaves of `size`, without a batch axis, in flat order."""
    return [_size_shape(full, leaf) for full, leaf in named_leaves(name, size)]


def _size_shape(name: str, leaf: Any) -> tuple[int, ...]:
    """The shape that a leaf of a size describes, such as `(n,)` for an int n.

    Raises:
        ValueError: If the leaf is None.
        TypeError: If the leaf is neither an int nor a `TensorShape`.
    """
    fix = "For a vector, pass an int; for two axes, pass `TensorShape([5, 5])`."
    return tuple(leaf if isinstance(leaf, TensorShape) else [_dim(name, leaf, fix)])


def with_structure(structure: PyTree, tree: PyTree) -> PyTree:
    """Puts the leaves of `tree` into the structure of `structure`."""
    return jax.tree.unflatten(jax.tree.structure(structure), jax.tree.leaves(tree))


def with_tuples_of(like: PyTree, tree: PyTree, strict: bool = True) -> PyTree:
    """Converts named tuples of `tree` to the classes at the same places in `like`.

    The fields must be equal: an `LSTMStateTuple` of TensorFlow becomes an
    `LSTMStateTuple` of this package, but a tuple with the fields `(hidden, cell)` does
    not. If `strict` is False, lists, plain tuples and named tuples are also converted
    into each other.
    """
    if jax.tree.structure(opaque(like)) == jax.tree.structure(opaque(tree)):
        return tree
    if any(is_tensor_array(x) or jax.tree_util.all_leaves([x]) for x in (like, tree)):
        return tree
    wanted, kind = jax.tree.flatten(like, is_leaf=lambda x: x is not like)
    parts, own_kind = jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
    if len(wanted) != len(parts):
        return tree
    pairs = zip(wanted, parts, strict=True)
    parts = [with_tuples_of(*pair, strict=strict) for pair in pairs]
    if isinstance(like, tuple | list) and isinstance(tree, tuple | list):
        fields = {getattr(x, "_fields", None) for x in (like, tree)}
        if len(fields - {None}) <= 1 and not (strict and None in fields):
            return kind.unflatten(parts)
    return own_kind.unflatten(parts)


def output_of(cell: Any, params: Params, inputs: PyTree, dtype: DType) -> PyTree:
    """The types of the cell's output for one step of `inputs`.

    The dtype is the parameters' dtype. Without parameters, it is `dtype` or, if
    `dtype` is None, the inputs' dtype.
    """
    first = jax.tree.leaves(inputs)[0]
    dtypes = (leaf.dtype for leaf in jax.tree.leaves(params))
    dtype = next(dtypes, dtype or first.dtype)
    return types_of_size(cell.output_size, first.shape[0], dtype, "output_size")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReadOnly:
    """A part of a state that steps read but never change, such as an attention memory.

    A run keeps read-only parts outside its loop's carry. Therefore, read-only parts are
    neither masked nor saved for each step, and beam search neither repeats nor reorders
    these parts. A run returns read-only parts as they were passed, regardless of what
    `RNNCell.start` computes from them for the run.

    Attributes:
        value: The part, any nest of arrays.
    """

    value: PyTree


def is_read_only(x: object) -> bool:
    """Whether x is a part of a state that no step changes."""
    return isinstance(x, ReadOnly)


def without_read_only(state: PyTree) -> PyTree:
    """Empties the read-only parts of the state."""
    return map_parts(is_read_only, lambda x: ReadOnly(()), state)


def with_read_only(state: PyTree, source: PyTree) -> PyTree:
    """Replaces the read-only parts of `state` by the read-only parts of `source`."""
    parts = iter([x for x in _parts(source) if is_read_only(x)])
    return map_parts(is_read_only, lambda x: next(parts), state)


def has_read_only(state: PyTree) -> bool:
    """Whether the state has read-only parts."""
    return any(map(is_read_only, _parts(state)))


def _parts(state: PyTree) -> list:
    return jax.tree.leaves(state, is_leaf=is_read_only)


def serializable(cls: T, name: str | None = None) -> T:
    """Registers a named tuple, or a dataclass that is a pytree, with `jax.export`.

    `name` defaults to the name of the class. The static fields of a dataclass must be
    JSON values, such as numbers, strings or None.
    """
    name = f"jaxrnn.{name or cls.__name__}"
    node: Any = cls
    if not hasattr(node, "__dataclass_fields__"):
        jax.export.register_namedtuple_serialization(node, serialized_name=name)
        return cls
    jax.export.register_pytree_node_serialization(
        node,
        serialized_name=name,
        serialize_auxdata=lambda fields: json.dumps(fields).encode(),
        deserialize_auxdata=lambda data: tuple(json.loads(data)),
    )
    return cls
