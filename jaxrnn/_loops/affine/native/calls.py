"""The native loops as functions of arrays, in the library that pip builds.

The arguments of a call are the leaves of the argument tuple, in order; a missing
argument is None. A call runs E independent batches, its *entries*. For example, a
`vmap` over 3 sets of parameters becomes one call with 3 entries. Arrays are `[E, ...]`,
or `[1, ...]` if all entries share an array.
"""

import ctypes
import functools
import logging
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ...._base import jax_internals
from ...._base.mesh import varying_like
from ...._base.typing import Array, PyTree

_log = logging.getLogger("jaxrnn")

LIBRARY = pathlib.Path(__file__).with_name("libjaxrnn_native.so")
_CALLS = "forward", "backward", "weights", "inputs"

ENTRIES = 0  # The axis of a call's entries, which comes first.
# The row axis of an array `[batch, ...]` of one entry.
RowAxis: TypeAlias = Any
"""An int, or `NO_ROWS`."""
ROWS: RowAxis = 0
# Marks an array without a row axis, such as a weight matrix.
NO_ROWS: RowAxis = "no rows"


def call(
    name: str,
    args: list[tuple[PyTree, PyTree]],
    results: list[tuple[PyTree, PyTree]],
    attributes: dict[str, Any],
    reused: int | None = None,
) -> tuple[PyTree, ...]:
    """Runs a call of the library on the arrays of one entry; returns float32 arrays.

    The axes that `vmap` maps become rows or entries of the call.

    Args:
        name: The name of the call.
        args: A pair `(row axis, arrays)` for each argument. The axis may be a pytree
            prefix of the arrays. The first argument is the lengths, int32 `[batch]`.
        results: A pair `(row axis, arrays or types)` of the same shapes for each
            result.
        attributes: The static arguments, besides `entries` and `batch`.
        reused: The index of the argument whose memory the first result reuses, unless
            several entries share the argument.
    """
    # JAX caches `run`, and with it all arrays that `run` closes over. So use types.
    types = [(n, jax.tree.map(lambda x: float32(*x.shape), x)) for n, x in results]

    def run(*args: PyTree) -> tuple[PyTree, ...]:
        count, batch = entries(args), args[0].shape[1]

        def joined(axis: RowAxis, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            shape = [count, *x.shape]
            if axis != NO_ROWS:
                shape[1 + axis] = batch
            return float32(*shape)

        made = [jax.tree.map(functools.partial(joined, n), x) for n, x in types]
        leaves, tree = jax.tree.flatten(tuple(made))
        aliases = {}
        if reused is not None and jax.tree.leaves(args[reused])[0].shape[0] == count:
            before = len(jax.tree.leaves(args[:reused]))
            aliases = {before + k: k for k in range(len(args[reused]))}
        target = f"jaxrnn_native_{name}"
        native = jax.ffi.ffi_call(target, leaves, input_output_aliases=aliases)
        args = varying_like(args, args)
        found = native(*jax.tree.leaves(args), entries=count, batch=batch, **attributes)
        # In `shard_map`, the types of the call's results do not record that the results
        # vary over devices.
        return tree.unflatten(varying_like(args, found))

    axes, arrays = zip(*args, strict=True)
    return in_one_call(run, axes, tuple(axis for axis, _ in results))(*arrays)


def float32(*shape: int) -> jax.ShapeDtypeStruct:
    """The type of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def in_one_call(
    call: Callable[..., PyTree], axes: PyTree, result_axes: PyTree
) -> Callable[..., PyTree]:
    """Wraps `call` as a function of the arrays of one entry.

    The axes that `vmap` maps become rows of one call. If `vmap` maps an array that has
    no row axis, the mapped axes become entries of the call instead.

    Args:
        call: A function of arrays with entries, which closes over no arrays.
        axes: The row axis of each array of one entry, or `NO_ROWS`, as a pytree prefix
            of the arguments.
        result_axes: The row axis of each result, or `NO_ROWS`, as a pytree prefix of
            the results.
    """
    axes, result_axes = jax.tree.map(after_first, (axes, result_axes))

    @custom_vmap
    def run(*args: PyTree) -> PyTree:
        return call(*args)

    @run.def_vmap
    def _(size: int, in_batched: PyTree, *args: PyTree) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(args)
        is_mapped = jax.tree.leaves(in_batched)
        joined, results = jax.tree.leaves(jax.tree.broadcast(axes, args)), result_axes
        if not are_rows(is_mapped, joined):
            leaves, joined = _as_entries(leaves, is_mapped)
            results = ENTRIES
        of_leaves = lambda *leaves: run(*tree.unflatten(leaves))
        found = with_joined_axis(of_leaves, size, leaves, is_mapped, joined, results)
        return found, jax.tree.map(lambda _: True, found)

    def run_one(*args: PyTree) -> PyTree:
        results = run(*jax.tree.map(lambda x: jnp.expand_dims(x, ENTRIES), args))
        return jax.tree.map(lambda x: jnp.squeeze(x, ENTRIES), results)

    return run_one


def _as_entries(leaves: list, is_mapped: list[bool]) -> Iterable[tuple]:
    """Returns `(leaves, axes)`: arrays with an axis of entries, and this axis of each.

    The axis is `NO_ROWS` for an array that all entries share.
    """
    pairs = list(zip(leaves, is_mapped, strict=True))
    count = _common(x.shape[mapped] for x, mapped in pairs)

    def of_entries(x: Array, is_mapped: bool) -> tuple[Array, RowAxis]:
        if not is_mapped and x.shape[ENTRIES] == 1:
            return x, NO_ROWS  # All entries still share the array.
        shape = *x.shape[:is_mapped], count, *x.shape[is_mapped + 1 :]
        return jnp.broadcast_to(x, shape), ENTRIES

    return zip(*(of_entries(*pair) for pair in pairs), strict=True)


def entries(args: PyTree) -> int:
    """The number of entries of a call with the arguments `args`."""
    return _common(x.shape[ENTRIES] for x in jax.tree.leaves(args))


def _common(sizes: Iterable[int]) -> int:
    """The size of an axis of several arrays, of which some may have size 1 instead."""
    return next((size for size in sizes if size != 1), 1)


def after_first(axis: RowAxis) -> RowAxis:
    """The row axis of an array after a new first axis is added."""
    return axis if axis == NO_ROWS else 1 + axis


def are_rows(is_mapped: Iterable[bool], axes: Iterable[RowAxis]) -> bool:
    """Whether each mapped array has a row axis, so that the mapped axis can join it."""
    return (True, NO_ROWS) not in zip(is_mapped, axes, strict=True)


def with_joined_axis(
    run: Callable[..., PyTree],
    size: int,
    leaves: Sequence[Array],
    is_mapped: Sequence[bool],
    axes: Sequence[RowAxis],
    result_axes: PyTree,
) -> PyTree:
    """Applies `run` once to all entries of a mapped axis, which joins another axis.

    Args:
        run: A function of the leaves.
        size: The size of the mapped axis.
        leaves: Arrays, of which some are mapped along their first axis.
        is_mapped: Whether each array is mapped.
        axes: For each array without its mapped axis, the axis that the mapped axis
            joins; `NO_ROWS` for an array that is passed unchanged.
        result_axes: The axis of each result, as a pytree prefix of the results.

    Returns:
        The results, mapped along their first axis.
    """
    marks = list(zip(leaves, is_mapped, axes, strict=True))
    count = next(x.shape[mapped + n] for x, mapped, n in marks if n != NO_ROWS)

    def join(x: Array, is_mapped: bool, axis: RowAxis) -> Array:
        if axis == NO_ROWS:
            return x
        x = x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
        return jax.lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)

    def split(x: Array, axis: int) -> Array:
        x = x.reshape(*x.shape[:axis], size, count, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    results = run(*(join(*mark) for mark in marks))
    return jax.tree.map(split, results, jax.tree.broadcast(result_axes, results))


def native_status() -> str:
    """Tells whether native or XLA's loops run on a single CPU device, and why.

    Returns:
        A text such as "native loops, for avx512", with the instruction set in use
        (`avx512`, `avx2` or `baseline`). If the native loops are unavailable, the text
        is "XLA's loops: ", followed by the reason.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.native_status().startswith(("native loops, for ", "XLA's loops: "))
        True
    """
    if reason := why_unusable():
        return f"XLA's loops: {reason}"
    return f"native loops, for {_text('JaxrnnNativeTarget')}"


@functools.cache
def why_unusable() -> str | None:
    """Returns and logs the reason why the native loops cannot run; None if they can."""
    reason = _why_not_loaded()
    if not reason and (missing := jax_internals.MISSING or register()):
        reason = f"the native loops are incompatible with this JAX: {missing}"
    if reason:
        _log.info("XLA's loops run, because %s.", reason)
    return reason


def _why_not_loaded() -> str | None:
    if not LIBRARY.exists():
        return (
            "the native loops were not built. On Linux or macOS, install a C++17 "
            "compiler, then reinstall the package"
        )
    try:
        return _text("JaxrnnNativeError") or None
    except (AttributeError, OSError) as error:
        return f"the native loops cannot be loaded: {error}"


@functools.cache
def register() -> str | None:
    """Registers the library's calls with JAX; returns an error text, or None.

    `import jaxrnn` calls this function, so that a process can load and run an
    executable from another process, even if it has traced no native loop. The function
    takes less than a millisecond, and does not choose an instruction set.
    """
    try:
        for name in _CALLS:
            symbol = getattr(_load(), f"JaxrnnNative{name.title()}")
            capsule = jax.ffi.pycapsule(symbol)
            target = f"jaxrnn_native_{name}"
            jax.ffi.register_ffi_target(target, capsule, platform="cpu")
    except (AttributeError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _text(symbol: str) -> str:
    """Calls a function of the library that returns text."""
    function = getattr(_load(), symbol)
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def _load() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


register()
