"""LSTMs and GRUs whose gates need not use the sigmoid, as layers of other libraries.

The cells have the parameters of `LSTMCell`, `GRUCell` and `CudnnCompatibleGRUCell`, and
run in XLA's loop. In their equations, `recurrent_activation` replaces the sigmoid.
"""

from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp

from .._base.math import clip_symmetric
from .._base.typing import Array, Params, PyTree
from .._cells import fields
from .._cells.affine.cell import AffineCell, Stage, Updated
from .._cells.lstm import LSTMCell, add_peephole
from .._cells.params import ones


@final
@fields.dataclass
class GatedLSTMCell(LSTMCell):
    """An `LSTMCell` whose gates are `recurrent_activation(...)`, by default sigmoids.

    Attributes:
        recurrent_activation: None for the sigmoid, the name of a Keras activation, or a
            function.
    """

    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)

    def _gates(self, params: Params, z: Array, state: PyTree) -> Updated:
        c = state.c
        i, j, f, o = jnp.split(z, 4, axis=-1)
        f = add_peephole(params, "w_f_diag", f + self.forget_bias, c)
        i = add_peephole(params, "w_i_diag", i, c)
        c = self.recurrent_activation(f) * c
        c = c + self.recurrent_activation(i) * self.activation(j)
        c = clip_symmetric(c, self.cell_clip)
        o = add_peephole(params, "w_o_diag", o, c)
        m = self.recurrent_activation(o) * self.activation(c)
        return self._emit(c, m, state)


@fields.dataclass
class _GatedGRU(AffineCell):
    """The fields and the first stage of both GRUs.

    Attributes:
        num_units: `H`, at least 0.
        activation: None for tanh, the name of a Keras activation, or a function.
        recurrent_activation: None for the sigmoid, the name of a Keras activation, or a
            function.
    """

    num_units: int = fields.size()
    activation: fields.ActivationLike = fields.activation()
    recurrent_activation: fields.ActivationLike = fields.activation(none=jax.nn.sigmoid)

    state_size = output_size = property(lambda self: self.num_units)

    def _gate_stage(self, update: Callable[..., Updated]) -> Stage:
        n = self.num_units
        return Stage(update, n, 2 * n, bias=ones, path="gates", blocks=2)

    def _new_state(self, u: Array, state: Array, z: Array) -> Updated:
        new_state = u * state + (1 - u) * self.activation(z)
        return new_state, new_state


@final
@fields.dataclass
class GatedGRUCell(_GatedGRU):
    """A `GRUCell` whose gates are `recurrent_activation(...)`, by default sigmoids."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: the gates, then the candidate, which reads the reset state."""
        n = self.num_units
        candidate = Stage(self._candidate, n, n, path="candidate", blocks=1)
        return self._gate_stage(self._gates), candidate

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(self.recurrent_activation, jnp.split(z, 2, axis=-1))
        return r * state, (u, state)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> Updated:
        u, state = carry
        return self._new_state(u, state, z)


@final
@fields.dataclass
class GatedCudnnGRUCell(_GatedGRU):
    """A `CudnnCompatibleGRUCell` whose gates are `recurrent_activation(...)`."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The gates, then the candidate's matrix products with inputs and state."""
        n = self.num_units
        of_inputs = Stage(
            self._project_inputs, 0, n, path="candidate/input_projection", blocks=1
        )
        of_state = Stage(
            self._candidate,
            n,
            n,
            path="candidate/hidden_projection",
            takes_inputs=False,
            blocks=1,
        )
        return self._gate_stage(self._gates), of_inputs, of_state

    def _gates(self, params: Params, z: Array, state: Array) -> Updated:
        r, u = map(self.recurrent_activation, jnp.split(z, 2, axis=-1))
        return state[:, :0], (r, u, state)  # The next product reads only the inputs.

    def _project_inputs(self, params: Params, z: Array, carry: PyTree) -> Updated:
        _, _, state = carry
        return state, (*carry, z)

    def _candidate(self, params: Params, z: Array, carry: PyTree) -> Updated:
        r, u, state, z_inputs = carry
        return self._new_state(u, state, z_inputs + r * z)
