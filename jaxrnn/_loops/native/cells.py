"""The cells that the native loops support."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.errors import name_of
from ..library_calls import what_lstm_has, why_not_fields
from ..run import DeclinedError


class Cell(NamedTuple):
    """A cell that the native loops support.

    Attributes:
        number: The cell's number in C++.
        has_c: Whether the cell is an LSTM.
        factors: The operand of each product in addition to the inputs: "h", "operand"
            (which the step computes from h), or None.
    """

    number: int
    has_c: bool
    factors: tuple[str | None, ...]


CELLS = {
    "lstm": Cell(0, True, ("h",)),
    "gru": Cell(1, False, ("h", "operand")),
    "rnn": Cell(2, False, ("h",)),
    "cudnn_gru": Cell(3, False, ("h", None, "h")),
    "peephole_lstm": Cell(4, True, ("h",)),
    "projected_lstm": Cell(5, True, ("h", "operand")),
    "normed_lstm": Cell(6, True, ("h",)),
}

# The activations of the candidate or, in an LSTM, of j and c, in the order of their
# numbers in C++.
ACTIVATIONS = jnp.tanh, jax.nn.relu, jax.nn.sigmoid


def native_kind(cell: Any) -> str:
    """The key of a cell in `CELLS`.

    Raises:
        DeclinedError: If the cell has no key. The error gives the reason.
    """
    kind, known = cell.declared_kind, "it supports only LSTMs, GRUs and basic RNNs"
    if kind is None:
        raise DeclinedError(f"{known}, not {type(cell).__name__}")
    if reason := why_not_fields(cell):
        raise DeclinedError(reason)
    if (activation := _activation(cell)) not in ACTIVATIONS:
        raise DeclinedError(
            f"{known} with tanh, relu or sigmoid, not {name_of(activation)}"
        )
    if kind != "lstm" or not (has := what_lstm_has(cell)):
        return kind
    if "layer normalization" not in has:
        return "projected_lstm" if "a projection" in has else "peephole_lstm"
    if len(has) > 1:
        raise DeclinedError(f"it does not support an LSTM with {' and '.join(has)}")
    return "normed_lstm"


def attributes(cell: Any, kind: str) -> dict[str, Any]:
    """The attributes to pass to the loops for a cell of kind `kind`."""
    core = cell.library_cell
    bound = lambda clip: np.float32(math.inf if clip is None else clip)
    return {
        "cell": np.int32(CELLS[kind].number),
        "activation": np.int32(ACTIVATIONS.index(_activation(cell))),
        "forget_bias": np.float32(getattr(core, "forget_bias", 0)),
        "cell_clip": bound(getattr(core, "cell_clip", None)),
        "output_clip": bound(getattr(core, "proj_clip", None)),
    }


def _activation(cell: Any) -> Any:
    return getattr(cell.library_cell, "activation", jnp.tanh)
