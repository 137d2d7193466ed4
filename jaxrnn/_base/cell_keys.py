"""Derives a random key for each step of a sequence.

At step t, a cell draws the same numbers as with `fold_in(key, t)`, where `key` is the
key of the bound cell. Random numbers therefore do not depend on unrolling, on memory
strategies or on the backend.

Variational dropout draws once per run, so a cell also needs a key for the whole run.
At each step, the cell gets one JAX key that contains both: the step's key and the run's
key. Its custom implementation draws from the step's key, and splits or folds both
keys. However a cell derives a key for an inner cell, the derived key also contains a
key for the run.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from .errors import expect, is_array, is_key
from .jax_internals import define_prng_impl
from .typing import Array, ArrayLike, Key


def check_key(key: Key) -> None:
    """Raises unless `key` is one random key (under `vmap`, one for each mapped entry).

    Raises:
        TypeError: If `key` is not a random key.
        ValueError: If `key` is an array of keys.
    """
    is_raw = is_array(key) and key.dtype == jnp.uint32 and key.ndim > 0
    fix = "Create a key with `jax.random.key(0)`."
    expect(is_raw or is_key(key), "key", "be a random key", key, fix, error=TypeError)
    # Raw uint32 keys are vectors, and typed keys are scalars.
    is_one = key.ndim == is_raw
    fix = "To use several keys, apply `jax.vmap`."
    expect(is_one, "key", "be one key", key, fix)


def check_key_or_none(key: object) -> None:
    """Raises like `check_key`, but accepts None."""
    if key is not None:
        check_key(key)


# No step has this index, so the run's key differs from every step's key.
RUN = 2**32 - 1

# Maps the implementation of a combined key to the implementation of its two keys.
_IMPL_OF_PARTS: dict[Any, Any] = {}


@functools.cache
def _of_both(impl: object) -> Any:
    """Returns the implementation of a key that contains the run's and the step's key.

    `impl` is the implementation of these two keys.
    """
    size = jax.random.key_data(jax.random.key(0, impl=impl)).size
    held = functools.partial(jax.random.wrap_key_data, impl=impl)

    def parts(data: Array) -> tuple[Key, Key]:
        return held(data[:size]), held(data[size:])

    def seed(seed: Array) -> Array:
        key = jax.random.key(seed, impl=impl)
        return _data_of_both(key, key)

    def split(data: Array, shape: tuple[int, ...]) -> Array:
        return _data_of_both(*(jax.random.split(key, shape) for key in parts(data)))

    def fold_in(data: Array, number: ArrayLike) -> Array:
        return _data_of_both(*(jax.random.fold_in(key, number) for key in parts(data)))

    def random_bits(data: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
        return jax.random.bits(parts(data)[1], shape, f"uint{bit_width}")

    both = define_prng_impl(
        key_shape=(2 * size,),
        seed=seed,
        split=split,
        random_bits=random_bits,
        fold_in=fold_in,
        name=f"run_and_step_{impl}",
        tag="run_and_step",
    )
    _IMPL_OF_PARTS[both] = impl
    return both


def _data_of_both(run: Key, step: Key) -> Array:
    parts = jax.random.key_data(run), jax.random.key_data(step)
    return jnp.concatenate(parts, axis=-1)


def at_step(key: Key | None, t: Array) -> Key | None:
    """The key for step `t` of a run with `key`; None if `key` is None."""
    if key is None:
        return None
    run = jax.random.fold_in(key, RUN)
    step = jax.random.fold_in(key, t)
    impl = _of_both(jax.random.key_impl(key))
    return jax.random.wrap_key_data(_data_of_both(run, step), impl=impl)


def run_key(key: Key) -> Key:
    """The run's key from a step's key; any other key is returned unchanged."""
    impl = _IMPL_OF_PARTS.get(jax.random.key_impl(key))
    if impl is None:
        return key
    data = jax.random.key_data(key)
    run, _ = jnp.split(data, 2, axis=-1)
    return jax.random.wrap_key_data(run, impl=impl)


def cell_at_step(cell: Any, t: Array) -> Any:
    """Returns the cell with its keys for step `t`, from the method `at_step`, if any.

    A cell may forward all attributes to an inner cell. Then `cell.at_step` would be the
    inner cell's method, which returns the inner cell. So the lookup does not forward.
    """
    has_method = inspect.getattr_static(cell, "at_step", None) is not None
    return cell.at_step(t) if has_method else cell


def fold_in(key: Key | None, data: int | Array) -> Key | None:
    """Applies `jax.random.fold_in`; returns None if `key` is None."""
    return None if key is None else jax.random.fold_in(key, data)
