"""What the LSTMs of contrib share: clips, the projection, and kernels in shards."""

from typing import Any

import jax.numpy as jnp

from jaxrnn import AffineCell, LSTMStateTuple, ParamSpec, Stage

from .._base.math import clip_symmetric
from .._base.typing import Array, Initializer, Params, PyTree
from .._cells.states import LSTMFamily
from ._fields import set_counts, set_numbers


class ContribLSTM(LSTMFamily):
    """An LSTM that is not the plain one of the libraries, with a projection or without.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order.
    """

    num_units: int
    num_proj: int | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None
    state_is_tuple = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "cell_clip", "proj_clip", low=0)
        set_counts(self, "num_proj", fix="Leave it out for no projection.")

    @property
    def sizes(self) -> LSTMStateTuple:
        """`num_units`, and `num_proj` if there is a projection."""
        h = self.num_units if self.num_proj is None else self.num_proj
        return LSTMStateTuple(self.num_units, h)

    def why_no_plain_lstm(self) -> str | None:
        """That the class is no `LSTMCell`; see `AffineCell`."""
        return AffineCell.why_no_plain_lstm(self)

    def with_projection(self, gates: Stage, kernel: Any) -> tuple[Stage, ...]:
        """The stages: the gates; then the projection, if any, at "projection"."""
        if self.num_proj is None:
            return (gates,)
        c, h = self.sizes
        return gates, Stage(self._project, c, h, kernel, None, "projection", False, 1)

    def emit(self, c: Array, m: Array, state: LSTMStateTuple) -> tuple[Array, PyTree]:
        """What the update of the gates returns; without a projection m is h'."""
        m = m.astype(state.h.dtype)
        return self.leave(c, m) if self.num_proj is None else (m, (c, state))

    def _project(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        c, state = carry
        return self.leave(c, clip_symmetric(z, self.proj_clip).astype(state.h.dtype))


def shard_specs(
    where: str, name: str, shape: tuple[int, int], shards: int, make: Initializer
) -> dict[str, ParamSpec]:
    """The specs of a kernel whose rows are in several variables, `<name>_0` and so on.

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    rows, columns = shape
    if shards > rows:
        raise ValueError(
            f"{where}: `{name}` of {rows} rows must be stored in at most as many "
            f"shards, got {shards}. Use fewer."
        )
    least, longer = divmod(rows, shards)
    return {
        f"{name}_{i}": ParamSpec((least + (i < longer), columns), make)
        for i in range(shards)
    }


def joined(params: Params, name: str, shards: int) -> Array:
    """The kernel `name`, from its shards."""
    return jnp.concatenate([params[f"{name}_{i}"] for i in range(shards)])
