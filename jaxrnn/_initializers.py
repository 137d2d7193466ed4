"""TensorFlow's default initialisers and how a cell's parameters are made from specs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ._typing import Array, DType, Initializer, Key, Params


def glorot_uniform(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """`U(-l, l)` with `l = sqrt(6 / (fan_in + fan_out))`.

    A vector of n has both fans n, where `jax.nn.initializers` refuses vectors.

    Source: Glorot and Bengio, AISTATS 2010; `tf.compat.v1.glorot_uniform_initializer`.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"the default initializer makes floating numbers, got dtype {dtype}. "
            "Pass an initializer for that dtype."
        )
    fan_in, fan_out = shape[0], shape[-1]
    limit = math.sqrt(6 / max(1, fan_in + fan_out))
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def zeros(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """All 0; the key is not used."""
    del key
    return jnp.zeros(shape, dtype)


def ones(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """All 1; the key is not used."""
    del key
    return jnp.ones(shape, dtype)


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """The shape of one parameter and what fills it."""

    shape: tuple[int, ...]
    initializer: Initializer


def make_params(specs: dict[str, Any], key: Key, dtype: DType) -> Params:
    """Fill nested dicts of `ParamSpec`, each leaf with a key of its own."""
    leaves, treedef = jax.tree.flatten(specs)
    keys = jax.random.split(key, max(1, len(leaves)))
    return jax.tree.unflatten(
        treedef,
        [s.initializer(k, s.shape, dtype) for s, k in zip(leaves, keys, strict=False)],
    )
