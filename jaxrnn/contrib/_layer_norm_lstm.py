"""LSTMs whose gates and memory are layer-normalized."""

import abc
import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import DeclinedError, LSTMStateTuple, ParamSpec, Stage, Steps

from .._base.cell_keys import check_key_of_step
from .._base.math import clip_symmetric, widened
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from .._cells.initializers import glorot_uniform, zeros
from .._cells.states import add_peephole
from ._contrib_lstm import ContribLSTM
from ._fields import set_counts, set_numbers


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
    peepholes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "norm_gain", "norm_shift")

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
        """`gamma` and `beta` below the scope of each normalization, if any."""
        scopes = (*self.gate_scopes, "state") if self.layer_norm else ()
        spec = lambda value: ParamSpec((self.num_units,), constant(value))
        pair = {"gamma": spec(self.norm_gain), "beta": spec(self.norm_shift)}
        return {scope: pair for scope in scopes}

    def flat(self, nested: dict[str, Any]) -> dict[str, Any]:
        """`{"forget/gamma": ...}` from `{"forget": {"gamma": ...}}`."""
        return {
            f"{scope}/{name}": nested[scope][name]
            for scope, names in self.norm_specs().items()
            for name in names
        }

    def normalized_gates(self, params: Params, z: Array) -> list[Array]:
        """The blocks of z, each through its normalization, if any."""
        blocks = jnp.split(z, len(self.gate_scopes), axis=-1)
        pairs = zip(self.gate_scopes, blocks, strict=True)
        return [self.normalized(params, scope, block) for scope, block in pairs]

    def normalized_memory(
        self, params: Params, peephole: str, o: Array, c: Array
    ) -> tuple[Array, Array]:
        """`(c', m)` for the output gate o and the c' before its normalization."""
        c = clip_symmetric(self.normalized(params, "state", c), self.cell_clip)
        o = jax.nn.sigmoid(add_peephole(params, peephole, o, c))
        return c, o * self.activation(c)

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


