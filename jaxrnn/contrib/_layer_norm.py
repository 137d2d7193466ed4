"""What the LSTMs share whose gates and c' can be layer-normalized."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from .._base.math import widened
from .._base.typing import Array, Initializer, Params, PyTree
from .._cells.affine import Stage
from .._cells.hyperparameters import check_number, set_field
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from ._contrib_lstm import ContribLSTM


class LayerNormedLSTM(ContribLSTM):
    """An LSTM that normalizes each gate apart, and c', if `layer_norm` is True.

    `gamma` and `beta` `[num_units]` are below a scope of each gate, and below `state`;
    the updates of the stages read them under flat names, such as `forget/gamma`.

    Not a dataclass itself: each cell declares its fields in TensorFlow's order.
    """

    forget_bias: float
    layer_norm: bool
    norm_gain: float
    norm_shift: float
    use_peepholes: bool = False
    initializer: Initializer | None = None
    gate_scopes: tuple[str, ...]
    peepholes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("norm_gain", "norm_shift"):
            value = check_number(type(self).__name__, field, getattr(self, field))
            set_field(self, **{field: value})

    @property
    def kernel_initializer(self) -> Initializer:
        """That of kernels and peepholes."""
        return self.initializer or glorot_uniform

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The product of all gates; then the projection, if any."""
        (c, h), count = self.sizes, len(self.gate_scopes)
        kernel, bias = self.kernel_initializer, None if self.layer_norm else zeros
        gates = Stage(self._gates, h, count * c, kernel, bias, blocks=count)
        return self.with_projection(gates, kernel)

    @abc.abstractmethod
    def _gates(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        """The update of the first stage."""

    def elementwise_specs(self) -> dict[str, ParamSpec]:
        """The peepholes, and the normalizations under flat names."""
        return self.peephole_specs() | self.flat(self.norm_specs())

    def peephole_specs(self) -> dict[str, ParamSpec]:
        """The peepholes, if any."""
        spec = ParamSpec((self.num_units,), self.kernel_initializer)
        return dict.fromkeys(self.peepholes, spec) if self.use_peepholes else {}

    def norm_specs(self) -> dict[str, Any]:
        """`gamma` and `beta` below each scope, if any."""
        values = {"gamma": self.norm_gain, "beta": self.norm_shift}
        specs = {
            k: ParamSpec((self.num_units,), constant(v)) for k, v in values.items()
        }
        return dict.fromkeys(self.norm_scopes, specs)

    @property
    def norm_scopes(self) -> tuple[str, ...]:
        """The scopes of normalizations; none without `layer_norm`."""
        return (*self.gate_scopes, "state") if self.layer_norm else ()

    def flat(self, nested: dict[str, Any]) -> dict[str, Any]:
        """`{"forget/gamma": ...}` from `{"forget": {"gamma": ...}}`."""
        parts = ("gamma", "beta")
        return {
            f"{s}/{part}": nested[s][part] for s in self.norm_scopes for part in parts
        }

    def normalized_gates(self, params: Params, z: Array) -> list[Array]:
        """The blocks of z, each through its normalization, if any."""
        blocks = jnp.split(z, len(self.gate_scopes), axis=-1)
        pairs = zip(self.gate_scopes, blocks, strict=True)
        return [self.normalized(params, scope, block) for scope, block in pairs]

    def normalized(self, params: Params, scope: str, x: Array) -> Array:
        """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

        Epsilon is 1e-12, or 1e-3 in float16; the arithmetic is in at least float32.
        Without `layer_norm` x is returned.

        Source: arXiv:1607.06450; `tf.contrib.layers.layer_norm`.
        """
        if not self.layer_norm:
            return x
        epsilon = 1e-3 if x.dtype == jnp.float16 else 1e-12
        wide = widened(x)
        centered = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(centered * centered, -1, keepdims=True)
        normal = centered * jax.lax.rsqrt(variance + epsilon)
        gamma = params[f"{scope}/gamma"].astype(wide.dtype)[None, :]
        beta = params[f"{scope}/beta"].astype(wide.dtype)[None, :]
        return (normal * gamma + beta).astype(x.dtype)
