"""The standard equations of cells, which the native loops know by name."""

import dataclasses

import jax.numpy as jnp

from .._base.typing import Activation


@dataclasses.dataclass(frozen=True)
class Equations:
    """The equations of a standard cell.

    Attributes:
        kind: "lstm", "gru" (which resets the state before the matrix product),
            "cudnn_gru" (which resets the state after the matrix product) or "rnn".
        activation: The activation of the candidate, or of j and c in an LSTM.
        forget_bias: In an LSTM, the number that each step adds to f.
        has_norms: Whether an LSTM normalizes its gates and c.
        has_peepholes: Whether the gates of an LSTM read c.
        has_projection: Whether an LSTM projects h.
        cell_clip: The largest magnitude of c; None if c is not clipped.
        proj_clip: The largest magnitude of a projected h; None if h is not clipped.
    """

    kind: str
    activation: Activation = jnp.tanh
    forget_bias: float = 0.0
    has_norms: bool = False
    has_peepholes: bool = False
    has_projection: bool = False
    cell_clip: float | None = None
    proj_clip: float | None = None
