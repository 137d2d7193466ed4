"""Reads weights, checks their names, shapes and dtypes, and joins and splits them.

Weights are NumPy arrays. Only a traced weight stays a JAX array.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool, check_instance
from .._base.errors import Verbatim
from .._base.expect import expect
from .._base.math import is_traced
from .._base.typing import Params

Weight: TypeAlias = Any
"""A NumPy array, or a traced JAX array."""
Weights: TypeAlias = Mapping[str, Any]
"""Weights by name, or nested dicts of weights."""


class Read(Protocol):
    """The function that `reader` returns."""

    def __call__(self, key: Any, *shape: int | None) -> Weight: ...


def reader(weights: Mapping[Any, Weight], prefix: str = "", suffix: str = "") -> Read:
    """Creates `read(key, *shape)` for the weights of one layer.

    `read` returns a weight of the given shape, where None allows any size. The weights
    may be PyTorch tensors. All weights must have the same dtype; otherwise NumPy would
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

    def read(key: object, *shape: int | None) -> Weight:
        name = f"{prefix}{key}{suffix}"
        array = _as_weight(name, pick(weights, key, name))
        _check_shape(name, array, shape)
        seen.append((name, array))
        other, first = seen[0]
        must = f"be {first.dtype} like `{other}`"
        fix = "Cast all weights of a layer to one dtype."
        expect(array.dtype == first.dtype, name, must, array, fix, error=TypeError)
        return array

    return read


def _as_weight(name: str, value: object) -> Weight:
    value = from_tensor(value)
    is_other = isinstance(value, list | tuple | dict | str) or value is None
    expect(not is_other, name, "be an array", value, error=TypeError)
    array: Any = value if is_traced(value) else np.asarray(value)
    expect(
        jnp.issubdtype(array.dtype, jnp.floating),
        name,
        "be floating-point",
        array,
        error=TypeError,
    )
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
    fits = len(shape) == array.ndim and all(n in (None, got) for n, got in pairs)
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    expect(fits, name, f"have shape [{sizes}]", array)
    expect(array.size, name, "not be empty", array)


def joined(weights: Sequence[Weight], axis: int = 0) -> Weight:
    """Concatenates weights; the result is traced if any weight is traced."""
    numpy = jnp if any(map(is_traced, weights)) else np
    return numpy.concatenate(weights, axis)


def blocks(weight: Weight, number: int) -> list[Weight]:
    """Splits the last axis into blocks of equal size."""
    size = weight.shape[-1] // number
    return [weight[..., i * size : (i + 1) * size] for i in range(number)]


def pick(weights: Mapping[Any, Any], key: object, name: str = "", fix: str = "") -> Any:
    """Returns the weight stored under `key`; raises ValueError if it is missing."""
    if key not in weights:
        text = f"`{name or key}` is missing. Found: {listed(weights)}. {fix}"
        raise ValueError(text.rstrip())
    return weights[key]


def flattened(tree: object, name: str = "") -> Params:
    """Flattens nested dicts; joins the names with slashes."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    flat: Params = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{name}/{key}" if name else str(key))
    return flat


def as_mapping(name: str, value: Any, fix: str = "") -> Weights:
    """Returns `value`; raises TypeError unless it is a mapping."""
    return check_instance(name, value, Mapping, "a dict of weights", fix)


def listed(names: Iterable[object]) -> Verbatim:
    """The names as a comma-separated list, for messages."""
    return Verbatim(", ".join(map(str, names)) or "nothing")


def check_names(
    name: str,
    found: Collection[str],
    wanted: Collection[str],
    what: str = "",
    fix: str = "",
) -> None:
    """Raises ValueError unless the names of the weights are exactly `wanted`."""
    missing = [each for each in wanted if each not in found]
    unknown = [each for each in found if each not in wanted]
    text = f"`{name}` must hold {what or listed(wanted)}"
    text += f"; missing: {listed(missing)}" if missing else ""
    text += f"; unknown: {listed(unknown)}" if unknown else ""
    if missing or unknown:
        raise ValueError(f"{text}. {fix}".rstrip())


def check_only(name: str, keys: Iterable[str], known: Collection[str]) -> None:
    """Raises ValueError for a key that is not among the known keys."""
    unknown = [key for key in keys if key not in known]
    expect(not unknown, name, f"hold only {listed(known)}", listed(unknown))


def check_directions(
    name: str, found: int, bidirectional: object, fix: str = ""
) -> None:
    """Raises an error unless `bidirectional` fits the number of directions."""
    given = as_bool("bidirectional", bidirectional)
    has = "two directions" if found == 2 else "one direction"
    must = f"be {found == 2}, because `{name}` has {has}"
    expect(given == (found == 2), "bidirectional", must, given, fix)
