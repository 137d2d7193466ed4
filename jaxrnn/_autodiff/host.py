"""Arrays moved between the memory of the device and that of its host, inside of jit.

On GPU and TPU a move is a copy, annotated in the program; on the CPU, where there is
one memory, it is nothing. Random keys, integers and single numbers are small and stay.
"""

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
    """The same in the memory of the device, wherever they are."""
    return jax.tree.map(lambda x: _moved(x, DEVICE) if is_on_host(x) else x, tree)


def move_beside(others: list, leaves: list) -> list:
    """The leaves, each in the memory that holds the other."""
    pairs = zip(others, leaves, strict=True)
    return [to_host(leaf) if is_on_host(other) else leaf for other, leaf in pairs]


def is_on_host(x: Any) -> bool:
    """Whether the memory of the host holds it, or will hold it."""
    return jax.typeof(x).memory_space == HOST


def _moved(x: Array, there: Any) -> Array:
    back = DEVICE if there == HOST else HOST
    # JAX's own transpose of a move leaves the cotangent where it is: an error.
    return transposable(
        lambda _, x: jax.device_put(x, there),
        lambda _, x: jax.device_put(x, back),
        (),
        x,
    )


def read_rows(buffers: list, t: Array) -> list:
    """Row t of each buffer, on the device."""
    return [_read_far(b, t) if is_on_host(b) else _read(b, t) for b in buffers]


def write_rows(buffers: list, t: Array, rows: list) -> list:
    """Each buffer with a row at t, which is moved to the memory of the buffer."""
    pairs = zip(buffers, rows, strict=True)
    return [
        _on_host(_write)(b, t, to_host(r)) if is_on_host(b) else _write(b, t, r)
        for b, r in pairs
    ]


def _read(buffer: Array, t: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(buffer, t, keepdims=False)


def _write(buffer: Array, t: Array, row: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, row, t, 0)


def _read_far(buffer: Array, t: Array) -> Array:
    """A row of a buffer on the host.

    JAX's own transpose adds to a buffer, which the host cannot do.
    """

    def read(residuals: Any, buffer: Array) -> Array:
        return to_device(_on_host(_read)(buffer, residuals[0]))

    def put_back(residuals: Any, cotangent: Any) -> Array:
        t, zeros = residuals
        return _on_host(_write)(zeros, t, to_host(dense(cotangent)))

    zeros = to_host(jnp.zeros(buffer.shape, buffer.dtype))
    return transposable(read, put_back, (t, zeros), buffer)


def _on_host(fn: Callable) -> Callable:
    """Reading or writing a row of a buffer on the host, also where `t` is batched.

    Rows at different places cannot be copied between the memories: under such a `vmap`
    the buffer comes to the device.
    """

    @custom_vmap
    def run(buffer: Array, t: Array, *row: Array) -> Array:
        return fn(buffer, t, *row)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[Array, bool]:
        axes = tuple(0 if batched else None for batched in in_batched)
        batched = jax.vmap(fn, axes, axis_size=axis_size)
        t_is_batched = in_batched[1]
        if not t_is_batched:
            return _on_host(batched)(*args), True
        return jax.device_put(batched(*jax.device_put(args, DEVICE)), HOST), True

    return run
