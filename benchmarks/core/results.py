"""What peers compute, by name and in TensorFlow's layout, and sums to compare it by.

Arrays are batch-major, `[B, T, ...]`. Outputs past a row's end are set to zero before
they are compared: peers differ there.
"""

import zlib
from typing import Any

import numpy as np

from .data import Data
from .layouts import Layers

Arrays = dict[str, np.ndarray]

PRODUCTS = 4


def forward_results(data: Data, outputs: np.ndarray, state: Layers) -> Arrays:
    """Of a forward call: outputs `[B, T, H]` and the final state."""
    outputs = np.asarray(outputs)
    if data.valid is not None:
        outputs = np.where(data.valid, outputs, 0)
    return {"outputs": outputs, **_flat("state", state)}


def train_results(
    loss: Any, weights: Layers, inputs: np.ndarray, state: Layers
) -> Arrays:
    """Of forward and backward: the loss and all gradients."""
    return {
        "loss": np.asarray(loss),
        "gradient by inputs": np.asarray(inputs),
        **_flat("gradient by weights", weights),
        **_flat("gradient by state", state),
    }


def step_results(loss: Any, before: Layers, after: Layers) -> Arrays:
    """Of the first training step: its loss and the change of the weights."""
    changes = [
        {name: new[name] - old[name] for name in old}
        for old, new in zip(before, after, strict=True)
    ]
    return {"loss": np.asarray(loss), **_flat("change of weights", changes)}


def _flat(what: str, layers: Layers) -> Arrays:
    return {
        f"{what} {number} {name}": np.asarray(array)
        for number, layer in enumerate(layers)
        for name, array in layer.items()
    }


def checksums(results: Arrays) -> dict[str, list[float]]:
    """The norm of each array, and its products with a few fixed random arrays.

    Two arrays that differ by `e` differ in each product by about the norm of `e`.
    """
    return {name: _sums(name, array) for name, array in results.items()}


def _sums(name: str, array: np.ndarray) -> list[float]:
    flat = np.asarray(array, np.float64).reshape(-1)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    products = [
        float(flat @ rng.standard_normal(flat.size, np.float32))
        for _ in range(PRODUCTS)
    ]
    return [float(np.linalg.norm(flat)), *products]


def deviation(sums: dict[str, list[float]], reference: dict[str, list[float]]) -> float:
    """The largest difference of a sum, relative to the array's norm.

    Infinite if the two are not sums of the same arrays, NaN if one holds a NaN.
    """
    if sums.keys() != reference.keys():
        return float("inf")
    ours = np.array([sums[name] for name in reference])
    theirs = np.array(list(reference.values()))
    scale = np.maximum(theirs[:, :1], np.finfo(np.float32).tiny)
    return float(np.max(np.abs(ours - theirs) / scale))
