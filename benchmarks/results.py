"""The results of peers in TensorFlow's layout, and checksums to compare them."""

import zlib
from typing import Any

import numpy as np

from .data import Data, Layers

Arrays = dict[str, np.ndarray]

PRODUCTS = 4


def read(mode: str, data: Data, net: Any, raw: Any) -> Arrays:
    """The results of a call as named arrays; batch-major, `[B, T, ...]`.

    Outputs past a row's end are set to zero, because peers differ there.

    Args:
        mode: The mode of the case.
        data: The arrays of the case.
        net: An object with `read_sequences`, `read_state` and `read_params`, which
            convert the peer's layouts to TensorFlow's.
        raw: The results of the call. In mode "forward", `(outputs, state)`; in mode
            "train", `(loss, (gradients by params, inputs, state))`.
    """
    if mode == "forward":
        outputs, state = raw
        outputs = np.asarray(net.read_sequences(outputs))
        if data.valid is not None:
            outputs = np.where(data.valid, outputs, 0)
        return {"outputs": outputs, **_flat("state", net.read_state(state))}
    loss, (params, inputs, state) = raw
    return {
        "loss": np.asarray(loss),
        "gradient by inputs": np.asarray(net.read_sequences(inputs)),
        **_flat("gradient by weights", net.read_params(params)),
        **_flat("gradient by state", net.read_state(state)),
    }


def _flat(what: str, layers: Layers) -> Arrays:
    return {
        f"{what} {number} {name}": np.asarray(array)
        for number, layer in enumerate(layers)
        for name, array in layer.items()
    }


def checksums(results: Arrays) -> dict[str, list[float]]:
    """The norm of each array, and its dot products with a few fixed random arrays.

    If two arrays differ by `e`, each product differs by about the norm of `e`.
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
    """The largest difference between the checksums, relative to the array's norm.

    Infinite if the two have different arrays; NaN if a checksum is NaN.
    """
    if sums.keys() != reference.keys():
        return float("inf")
    ours = np.array([sums[name] for name in reference])
    theirs = np.array(list(reference.values()))
    scale = np.maximum(theirs[:, :1], np.finfo(np.float32).tiny)
    return float(np.max(np.abs(ours - theirs) / scale))
