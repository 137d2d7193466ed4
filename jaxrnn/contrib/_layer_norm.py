"""Layer normalization of the parts of a cell, each with variables of its own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._base.typing import Array, Params
from .._cells.initializers import ParamSpec

_PARTS = ("gamma", "beta")


def norm_specs(
    scopes: Sequence[str], size: int, gain: float, shift: float
) -> dict[str, dict[str, ParamSpec]]:
    """`gamma` and `beta`, `[size]`, below each of the scopes."""
    values = zip(_PARTS, (gain, shift), strict=True)
    specs = {
        name: ParamSpec((size,), jax.nn.initializers.constant(v)) for name, v in values
    }
    return dict.fromkeys(scopes, specs)


def flat(nested: dict[str, dict[str, Any]], scopes: Sequence[str]) -> dict[str, Any]:
    """`{"forget/gamma": ...}`, as updates of stages read them."""
    return {f"{s}/{name}": nested[s][name] for s in scopes for name in _PARTS}


def layer_norm(params: Params, scope: str, x: Array) -> Array:
    """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

    Epsilon is 1e-12, or 1e-3 in float16. `params` are those of `flat`; 16 bits are
    normalized in float32.

    Source: arXiv:1607.06450; `tf.contrib.layers.layer_norm`.
    """
    epsilon = 1e-3 if x.dtype == jnp.float16 else 1e-12
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    centered = wide - jnp.mean(wide, -1, keepdims=True)
    variance = jnp.mean(centered * centered, -1, keepdims=True)
    normal = centered * jax.lax.rsqrt(variance + epsilon)
    gamma, beta = (params[f"{scope}/{p}"].astype(wide.dtype)[None, :] for p in _PARTS)
    return (normal * gamma + beta).astype(x.dtype)
