"""Single weights: read as NumPy arrays and checked for shape and dtype."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._base.errors import describe

# `read(name, value, shape)`, of `reader`.
Read = Callable[[str, Any, tuple[int | None, ...]], np.ndarray]


def reader(where: str) -> Read:
    """`read(name, value, shape)` for the weights of one layer.

    It returns a weight, also one of PyTorch's, as a NumPy array of that `shape`, in
    which None stands for any size. All weights must be of one dtype: NumPy would
    silently promote where weights are concatenated.

    Args:
        where: The function that was called, for messages.

    Raises:
        TypeError: If a weight is not a floating array, or of another dtype than the
            weights before it.
        ValueError: If it has another shape, or is empty.
    """
    seen: list[tuple[str, np.ndarray]] = []

    def read(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
        array = _as_numpy(where, name, value)
        _check_shape(where, name, array, shape)
        seen.append((name, array))
        other, first = seen[0]
        if array.dtype != first.dtype:
            raise TypeError(
                f"{where}: `{name}` must be {first.dtype}, as `{other}` is, got "
                f"{describe(array)}. Cast all weights of a layer to one dtype."
            )
        return array

    return read


def _as_numpy(where: str, name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # PyTorch's.
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such dtype.
            return _as_numpy(where, name, value.float()).astype(jnp.bfloat16)
    if isinstance(value, list | tuple | dict | str) or value is None:
        raise TypeError(f"{where}: `{name}` must be an array, got {describe(value)}.")
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{where}: `{name}` must be floating, got {describe(array)}.")
    return array


def _check_shape(
    where: str, name: str, array: np.ndarray, shape: tuple[int | None, ...]
) -> None:
    fits = len(shape) == array.ndim and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{where}: `{name}` must have shape [{sizes}], got {describe(array)}."
        )
    if not array.size:
        raise ValueError(
            f"{where}: `{name}` must not be empty, got {describe(array)}. A layer has "
            "inputs and units."
        )


def pick(where: str, weights: Mapping[str, Any], name: str) -> Any:
    """The weight of that name.

    Raises:
        ValueError: If it is missing.
    """
    if name in weights:
        return weights[name]
    there = ", ".join(map(str, weights)) or "nothing"
    raise ValueError(f"{where}: `{name}` is missing. There is: {there}.")


def flattened(tree: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, with names joined by slashes."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    inner = [
        flattened(value, f"{name}/{key}" if name else str(key))
        for key, value in tree.items()
    ]
    return {key: value for each in inner for key, value in each.items()}


def check_mapping(where: str, name: str, value: Any) -> None:
    """Raises TypeError for what is not a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{where}: `{name}` must be a dict of weights, got {describe(value)}."
        )


def check_string(where: str, name: str, value: Any) -> None:
    """Raises TypeError for what is not a string."""
    if not isinstance(value, str):
        raise TypeError(f"{where}: `{name}` must be a string, got {describe(value)}.")
