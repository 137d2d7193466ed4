"""The one comparison of nests: arrays with the types that they must have.

A type is a `jax.ShapeDtypeStruct`, or an array, of which only shape and dtype are read.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .errors import describe_structure, leaf_name
from .expect import expect, sentence
from .inputs import as_array
from .math import cast_if_weak
from .trees import is_like, is_tensor_array, opaque
from .typing import PyTree


def like(
    name: str,
    got: PyTree,
    want: PyTree,
    *,
    skip: int = 0,
    strict: bool = True,
    wider: bool = False,
    fix: str = "",
    error: type[Exception] = TypeError,
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

    Raises:
        ValueError: If the structure or a shape differs.
        TypeError: If a leaf is not an array, a dtype differs or, with `strict`, a
            sequence type.
    """
    check_structure(f"`{name}`", opaque(want), opaque(got), strict, fix)
    types = iter(jax.tree.leaves(want, is_leaf=is_tensor_array))

    def to_array(path: tuple, leaf: Any) -> Any:
        wanted = next(types)
        if is_tensor_array(wanted):
            return leaf
        return cast_if_weak(as_array(leaf_name(name, path), leaf), wanted.dtype)

    arrays = jax.tree.map_with_path(to_array, got, is_leaf=is_tensor_array)
    _check_leaves(name, arrays, want, skip, wider, fix, error)
    return arrays


def check_like(
    name: str,
    got: PyTree,
    want: PyTree,
    skip: int = 0,
    strict: bool = True,
    wider: bool = False,
    fix: str = "",
    error: type[Exception] = TypeError,
) -> None:
    """`like` for a nest of arrays of NumPy or JAX, or of types; converts nothing."""
    check_structure(f"`{name}`", opaque(want), opaque(got), strict, fix)
    _check_leaves(name, got, want, skip, wider, fix, error)


def _check_leaves(
    name: str,
    got: PyTree,
    want: PyTree,
    skip: int,
    wider: bool,
    fix: str,
    error: type[Exception],
) -> None:
    """Raises unless the arrays of a nest of the wanted structure have its types."""
    leaves = jax.tree.leaves_with_path(got, is_leaf=is_tensor_array)
    types = jax.tree.leaves(want, is_leaf=is_tensor_array)
    for (path, leaf), wanted in zip(leaves, types, strict=True):
        full = leaf_name(name, path)
        if is_tensor_array(wanted):
            if not is_like(wanted, leaf):
                must = f"be {wanted!r} or the result of writes to it"
                raise ValueError(sentence(full, must, leaf, fix))
            continue
        fits = leaf.shape[skip:] == wanted.shape[skip:] and len(leaf.shape) >= skip
        is_wider = wider and _is_wider(leaf.dtype, wanted.dtype)
        if fits and (is_wider or leaf.dtype == wanted.dtype):
            continue  # Texts are made only for errors.
        shape = ", ".join([*["any"] * skip, *map(str, wanted.shape[skip:])])
        expect(fits, full, f"have shape [{shape}]", leaf, fix)
        must = f"have dtype {wanted.dtype}{' or a wider one' * wider}"
        raise error(sentence(full, must, leaf, fix))


def _is_wider(dtype: Any, than: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > than.itemsize


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
    want_def = jax.tree.structure(want)
    got_def = jax.tree.structure(got)
    if want_def == got_def:
        return
    same_but_for_kind = _are_alike(want_def, got_def)
    if same_but_for_kind and not strict:
        return
    error = TypeError if same_but_for_kind else ValueError
    texts = describe_structure(want), describe_structure(got)
    legend = ", where * is an array" if "*" in "".join(texts) else ""
    raise error(
        f"{what} must have the structure {texts[0]}, got {texts[1]}{legend}. "
        f"{fix}".rstrip()
    )


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
