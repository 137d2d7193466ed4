"""The LSTM whose input gate is what its forget gate leaves."""

import dataclasses
from typing import Any, final

import jax

from jaxrnn import ParamSpec

from .._base.typing import Array, DType, Initializer, Params, PyTree
from .._cells.initializers import zeros
from .._cells.states import add_peephole
from ._contrib_lstm import joined, shard_specs
from ._fields import set_counts
from ._layer_norm_lstm import LayerNormedLSTM


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class CoupledInputForgetGateLSTMCell(LayerNormedLSTM):
    """An LSTM that writes as much as it forgets.

        j, f, o = split([x, h] W + B)
        F  = sigmoid(f + forget_bias + W_F_diag c)
        c' = F * c + (1 - F) * activation(j)
        m  = sigmoid(o + W_O_diag c') * activation(c')
        h' = clip(m W_P, -proj_clip, proj_clip)

    With `layer_norm` there is no B, each of j, f, o goes through a layer normalization
    (`transform`, `forget`, `output`) and c' too (`state`), before it is read and kept:
    `LN(z) = gamma * (z - mean(z)) / sqrt(variance(z) + epsilon) + beta`, epsilon 1e-12,
    or 1e-3 in float16. The B is stored all the same, since checkpoints have it.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; W `[I + P, 3H]`, its rows
    in `num_unit_shards` variables `W_0`, `W_1` and so on of nearly equal size; `B`
    `[3H]`; `W_F_diag`, `W_O_diag` `[H]`; W_P `[H, P]`, likewise in `W_P_0` and so on;
    `gamma` and `beta` `[H]` below `transform`, `forget`, `output` and `state`.

    Attributes:
        num_units: `H`.
        use_peepholes: Whether the gates read c through the two diagonals.
        initializer: For W, W_P and the diagonals; None for Glorot uniform. TensorFlow
            does not use it.
        num_proj: `P`, or None for no projection.
        proj_clip: The bound on h' after a projection, or None.
        num_unit_shards: The number of variables that hold W.
        num_proj_shards: The number of variables that hold W_P.
        forget_bias: Added to f at each step; not part of the stored bias.
        state_is_tuple: False for a state `[batch, H + P]` that holds `[c, h]`.
        activation: None for tanh, the name of a Keras activation, or a function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        layer_norm: Whether there is layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` or the clip is negative, `num_proj` or a number of
            shards not positive, the activation not known, or `dtype` not floating.
            From `init`, if there are more shards than rows.

    Source: arXiv:1503.04069; `tf.contrib.rnn.CoupledInputForgetGateLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    initializer: Initializer | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    num_unit_shards: int = 1
    num_proj_shards: int = 1
    forget_bias: float = 1.0
    state_is_tuple: bool = True
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    layer_norm: bool = False
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    name: str | None = None
    dtype: DType | None = None

    gate_scopes = ("transform", "forget", "output")
    peepholes = ("W_F_diag", "W_O_diag")

    def __post_init__(self) -> None:
        super().__post_init__()
        set_counts(self, "num_unit_shards", "num_proj_shards")

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        (c, h), kernel, where = self.sizes, self.kernel_initializer, type(self).__name__
        shape, shards = (depth + h, 3 * c), self.num_unit_shards
        specs: dict[str, Any] = shard_specs(where, "W", shape, shards, kernel)
        specs["B"] = ParamSpec((3 * c,), zeros, blocks=3)
        specs |= self.norm_specs() | self.peephole_specs()
        if self.num_proj is None:
            return specs
        return specs | shard_specs(where, "W_P", (c, h), self.num_proj_shards, kernel)

    def stage_params(self, params: Params) -> Params:
        """The shards in one array; see `AffineCell.stage_params`."""
        staged: Params = {"kernel": joined(params, "W", self.num_unit_shards)}
        staged |= {name: params[name] for name in self.peephole_specs()}
        if self.num_proj is not None:
            kernel = joined(params, "W_P", self.num_proj_shards)
            staged["projection"] = {"kernel": kernel}
        return staged | (self.flat(params) or {"bias": params["B"]})

    def _gates(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        c = carry.c
        j, f, o = self.normalized_gates(params, z)
        f = jax.nn.sigmoid(add_peephole(params, "W_F_diag", f + self.forget_bias, c))
        c = f * c + (1 - f) * self.activation(j)
        return self.emit(*self.normalized_memory(params, "W_O_diag", o, c), carry)
