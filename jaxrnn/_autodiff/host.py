"""Arrays moved between the memory of the device and that of its host, inside of jit.

On GPU and TPU a move is a copy, annotated in the program; on the CPU, where there is
one memory, it is a no-op. Random keys, integers and scalars are small and stay on the
device.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .._base.typing import Array, PyTree
from .leaves import is_float
from .transposable import dense, transposable

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device


def to_host(tree: PyTree) -> PyTree:
    """The floating arrays in the memory of the host, `pinned_host`."""
    is_large = lambda x: is_float(x) and x.ndim > 0
    return jax.tree.map(lambda x: _moved(x, HOST) if is_large(x) else x, tree)


def to_device(tree: PyTree) -> PyTree:
    """The arrays in the memory of the device, wherever they were."""
    return jax.tree.map(lambda x: _moved(x, DEVICE) if is_on_host(x) else x, tree)


def move_beside(others: list, leaves: list) -> list:
    """The leaves, each in the memory of its counterpart in `others`."""
    pairs = zip(others, leaves, strict=True)
    return [to_host(leaf) if is_on_host(other) else leaf for other, leaf in pairs]


def is_on_host(x: Any) -> bool:
    """Whether `x` is in the memory of the host, or will be when the program runs."""
    return jax.typeof(x).memory_space == HOST


def _moved(x: Array, there: Any) -> Array:
    back = DEVICE if there == HOST else HOST
    # JAX's own transpose of a move leaves the cotangent where it is, which is an error.
    return transposable(
        lambda _, x: jax.device_put(x, there),
        lambda _, x: jax.device_put(x, back),
        (),
        x,
    )


def read_entries(buffers: list, t: Array) -> list:
    """Entry t of each buffer, on the device."""
    return [_read_on_host(b, t) if is_on_host(b) else _read(b, t) for b in buffers]


def write_entries(buffers: list, t: Array, entries: list) -> list:
    """The buffers with these entries at t, each moved to the memory of its buffer."""
    pairs = zip(buffers, entries, strict=True)
    return [
        _on_host(_write)(b, t, to_host(e)) if is_on_host(b) else _write(b, t, e)
        for b, e in pairs
    ]


def _read(buffer: Array, t: Array, *, axis: int = 0) -> Array:
    return jax.lax.dynamic_index_in_dim(buffer, t, axis, keepdims=False)


def _write(buffer: Array, t: Array, entry: Array, *, axis: int = 0) -> Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, entry, t, axis)


def _read_on_host(buffer: Array, t: Array) -> Array:
    """Entry t of a buffer on the host.

    JAX's own transpose would add to a buffer there, which the host cannot do.
    """

    def read(residuals: Any, buffer: Array) -> Array:
        return to_device(_on_host(_read)(buffer, residuals[0]))

    def put_back(residuals: Any, cotangent: Any) -> Array:
        t, zeros = residuals
        return _on_host(_write)(zeros, t, to_host(dense(cotangent)))

    zeros = to_host(jnp.zeros(buffer.shape, buffer.dtype))
    return transposable(read, put_back, (t, zeros), buffer)


def _on_host(fn: Callable, axis: int = 0) -> Callable:
    """Reads or writes an entry of a buffer on the host, also under `vmap`.

    JAX would make a gather or a scatter of it, which the host cannot do. Where `t` is
    batched, entries at different indices cannot be copied between the memories: then
    the buffer is moved to the device.

    Args:
        fn: `_read` or `_write`.
        axis: The axis of the buffer along which entries are stored.
    """
    fn_along = functools.partial(fn, axis=axis)

    @custom_vmap
    def run(buffer: Array, t: Array, *entry: Array) -> Array:
        return fn_along(buffer, t, *entry)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[Array, bool]:
        if in_batched[1]:
            axes = tuple(0 if batched else None for batched in in_batched)
            batched = jax.vmap(fn_along, axes, axis_size=axis_size)
            return jax.device_put(batched(*jax.device_put(args, DEVICE)), HOST), True
        each = lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *x.shape))
        buffer, *entry = map(each, args[::2], in_batched[::2])
        return _on_host(fn, axis + 1)(buffer, args[1], *entry), True

    return run
