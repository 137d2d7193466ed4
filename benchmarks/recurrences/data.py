"""The cell of a case, and the arrays that all ways to run it are given."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import contrib

from ..core.cases import Case

HEADS = 4
MAKE: dict[str, Callable[[int], jaxrnn.RNNCell]] = {
    "MinGRU": jaxrnn.MinGRUCell,
    "MinLSTM": jaxrnn.MinLSTMCell,
    "QRNN": jaxrnn.QRNNCell,
    "SRU": contrib.SRUCell,
    "LRU": jaxrnn.LRUCell,
    "RGLRU": jaxrnn.RGLRUCell,
    "MLSTM": functools.partial(jaxrnn.MLSTMCell, num_heads=HEADS),
    "SLSTM": functools.partial(jaxrnn.SLSTMCell, num_heads=HEADS),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """The arrays of a case, in NumPy: float32 that bfloat16 represents exactly.

    Attributes:
        cell: The cell.
        params: Its parameters.
        inputs: `[T, B, D]`.
        state: The initial state, zeros.
        cotangents: Of outputs and final state: the loss is the sum of the products.
        steps: The number of steps of all rows together.
    """

    cell: jaxrnn.RNNCell
    params: Any
    inputs: np.ndarray
    state: Any
    cotangents: Any
    steps: int


def make_data(case: Case) -> Data:
    """The same arrays for the same case, in every process."""
    cell, rng = MAKE[case.cell](case.units), np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return _rounded(rng.standard_normal(shape, np.float32))

    inputs = normal(case.time, case.batch, case.depth)
    state = jax.tree.map(np.asarray, cell.zero_state(case.batch, jnp.float32))
    return Data(
        cell=cell,
        params=jax.tree.map(_rounded, cell.init(jax.random.key(0), inputs[0])),
        inputs=inputs,
        state=state,
        cotangents=(
            normal(case.time, case.batch, case.units),
            jax.tree.map(lambda x: normal(*x.shape), state),
        ),
        steps=case.batch * case.time,
    )


def _rounded(x: Any) -> np.ndarray:
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float32)


def named(mode: str, raw: Any) -> dict[str, np.ndarray]:
    """The results of a call as arrays by name.

    `raw` is `(outputs, state)`, or the gradients by `(params, inputs)`.
    """
    names = ("outputs", "state") if mode == "forward" else ("params", "inputs")
    return {
        f"{name} {number}": np.asarray(leaf)
        for name, tree in zip(names, raw, strict=True)
        for number, leaf in enumerate(jax.tree.leaves(tree))
    }
