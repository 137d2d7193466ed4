"""Checks nests of arrays: their leaves, their sizes, and their types.

`arguments.py` checks one value or one array.

`as_like` compares a nest of arrays with a nest of types. A type is a
`jax.ShapeDtypeStruct`, or an array of which only the shape and the dtype are read.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import check_shape
from .errors import (
    EntryError,
    check_not_masked,
    describe,
    describe_structure,
    error_note,
    expect,
    is_array,
    leaf_name,
    warn,
)
from .math import cast_if_weak, in_native_order, is_traced, is_wider
from .trees import (
    is_tensor_array,
    map_named,
    named_leaves,
    opaque,
    with_tuples_of,
)
from .typing import Array, PyTree, Size


def as_array(name: str, leaf: object) -> Array:
    """Converts one leaf to an array.

    Raises:
        ValueError: If the leaf is None.
        TypeError: If the leaf is neither an array nor a number.
    """
    expect(leaf is not None, name, "be an array", leaf)
    check_not_masked(name, leaf)
    # JAX would interpret the string "q" and dicts as dtypes.
    expect(not isinstance(leaf, str | dict), name, "be an array", leaf, error=TypeError)
    with error_note(f"`{name}` must be an array of numbers."):
        return jnp.asarray(in_native_order(leaf))


def as_booleans(name: str, values: Any, fix: str, convert: bool = True) -> Array:
    """Returns the values as an array of booleans.

    If `convert` is False, the values must be an array.

    Raises:
        ValueError: If the values are None.
        TypeError: If they are not booleans.
    """
    array = as_array(name, values) if convert else values
    expect(array.dtype == bool, name, "be booleans", array, fix, error=TypeError)
    return array


def as_arrays(name: str, state: PyTree) -> PyTree:
    """Converts the leaves of `state` to arrays; errors call the state `name`.

    A Python number becomes a strongly typed array, such as float32.

    Raises:
        ValueError: If the state holds None.
        TypeError: If a leaf is not an array.
    """

    def as_leaf(name: str, leaf: object) -> Array:
        array = as_array(name, leaf)
        # If the carry of a loop held a weakly typed number, the first step would
        # return a strongly typed array, and JAX would reject the changed type.
        return array if is_array(leaf) else array.astype(array.dtype)

    return map_named(name, as_leaf, state)


def check_shaped(name: str, tree: PyTree, fix: str = "") -> None:
    """Raises TypeError unless all leaves, except None, have a shape and a dtype."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        is_shaped = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        must = "be an array or a `jax.ShapeDtypeStruct`"
        expect(is_shaped, leaf_name(name, path), must, leaf, fix, error=TypeError)


def check_concrete(
    name: str,
    tree: PyTree,
    fix: str = "Call this function outside of `jit`, `grad` and `vmap`.",
    why: str = "",
) -> None:
    """Raises TypeError for a traced array; `why` says why its values are needed."""
    must = "not be traced by a transformation such as `jit`"
    must += f", because {why}" if why else ""
    for full, leaf in named_leaves(name, tree):
        expect(not is_traced(leaf), full, must, leaf, fix, error=TypeError)


def named_inputs(inputs: PyTree, name: str = "inputs") -> list[tuple[str, Array]]:
    """The leaves of `inputs`, each with its name, such as `inputs['a']`.

    Raises:
        ValueError: If `inputs` has no leaf.
    """
    named = list(named_leaves(name, inputs))
    expect(named, name, "hold at least one array", inputs, error=EntryError)
    return named


def check_same_size(
    named: list[tuple[str, Array]],
    axis: int | slice = 0,
    what: str = "batch size",
    fix: str = "",
) -> None:
    """Raises ValueError if named arrays differ in size along one or more axes."""
    (first, like), *others = named
    for name, leaf in others:
        must = f"have the {what} of `{first}`, {describe(like)}"
        expect(leaf.shape[axis] == like.shape[axis], name, must, leaf, fix)


