"""From TensorFlow's weights to gates, which each peer puts into its own order."""

import dataclasses

import numpy as np

# The blocks of each kernel, [inputs, state] x blocks, by the prefix of its name.
BLOCKS = {
    "lstm": {"": "igfo"},
    "peephole": {"": "igfo"},
    "gru": {"gates/": "ru", "candidate/": "c"},
    "gru_after": {"": "ruc"},
    "rnn": {"": "a"},
    "mgu": {"": "fn"},
}


@dataclasses.dataclass(frozen=True)
class Gates:
    """One layer's weights by gate: `x` `[D, H]`, `h` `[H, H]` and `b` `[H]` each."""

    x: dict[str, np.ndarray]
    h: dict[str, np.ndarray]
    b: dict[str, np.ndarray]


def to_gates(cell: str, weights: dict[str, np.ndarray], forget_bias: float) -> Gates:
    """TensorFlow's weights by gate, `forget_bias` added to the forget gate of an LSTM.

    TensorFlow adds 1 at run time. A peer that does the same passes 0, others 1.
    """
    gates = Gates({}, {}, {})
    for prefix, names in BLOCKS[cell].items():
        kernels = np.split(weights[f"{prefix}kernel"], len(names), axis=1)
        biases = np.split(weights[f"{prefix}bias"], len(names))
        for name, kernel, bias in zip(names, kernels, biases, strict=True):
            depth = len(kernel) - len(bias)
            gates.x[name], gates.h[name] = kernel[:depth], kernel[depth:]
            gates.b[name] = bias
    if cell == "lstm":
        gates.b["f"] = gates.b["f"] + np.float32(forget_bias)
    return gates


def from_gates(cell: str, gates: Gates) -> dict[str, np.ndarray]:
    """Gradients by gate in TensorFlow's layout: the way back of `to_gates`."""
    weights = {}
    for prefix, names in BLOCKS[cell].items():
        x, h, b = side_by_side(gates, names)
        weights[f"{prefix}kernel"] = np.concatenate([x, h])
        weights[f"{prefix}bias"] = b
    return weights


def side_by_side(gates: Gates, order: str) -> tuple[np.ndarray, ...]:
    """`[D, nH]`, `[H, nH]` and `[nH]`: the blocks in this order."""
    return tuple(
        np.concatenate([blocks[name] for name in order], axis=-1)
        for blocks in (gates.x, gates.h, gates.b)
    )


def apart(order: str, x: np.ndarray, h: np.ndarray, b: np.ndarray) -> Gates:
    """The way back of `side_by_side`."""
    blocks = (np.split(np.asarray(a), len(order), axis=-1) for a in (x, h, b))
    return Gates(*(dict(zip(order, block, strict=True)) for block in blocks))
