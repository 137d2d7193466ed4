"""What the LSTMs of contrib share: checks, sizes, peepholes and the projection."""

from typing import Any

from .._base.arguments import as_count
from .._base.math import clip_symmetric
from .._base.typing import Array, Params, PyTree
from .._cells.affine import Stage
from .._cells.hyperparameters import check_number, set_field
from .._cells.states import LSTMFamily, LSTMStateTuple


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
        name = type(self).__name__
        for field in ("cell_clip", "proj_clip"):
            if (bound := getattr(self, field)) is not None:
                set_field(self, **{field: check_number(name, field, bound, low=0)})
        if self.num_proj is not None:
            set_field(self, num_proj=as_count(name, "num_proj", self.num_proj))

    @property
    def sizes(self) -> LSTMStateTuple:
        """`num_units`, and `num_proj` if there is a projection."""
        h = self.num_units if self.num_proj is None else self.num_proj
        return LSTMStateTuple(self.num_units, h)

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
