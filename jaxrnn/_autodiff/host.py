"""Arrays moved between the memory of the device and that of its host, inside of jit.

On GPU and TPU a move is a copy, annotated in the program; on the CPU, where there is
one memory, it is nothing. Random keys, integers and single numbers are small and stay.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.typing import Array, PyTree
from . import leaves
from .leaves import is_float, merge, split
from .transposable import dense, transposable

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device


def to_host(tree: PyTree) -> PyTree:
    """The floating arrays in the memory of the host, `pinned_host`."""
    return jax.tree.map(lambda x: _moved(x, HOST) if _is_worth_it(x) else x, tree)


def to_device(tree: PyTree) -> PyTree:
    """The same in the memory of the device, wherever they are."""
    return jax.tree.map(lambda x: _moved(x, DEVICE) if is_on_host(x) else x, tree)


def move_beside(others: list, leaves: list) -> list:
    """The leaves, each in the memory in which the other lies."""
    pairs = zip(others, leaves, strict=True)
    return [to_host(leaf) if is_on_host(other) else leaf for other, leaf in pairs]


def _is_worth_it(x: Array) -> bool:
    return is_float(x) and x.ndim > 0


def is_on_host(x: Any) -> bool:
    """Whether it lies, or will lie, in the memory of the host."""
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
    there = [is_on_host(b) for b in buffers]
    here, far = split(buffers, there)

    def put_back(res: Any, rows: list) -> list:
        t, blank = res
        return _write(blank, t, to_host(dense(rows)))

    read = lambda res, far: to_device(_read(far, res[0]))
    blank = [to_host(jnp.zeros(b.shape, b.dtype)) for b in far]
    far = transposable(read, put_back, (t, blank), far) if far else []
    return merge(leaves.read_rows(here, t), far, there)


def write_rows(buffers: list, t: Array, rows: list) -> list:
    """Each buffer with a row at t, which is moved to where the buffer lies."""
    there = [is_on_host(b) for b in buffers]
    pairs = zip(split(buffers, there), split(rows, there), strict=True)
    (here, rows), (far, far_rows) = pairs
    far = _write(far, t, to_host(far_rows)) if far else []
    return merge(leaves.write_rows(here, t, rows), far, there)


def _on_host(fn: Callable) -> Callable:
    """What reads or writes rows of buffers of the host, also where `t` is batched.

    Of rows at different places there is no copy between the memories: under such a
    `vmap` the buffers come to the device.
    """

    @jax.custom_batching.custom_vmap
    def run(buffers: list, t: Array, *rows: list) -> list:
        return fn(buffers, t, *rows)

    @run.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[list, list]:
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        batch = functools.partial(jax.vmap, in_axes=tuple(axes), axis_size=axis_size)
        if not in_batched[1]:
            outs = _on_host(batch(fn))(*args)
        else:
            outs = _put(batch(fn)(*_put(args, DEVICE)), HOST)
        return outs, [True] * len(outs)

    return run


def _put(tree: PyTree, there: Any) -> PyTree:
    return jax.tree.map(lambda x: jax.device_put(x, there), tree)


_read, _write = _on_host(leaves.read_rows), _on_host(leaves.write_rows)