def as_like(
    name: str,
    got: PyTree,
    want: PyTree,
    skip: int = 0,
    *,
    strict: bool = True,
    wider: bool = False,
    any_dtype: bool = False,
    fix: str = "",
    error: type[Exception] = TypeError,
    convert: bool = True,
) -> PyTree:
    """Returns the nest with arrays as leaves; raises unless it has the wanted types.

    Where `want` holds None, the nest must hold None too. Weakly typed numbers are cast
    to the wanted dtype. A named tuple gets the wanted class if the fields are equal. A
    TensorArray must have been created with the same arguments as the wanted
    TensorArray, but may have more elements.

    Args:
        name: The name of the nest; if it is `state`, a leaf is called `state.c`.
        got: The nest.
        want: The wanted nest of types.
        skip: The number of first axes whose sizes may differ.
        strict: Whether sequence types must agree. If False, a list may replace a tuple.
        wider: Whether a leaf may have a wider floating-point dtype.
        any_dtype: Whether a leaf may have any dtype.
        fix: The hint for the caller.
        error: The class of the error for a wrong dtype.
        convert: Whether to convert leaves to arrays. If False, all leaves must be
            arrays of NumPy or JAX, or types.

    Raises:
        ValueError: If the structure or a shape differs.
        TypeError: If a leaf is not an array, if a dtype differs or, with `strict`, if
            a sequence type differs.
    """
    got = with_tuples_of(want, got)
    check_structure(f"`{name}`", opaque(want), opaque(got), strict, fix)
    types = iter(jax.tree.leaves(want, is_leaf=is_tensor_array))

    def checked(path: tuple, leaf: Any) -> Any:
        full = leaf_name(name, path)
        wanted = next(types)
        if is_tensor_array(wanted):
            is_like = is_tensor_array(leaf) and leaf._config == wanted._config
            must = f"be {wanted!r} or the result of writes to it"
            expect(is_like, full, must, leaf, fix)
            return leaf
        if convert:
            leaf = cast_if_weak(as_array(full, leaf), wanted.dtype)
        shape = (*[None] * skip, *wanted.shape[skip:])
        check_shape(full, leaf, shape, fix=fix)
        fits = any_dtype or leaf.dtype == wanted.dtype
        fits = fits or (wider and is_wider(leaf.dtype, wanted.dtype))
        must = f"have dtype {wanted.dtype}{' or a wider one' * wider}"
        expect(fits, full, must, leaf, fix, error)
        return leaf

    return jax.tree.map_with_path(checked, got, is_leaf=is_tensor_array)


check_like = functools.partial(as_like, convert=False)


def check_structure(
    what: str, want: PyTree, got: PyTree, strict: bool, fix: str = ""
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
    got = with_tuples_of(want, got)
    structures = jax.tree.structure(want), jax.tree.structure(got)
    if structures[0] == structures[1]:
        return
    alike = with_tuples_of(want, got, strict=False)
    are_alike = jax.tree.structure(alike) == structures[0]
    if are_alike and not strict:
        return
    if are_alike and not fix:
        fix = _fix_of_plain_tuple(_named_tuple(*structures))
    texts = describe_structure(want), describe_structure(got)
    legend = ", where * is an array" if "*" in "".join(texts) else ""
    text = f"{what} must have the structure {texts[0]}, got {texts[1]}{legend}. {fix}"
    raise (TypeError if are_alike else ValueError)(text.rstrip())


def warn_of_plain_pair(name: str, size: Size, state: PyTree) -> None:
    """Warns if the state has a plain pair where `size` has an `LSTMStateTuple`.

    TensorFlow accepts the pair as `(c, h)`, but other libraries use the order (h, c).
    """
    kind = _named_tuple(jax.tree.structure(size), jax.tree.structure(state))
    if kind is not None and kind._fields == ("c", "h"):
        warn(
            f"`{name}` has a plain pair, which is read as `(c, h)`, as in TensorFlow; "
            f"PyTorch and Keras use (h, c). {_fix_of_plain_tuple(kind)}"
        )


def check_no_plain_tuple(name: str, want: PyTree, got: PyTree) -> None:
    """Raises TypeError if `got` has a plain tuple where `want` has a named tuple.

    Raises ValueError if the structures also differ in other ways.
    """
    want, got = opaque(want), opaque(got)
    if _named_tuple(jax.tree.structure(want), jax.tree.structure(got)):
        check_structure(f"`{name}`", want, got, strict=True)


def _fix_of_plain_tuple(kind: Any) -> str:
    if not kind:
        return ""
    fields = ", ".join(f"{name}={name}" for name in kind._fields)
    return f"Pass `{kind.__name__}({fields})`."


def _named_tuple(want: Any, got: Any) -> Any:
    """Finds a named tuple in `want` where `got` has a plain tuple or list.

    Returns its class, or None if there is no such place.
    """
    if want.node_data() is None or got.node_data() is None:
        return None
    (want_kind, _), (got_kind, _) = want.node_data(), got.node_data()
    if hasattr(want_kind, "_fields") and got_kind in (tuple, list):
        return want_kind
    pairs = zip(want.children(), got.children(), strict=False)
    return next((kind for pair in pairs if (kind := _named_tuple(*pair))), None)