class _FourGateLSTM(LayerNormedLSTM):
    """An LSTM with blocks i, j, f, o."""

    gate_scopes = ("input", "transform", "forget", "output")
    peepholes = ("w_f_diag", "w_i_diag", "w_o_diag")

    def stage_params(self, params: Params) -> Params:
        """Without a bias that is not used, and with flat names of normalizations."""
        if not self.layer_norm:
            return params
        unused = ("bias", *self.norm_specs())
        rest = {k: v for k, v in params.items() if k not in unused}
        return rest | self.flat(params)

    def _gates(self, params: Params, z: Array, carry: Any) -> tuple[Array, PyTree]:
        c, h, *mask = carry
        i, j, f, o = self.normalized_gates(params, z)
        f = add_peephole(params, "w_f_diag", f + self.forget_bias, c)
        i = add_peephole(params, "w_i_diag", i, c)
        g = self.activation(j)
        if mask:
            g = g * mask[0]
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * g
        c, m = self.normalized_memory(params, "w_o_diag", o, c)
        return self.emit(c, m, LSTMStateTuple(c, h))


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LayerNormLSTMCell(_FourGateLSTM):
    """An `LSTMCell` with layer normalization.

        i, j, f, o = split([x, h] kernel), each through its LN: input, transform,
            forget and output
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * activation(j)
        c' = clip(LN_state(c'), -cell_clip, cell_clip)
        m  = sigmoid(o + w_o_diag c') * activation(c')
        h' = clip(m projection/kernel, -proj_clip, proj_clip)
        LN(z) = gamma * (z - mean(z)) / sqrt(variance(z) + epsilon) + beta

    Epsilon is 1e-12, or 1e-3 in float16. The state keeps the normalized c'. Without
    `layer_norm` this is `LSTMCell`, with its bias; with it the bias is stored, since
    checkpoints have it, but not used.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; `kernel` `[I + P, 4H]`,
    blocks i, j, f, o; `bias` `[4H]`; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`;
    `projection/kernel` `[H, P]`; `gamma` and `beta` `[H]` below `input`, `transform`,
    `forget`, `output` and `state`.

    Attributes:
        num_units: `H`.
        use_peepholes: Whether the gates read c through the three diagonals.
        cell_clip: The bound on c', or None.
        initializer: For kernels and diagonals; None for Glorot uniform.
        num_proj: `P`, or None for no projection.
        proj_clip: The bound on h' after a projection, or None.
        forget_bias: Added to f at each step; not part of the stored bias.
        activation: None for tanh, the name of a Keras activation, or a function.
        layer_norm: Whether there is layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` or a clip is negative, `num_proj` not positive, the
            activation not known, or `dtype` not floating.

    Source: arXiv:1607.06450; `tf.contrib.rnn.LayerNormLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    forget_bias: float = 1.0
    activation: Any = None
    layer_norm: bool = False
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        gates, *projection = self.stages
        specs = gates.specs(depth) | {"bias": ParamSpec((4 * self.num_units,), zeros)}
        specs |= self.norm_specs() | self.peephole_specs()
        return specs | (projection[0].specs(depth) if projection else {})


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LayerNormBasicLSTMCell(_FourGateLSTM):
    """A basic LSTM with layer normalization and dropout of what enters the memory.

        i, j, f, o = split([x, h] kernel), each through its LN: input, transform,
            forget and output
        g  = dropout(activation(j))
        c' = LN_state(sigmoid(f + forget_bias) * c + sigmoid(i) * g)
        h' = activation(c') * sigmoid(o)
        LN(z) = gamma * (z - mean(z)) / sqrt(variance(z) + epsilon) + beta

    Epsilon is 1e-12, or 1e-3 in float16. The state keeps the normalized c'. Without
    `layer_norm` there is a `bias` instead. The random numbers come from the key in
    `cell.bind(params, key)`; without a key, as in evaluation, nothing is dropped, where
    TensorFlow always drops. Entries that are kept are scaled by
    `1 / dropout_keep_prob`.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and
    output `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`;
    `gamma` and `beta` `[H]` below `input`, `transform`, `forget`, `output` and `state`.

    Attributes:
        num_units: `H`.
        forget_bias: Added to f at each step; not part of the stored bias.
        input_size: Accepted for compatibility with TensorFlow; not used.
        activation: None for tanh, the name of a Keras activation, or a function.
        layer_norm: Whether there is layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
        dropout_keep_prob: The probability of keeping an entry of g, in (0, 1].
        dropout_prob_seed: Cells with different seeds draw different masks from the same
            key; None for 0.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, `dropout_keep_prob` not in (0, 1],
            `dropout_prob_seed` not in [0, 2**32), the activation not known, or `dtype`
            not floating.

    Source: arXiv:1607.06450 and arXiv:1603.05118;
    `tf.contrib.rnn.LayerNormBasicLSTMCell`.
    """

    num_units: int
    forget_bias: float = 1.0
    input_size: Any = dataclasses.field(default=None, compare=False)
    activation: Any = None
    layer_norm: bool = True
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    dropout_keep_prob: float = 1.0
    dropout_prob_seed: int | None = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "dropout_keep_prob")
        if not 0 < self.dropout_keep_prob <= 1:
            raise ValueError(
                f"{type(self).__name__}: `dropout_keep_prob` must be in (0, 1], got "
                f"{self.dropout_keep_prob}. It is the probability of keeping an entry."
            )
        set_counts(self, "dropout_prob_seed", least=0, most=2**32 - 1)

    @property
    def is_random(self) -> bool | None:
        """Whether anything is dropped; see `RNNCell.is_random`."""
        return self.dropout_keep_prob < 1

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        (gates,) = self.stages
        specs = gates.specs(depth)
        if self.layer_norm:
            return specs | self.norm_specs()
        return specs | {"bias": ParamSpec((4 * self.num_units,), glorot_uniform)}

    def enter(self, state: PyTree) -> tuple[Array, Any]:
        """h, and the state, with the mask of a step that drops."""
        return state[1], tuple(state)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. Without a key nothing is dropped.

        Raises:
            ValueError: As `AffineCell.apply`.
            TypeError: As `AffineCell.apply`, or if `key` is not a random key.
        """
        if key is None or not self.is_random:
            return super().apply(params, inputs, state, key)
        check_key_of_step(type(self).__name__, key)
        inputs, state = self._checked(params, inputs, state)
        key = jax.random.fold_in(key, self.dropout_prob_seed or 0)
        kept = jax.random.bernoulli(key, self.dropout_keep_prob, state[0].shape)
        mask = kept.astype(state[0].dtype) / self.dropout_keep_prob
        params, state = self.stage_params(params), (*state, mask)
        return self.chain(self._product, params, inputs, state)[:2]

    def apply_sequence(
        self,
        params: Params,
        inputs: Array,
        state: PyTree,
        steps: Steps,
        keys: Any = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """All steps at once; see `AffineCell.apply_sequence`.

        Raises:
            DeclinedError: If a step drops, or as `AffineCell.apply_sequence`.
        """
        if keys is not None and self.is_random:
            raise DeclinedError(f"{type(self).__name__} draws a mask at every step")
        return self.run_stages(params, inputs, state, steps, implementation)
