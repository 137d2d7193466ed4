"""TensorFlow's default initializers, and parameters from their specs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones as ones, zeros as zeros

from .._base.errors import describe, is_array
from .._base.trees import map_named
from .._base.typing import Array, DType, Initializer, Key, Params


def glorot_uniform(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """`U(-l, l)` with `l = sqrt(6 / (fan_in + fan_out))`.

    Both fans of a vector are its size; `jax.nn.initializers` refuses vectors.

    Source: Glorot and Bengio, AISTATS 2010; `tf.compat.v1.glorot_uniform_initializer`.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"the default initializer must have a floating dtype, got {dtype}. "
            "Pass an initializer for that dtype."
        )
    limit = math.sqrt(6 / max(1, shape[0] + shape[-1]))
    return jax.random.uniform(key, shape, dtype, -limit, limit)


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """The shape and the initializer of one parameter.

    Attributes:
        shape: The shape.
        initializer: `initializer(key, shape, dtype) -> array`, as those of
            `jax.nn.initializers`.
    """

    shape: tuple[int, ...]
    initializer: Initializer


def make_params(specs: dict[str, Any], key: Key, dtype: DType) -> Params:
    """The parameters of nested dicts of `ParamSpec`, each from a separate key.

    Raises:
        TypeError: If an initializer does not return an array of the requested shape.
    """
    keys = iter(jax.random.split(key, max(1, len(jax.tree.leaves(specs)))))

    def make(name: str, spec: ParamSpec) -> Array:
        leaf = spec.initializer(next(keys), spec.shape, dtype)
        if not is_array(leaf) or leaf.shape != spec.shape:
            raise TypeError(
                f"the initializer of `{name}` must make an array {spec.shape}, got "
                f"{describe(leaf)}. Call those of jax.nn.initializers first: "
                "`orthogonal()`."
            )
        return jnp.asarray(leaf, dtype)

    return map_named("params", make, specs)
