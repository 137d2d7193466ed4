"""The one comparison of nests: arrays with the types that they must have.

A type is a `jax.ShapeDtypeStruct`, or an array, of which only shape and dtype are read.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import check_shape
from .errors import describe_structure, leaf_name
from .expect import expect
from .inputs import as_array
from .math import cast_if_weak
from .trees import is_tensor_array, opaque
from .typing import PyTree


def like(
    name: str,
    got: PyTree,
    want: PyTree,
    skip: int = 0,
    *,
    strict: bool = True,
    wider: bool = False,
    fix: str = "",
    error: type[Exception] = TypeError,
    convert: bool = True,
) -> PyTree:
    """Returns the nest with arrays as leaves; raises unless it has the wanted types.

    Where `want` holds None, so must the nest. Weakly typed numbers are cast. A
    TensorArray must have been created with the same arguments as the wanted one, but
    may have more elements.

    Args:
        name: The name of the nest; `state` names a leaf `state.c`.
        got: The nest.
        want: The wanted nest of types.
        skip: The number of first axes whose sizes may differ.
        strict: Whether sequence types must agree. If False, a list may replace a tuple.
        wider: Whether a leaf may have a wider floating-point dtype.
        fix: What to do.
        error: The error for another dtype.
        convert: Whether to convert leaves to arrays. If False, all leaves must be
            arrays of NumPy or JAX, or types.

    Raises:
        ValueError: If the structure or a shape differs.
        TypeError: If a leaf is not an array, a dtype differs or, with `strict`, a
            sequence type.
    """
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
        fits = leaf.dtype == wanted.dtype or (wider and _is_wider(leaf, wanted))
        must = f"have dtype {wanted.dtype}{' or a wider one' * wider}"
        expect(fits, full, must, leaf, fix, error)
        return leaf

    return jax.tree.map_with_path(checked, got, is_leaf=is_tensor_array)


check_like = functools.partial(like, convert=False)


def _is_wider(x: Any, than: Any) -> bool:
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return is_float and x.dtype.itemsize > than.dtype.itemsize


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
    structures = jax.tree.structure(want), jax.tree.structure(got)
    are_alike = structures[0] == structures[1] or _are_alike(*structures)
    if structures[0] == structures[1] or (are_alike and not strict):
        return
    texts = describe_structure(want), describe_structure(got)
    legend = ", where * is an array" if "*" in "".join(texts) else ""
    text = f"{what} must have the structure {texts[0]}, got {texts[1]}{legend}. {fix}"
    raise (TypeError if are_alike else ValueError)(text.rstrip())


def _are_alike(want: Any, got: Any) -> bool:
    """Whether two structures differ only in sequence types.

    Named tuples with different fields count as different structures. For example, a
    tuple with fields `(hidden, cell)` does not match a tuple with fields `(c, h)`.
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
