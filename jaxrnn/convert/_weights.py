"""Reads weights, checks their names, shapes and dtypes, and joins and splits them.

Weights are NumPy arrays. Only a traced weight stays a JAX array.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_dtype_kind, check_instance
from .._base.errors import InvalidType, InvalidValue, describe
from .._base.math import is_traced

# A weight: a NumPy array, or a traced JAX array.
Weight = Any
# The function `read(key, *shape)` that `reader` returns.
Read = Callable[..., Weight]


def reader(weights: Mapping[Any, Any], prefix: str = "", suffix: str = "") -> Read:
    """Creates `read(key, *shape)` for the weights of one layer.

    `read` returns a weight of the given shape, where None allows any size. `read` also
    accepts PyTorch tensors. All weights must have the same dtype; otherwise NumPy would
    silently promote dtypes when it concatenates the weights.

    Args:
        weights: The weights by key.
        prefix: The text before the key in a weight's name, for messages.
        suffix: The text after the key.

    Raises:
        TypeError: In `read`, if a weight is not a floating-point array, or its dtype
            differs from the dtype of earlier weights.
        ValueError: In `read`, if a weight is missing, has another shape, or is empty.
    """
    seen: list[tuple[str, Weight]] = []

    def read(key: Any, *shape: int | None) -> Weight:
        name = f"{prefix}{key}{suffix}"
        array = _as_weight(name, pick(weights, key, name))
        _check_shape(name, array, shape)
        seen.append((name, array))
        other, first = seen[0]
        if array.dtype != first.dtype:
            raise InvalidType(
                f"`{name}` must be {first.dtype} like `{other}`, got "
                f"{describe(array)}. Cast all weights of a layer to one dtype."
            )
        return array

    return read


def _as_weight(name: str, value: Any) -> Weight:
    value = from_tensor(value)
    if isinstance(value, list | tuple | dict | str) or value is None:
        raise InvalidType(f"`{name}` must be an array, got {describe(value)}.")
    array = value if is_traced(value) else np.asarray(value)
    check_dtype_kind(name, array, jnp.floating, "floating-point")
    return array


def from_tensor(value: Any) -> Any:
    """Converts a PyTorch tensor to a NumPy array; returns other values unchanged."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":  # NumPy has no bfloat16.
        return np.asarray(value.float()).astype(jnp.bfloat16)
    return np.asarray(value)


def _check_shape(name: str, array: Weight, shape: tuple[int | None, ...]) -> None:
    pairs = zip(shape, array.shape, strict=False)
    if len(shape) != array.ndim or any(want not in (None, got) for want, got in pairs):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        text = f"`{name}` must have shape [{sizes}], got {describe(array)}."
        transposed = zip(shape, array.shape[::-1], strict=False)
        if len(shape) == array.ndim == 2 and all(w in (None, n) for w, n in transposed):
            text += " Is it transposed?"
        raise InvalidValue(text)
    if not array.size:
        raise InvalidValue(f"`{name}` must not be empty, got {describe(array)}.")


def check_concrete(name: str, tree: Any, why: str) -> None:
    """Raises TypeError if an array is traced; `why` says what needs its values."""
    for leaf in filter(is_traced, jax.tree.leaves(tree)):
        raise InvalidType(
            f"`{name}` must be concrete, since {why}, got a traced {describe(leaf)}. "
            "Call this function outside of `jit` and `grad`."
        )


def joined(weights: Sequence[Weight], axis: int = 0) -> Weight:
    """Concatenates weights. The result is traced if a weight is."""
    numpy = jnp if any(map(is_traced, weights)) else np
    return numpy.concatenate(weights, axis)


def blocks(weight: Weight, number: int) -> list[Weight]:
    """Splits the last axis into blocks of equal size."""
    size = weight.shape[-1] // number
    return [weight[..., i * size : (i + 1) * size] for i in range(number)]


def pick(weights: Mapping[Any, Any], key: Any, name: str = "", fix: str = "") -> Any:
    """Returns the weight stored under `key`; raises ValueError if it is missing."""
    if key in weights:
        return weights[key]
    there = f"Found: {listed(weights)}. {fix}".rstrip()
    raise InvalidValue(f"`{name or key}` is missing. {there}")


def flattened(tree: Any, name: str = "") -> dict[str, Any]:
    """Flattens nested dicts; joins the names with slashes."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{name}/{key}" if name else str(key))
    return flat


def as_mapping(name: str, value: Any, fix: str = "") -> Mapping[Any, Any]:
    """Returns `value`; raises TypeError unless it is a mapping."""
    return check_instance(name, value, Mapping, "a dict of weights", fix)


def listed(names: Iterable[Any]) -> str:
    """The names as a comma-separated list, for messages."""
    return ", ".join(map(str, names)) or "nothing"


def check_string(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a string."""
    check_instance(name, value, str, "a string")


def check_names(name: str, weights: Collection[str], wanted: Collection[str]) -> None:
    """Raises ValueError unless the names of the weights are exactly `wanted`."""
    missing = [each for each in wanted if each not in weights]
    unknown = [each for each in weights if each not in wanted]
    if missing or unknown:
        wrong = faults(missing, unknown)
        raise InvalidValue(f"`{name}` must hold {listed(wanted)}{wrong}.")


def check_directions(name: str, found: int, wanted: int) -> None:
    """Raises ValueError unless the number of directions is `wanted`."""
    if found != wanted:
        directions = "one direction", "two directions"
        loaders = "load", "load_bidirectional"
        raise InvalidValue(
            f"`{name}` must have {directions[wanted - 1]}, got "
            f"{directions[found - 1]}. Use `{loaders[found - 1]}`."
        )


def faults(missing: Collection[Any], unknown: Collection[Any]) -> str:
    """Lists the missing and unknown names of weights, for messages."""
    text = f"; missing: {listed(missing)}" if missing else ""
    return text + (f"; unknown: {listed(unknown)}" if unknown else "")
