"""LSTMs with layer normalization of gates and c, or with normalized kernels."""

import dataclasses
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant, zeros

from jaxrnn import LSTMStateTuple, ParamSpec, Stage, extend
from jaxrnn.extend import Choice, Run, fields
from jaxrnn.typing import (
    Activation,
    Array,
    DType,
    Initializer,
    Key,
    Params,
    PyTree,
    Specs,
)

from ._lstms import (
    LSTM,
    OfLSTMCell,
    add_peephole,
    clip_symmetric,
    core_lstm,
    joined,
    shard_specs,
)


class _LayerNormedLSTM(LSTM):
    """An LSTM with optional layer normalization of each gate and of c'.

    With `layer_norm`, each gate and c' have parameters `gamma` and `beta`
    `[num_units]`, e.g. under the scopes `input` and `state`. The bias of the matrix
    product is then not added, even if it is stored.

    Attributes:
        layer_norm: Whether to use layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
    """

    activation: Activation
    forget_bias: float
    layer_norm: bool
    norm_gain: float
    norm_shift: float
    # Values for cells that do not have these fields.
    use_peepholes: bool = False
    cell_clip: float | None = None

    gate_scopes: tuple[str, ...]
    peepholes: tuple[str, ...]
    _gates: Callable[..., tuple[Array, PyTree]]
    """Computes the gates and the new c from the matrix product."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of all gates, then the projection stage if there is one."""
        return self._gate_stages(self._gates, len(self.gate_scopes))

    def elementwise_specs(self) -> Specs:
        """Specs of the peepholes, and of each normalization's `gamma` and `beta`."""
        shape = (self.num_units,)
        specs: Specs = {}
        if self.use_peepholes:
            spec = ParamSpec(shape, self.initializer or extend.glorot_uniform)
            specs |= dict.fromkeys(self.peepholes, spec)
        if self.layer_norm:
            gamma = ParamSpec(shape, constant(self.norm_gain))
            beta = ParamSpec(shape, constant(self.norm_shift))
            for scope in (*self.gate_scopes, "state"):
                specs[scope] = {"gamma": gamma, "beta": beta}
        return specs

    def blocks_of(self, params: Params, z: Array) -> list[Array]:
        """Splits z into one block per gate; normalizes each if `layer_norm` is True."""
        scopes = self.gate_scopes
        blocks = zip(scopes, jnp.split(z, len(scopes), axis=-1), strict=True)
        return [self.normalized(params, scope, block) for scope, block in blocks]

    def normalized(self, params: Params, scope: str, x: Array) -> Array:
        """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis.

        Epsilon is 1e-12 (1e-3 in float16), and the computation uses at least float32.
        Without `layer_norm`, x is returned unchanged.

        Source: arXiv:1607.06450; `tf.contrib.layers.layer_norm`.
        """
        if not self.layer_norm:
            return x
        epsilon = 1e-3 if x.dtype == jnp.float16 else 1e-12
        wide = x.astype(extend.at_least_float32(x.dtype))
        centered = wide - jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(centered * centered, -1, keepdims=True)
        normal = centered * jax.lax.rsqrt(variance + epsilon)
        gamma = params[scope]["gamma"].astype(wide.dtype)[None, :]
        beta = params[scope]["beta"].astype(wide.dtype)[None, :]
        return (normal * gamma + beta).astype(x.dtype)


class _FourGateLSTM(_LayerNormedLSTM):
    """An LSTM with four gates, in the order i, j, f, o."""

    gate_scopes = ("input", "transform", "forget", "output")
    peepholes = ("w_f_diag", "w_i_diag", "w_o_diag")

    def stage_params(self, params: Params) -> Params:
        """Removes the bias if `layer_norm` is True; see `AffineCell.stage_params`."""
        if not self.layer_norm:
            return params
        return {name: value for name, value in params.items() if name != "bias"}

    def _gates(self, params: Params, z: Array, carry: PyTree) -> tuple[Array, PyTree]:
        c, h, *mask = carry
        i, j, f, o = self.blocks_of(params, z)
        f = add_peephole(params, "w_f_diag", f + self.forget_bias, c)
        i = add_peephole(params, "w_i_diag", i, c)
        g = self.activation(j)
        if mask:
            g = g * mask[0]
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * g
        c = clip_symmetric(self.normalized(params, "state", c), self.cell_clip)
        o = jax.nn.sigmoid(add_peephole(params, "w_o_diag", o, c))
        return self._emit(c, o * self.activation(c), LSTMStateTuple(c, h))


@fields.dataclass
class LayerNormLSTMCell(_FourGateLSTM):
    """An `LSTMCell` with layer normalization.

    Each step computes::

        i, j, f, o = split([x, h] kernel)
        i, j, f, o = LN_input(i), LN_transform(j), LN_forget(f), LN_output(o)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * activation(j)
        c' = clip(LN_state(c'), -cell_clip, cell_clip)
        m  = sigmoid(o + w_o_diag c') * activation(c')
        h' = clip(m projection/kernel, -proj_clip, proj_clip)
        LN(z) = gamma * (z - mean(z)) / sqrt(variance(z) + epsilon) + beta

    Epsilon is 1e-12 (1e-3 in float16). The state stores the normalized c'. Without
    `layer_norm`, the cell computes the same as an `LSTMCell`. With `layer_norm`, the
    parameters contain an unused bias, because checkpoints of TensorFlow contain it.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; `kernel` `[I + P, 4H]`,
    blocks i, j, f, o; `bias` `[4H]`; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`;
    `projection/kernel` `[H, P]`; `gamma` and `beta` `[H]` under each of `input`,
    `transform`, `forget`, `output` and `state`.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The largest magnitude of c', at least 0. Default: no limit.
        initializer: Initializes kernels and peepholes. Default: Glorot uniform.
        num_proj: The size of the projected output, positive. Default: no projection.
        proj_clip: The largest magnitude of h' after a projection, at least 0. Default:
            no limit.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        activation: A function or the name of a Keras activation. Default: tanh.
        layer_norm: Whether to use layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1607.06450; `tf.contrib.rnn.LayerNormLSTMCell`.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None)
    proj_clip: float | None = fields.number(None, low=0)
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    layer_norm: bool = fields.flag(False)
    norm_gain: float = fields.number(1.0)
    norm_shift: float = fields.number(0.0)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    @property
    def equations(self) -> extend.Equations:
        """The equations of an LSTM; see `AffineCell`."""
        return dataclasses.replace(core_lstm(self).equations, has_norms=self.layer_norm)


@final
@fields.dataclass
class LayerNormBasicLSTMCell(_FourGateLSTM):
    """A basic LSTM with layer normalization and recurrent dropout.

    Each step computes::

        i, j, f, o = split([x, h] kernel)
        i, j, f, o = LN_input(i), LN_transform(j), LN_forget(f), LN_output(o)
        g  = dropout(activation(j))
        c' = LN_state(sigmoid(f + forget_bias) * c + sigmoid(i) * g)
        h' = activation(c') * sigmoid(o)
        LN(z) = gamma * (z - mean(z)) / sqrt(variance(z) + epsilon) + beta

    Epsilon is 1e-12 (1e-3 in float16). The state stores the normalized c'. If
    `layer_norm` is False, a `bias` is added instead of the normalization. The random
    key comes from `cell.bind(params, key)`. Without a key, e.g. in evaluation, the cell
    applies no dropout. TensorFlow always applies dropout. Kept entries are scaled by
    `1 / dropout_keep_prob`.

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and
    output `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o. With `layer_norm`,
    `gamma` and `beta` `[H]` under each of `input`, `transform`, `forget`, `output` and
    `state`; otherwise, `bias` `[4H]`.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        activation: A function or the name of a Keras activation. Default: tanh.
        layer_norm: Whether to use layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.
        dropout_keep_prob: The probability of keeping an entry of g, in (0, 1].
        dropout_prob_seed: Cells with different seeds draw different masks from the same
            key. Default: 0.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `dropout_keep_prob` is not in (0, 1],
            `dropout_prob_seed` is not in [0, 2**32), the activation is unknown, or
            `dtype` is not floating-point.

    Source: arXiv:1607.06450 and arXiv:1603.05118;
    `tf.contrib.rnn.LayerNormBasicLSTMCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    input_size: object = fields.unused()
    activation: fields.ActivationLike = fields.activation()
    layer_norm: bool = fields.flag(True)
    norm_gain: float = fields.number(1.0)
    norm_shift: float = fields.number(0.0)
    dropout_keep_prob: float = fields.number(1.0, low=1e-30, high=1)
    dropout_prob_seed: int | None = fields.count(default=None, least=0, most=2**32 - 1)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    @property
    def equations(self) -> extend.Equations:
        """The equations of an LSTM; see `AffineCell`."""
        return dataclasses.replace(core_lstm(self).equations, has_norms=self.layer_norm)

    @property
    def is_random(self) -> bool | None:
        """Whether the cell applies dropout; see `RNNCell.is_random`."""
        return self.dropout_keep_prob < 1

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        bias = ParamSpec((4 * self.num_units,), extend.glorot_uniform)
        return self.stage_params(super().param_specs(depth) | {"bias": bias})

    def enter(self, state: PyTree) -> tuple[Array, PyTree]:
        """Returns h, and the state with the dropout mask if there is one."""
        return state[1], tuple(state)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`. Without a key, there is no dropout.

        Raises:
            ValueError: See `AffineCell.apply`.
            TypeError: See `AffineCell.apply`. Also if `key` is not a random key.
        """
        if key is None or not self.is_random:
            return super().apply(params, inputs, state, key)
        inputs, state = self.checked_step(params, inputs, state, key)
        key = jax.random.fold_in(key, self.dropout_prob_seed or 0)
        mask = jax.random.bernoulli(key, self.dropout_keep_prob, state[0].shape)
        mask = mask.astype(state[0].dtype) / self.dropout_keep_prob
        return self.step(self.stage_params(params), inputs, (*state, mask))

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop of an `AffineCell`, unless dropout is active."""
        if run.key_of_step is not None and self.is_random:
            return Choice.scan(
                f"{type(self).__name__} draws a dropout mask at every step"
            )
        return super().choose_loop(params, run)


@fields.dataclass
class CoupledInputForgetGateLSTMCell(_LayerNormedLSTM):
    """An LSTM whose input gate is 1 minus its forget gate.

    Each step computes::

        j, f, o = split([x, h] W + B)
        F  = sigmoid(f + forget_bias + W_F_diag c)
        c' = F * c + (1 - F) * activation(j)
        m  = sigmoid(o + W_O_diag c') * activation(c')
        h' = clip(m W_P, -proj_clip, proj_clip)

    With `layer_norm`, j, f and o are normalized with the parameters `transform`,
    `forget` and `output`. c' is normalized with the parameters `state`, before it is
    used for the output and stored in the state. The parameters contain an unused B,
    because checkpoints of TensorFlow contain it. The normalization is `LN(z) = gamma *
    (z - mean(z)) / sqrt(variance(z) + epsilon) + beta`, where epsilon is 1e-12 (1e-3 in
    float16).

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; W `[I + P, 3H]`, split by
    rows into `num_unit_shards` variables `W_0`, `W_1` and so on of nearly equal size;
    `B` `[3H]`; `W_F_diag`, `W_O_diag` `[H]`; W_P `[H, P]`, split in the same way into
    `num_proj_shards` variables `W_P_0` and so on; `gamma` and `beta` `[H]` under each
    of `transform`, `forget`, `output` and `state`.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through two diagonal kernels.
        initializer: Initializes W, W_P and the peepholes. Default: Glorot uniform.
            TensorFlow ignores this initializer.
        num_proj: The size of the projected output, positive. Default: no projection.
        proj_clip: The largest magnitude of h' after a projection, at least 0. Default:
            no limit.
        num_unit_shards: The number of variables that store W.
        num_proj_shards: The number of variables that store W_P.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        state_is_tuple: If False, the state is one array `[batch, H + P]`, which holds
            `[c, h]`.
        activation: A function or the name of a Keras activation. Default: tanh.
        layer_norm: Whether to use layer normalization.
        norm_gain: The initial `gamma`.
        norm_shift: The initial `beta`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` or `proj_clip` is negative, `num_proj` or a number of
            shards is not positive, the activation is unknown, or `dtype` is not
            floating-point. `init` also raises ValueError if there are more shards than
            rows.

    Source: arXiv:1503.04069; `tf.contrib.rnn.CoupledInputForgetGateLSTMCell`.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None)
    proj_clip: float | None = fields.number(None, low=0)
    num_unit_shards: int = fields.count(default=1)
    num_proj_shards: int = fields.count(default=1)
    forget_bias: float = fields.number(1.0)
    state_is_tuple: bool = fields.flag(True)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    layer_norm: bool = fields.flag(False)
    norm_gain: float = fields.number(1.0)
    norm_shift: float = fields.number(0.0)
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    gate_scopes = ("transform", "forget", "output")
    peepholes = ("W_F_diag", "W_O_diag")

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        c = self.num_units
        h = self.output_size
        specs = shard_specs(self, "W", depth + h, 3 * c, self.num_unit_shards)
        specs["B"] = ParamSpec((3 * c,), zeros, blocks=3)
        specs |= self.elementwise_specs()
        if self.num_proj is None:
            return specs
        return specs | shard_specs(self, "W_P", c, h, self.num_proj_shards)

    def stage_params(self, params: Params) -> Params:
        """Concatenates the shards; see `AffineCell.stage_params`."""
        staged = {**params, "kernel": joined(params, "W", self.num_unit_shards)}
        if self.num_proj is not None:
            kernel = joined(params, "W_P", self.num_proj_shards)
            staged["projection"] = {"kernel": kernel}
        return staged if self.layer_norm else staged | {"bias": params["B"]}

    def _gates(
        self, params: Params, z: Array, carry: LSTMStateTuple
    ) -> tuple[Array, PyTree]:
        c = carry.c
        j, f, o = self.blocks_of(params, z)
        f = jax.nn.sigmoid(add_peephole(params, "W_F_diag", f + self.forget_bias, c))
        c = f * c + (1 - f) * self.activation(j)
        c = self.normalized(params, "state", c)
        o = jax.nn.sigmoid(add_peephole(params, "W_O_diag", o, c))
        return self._emit(c, o * self.activation(c), carry)


@fields.dataclass
class WeightNormLSTMCell(OfLSTMCell):
    """An `LSTMCell` whose kernel columns have learned norms.

    The kernel is normalized once per run. The rows that multiply x and the rows that
    multiply h are normalized separately::

        kernel = [norm_0 * kernel_x / |kernel_x|; norm_1 * kernel_h / |kernel_h|]

    Here, `|k| = sqrt(max(sum(k ** 2), 1e-12))` holds the norm of each column of k.
    `projection/kernel` is normalized in the same way, with its own `norm_0`.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`. Under `wn_lstm_cell`:
    `kernel` `[I + P, 4H]`, blocks i, j, f, o; `norm_0`, `norm_1` and `bias` `[4H]`;
    `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel` `[H, P]` and
    `projection/norm_0` `[P]`.

    Attributes:
        num_units: `H`, at least 0.
        norm: Whether to normalize the kernels. If False, the cell is a plain
            `LSTMCell`.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The largest magnitude of c', at least 0. Default: no limit.
        initializer: Initializes kernels, norms and peepholes. Default: Glorot uniform.
        num_proj: The size of the projected output, positive. Default: no projection.
        proj_clip: The largest magnitude of h' after a projection, at least 0. Default:
            no limit.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        activation: A function or the name of a Keras activation. Default: tanh.
        name: The name of the step in profiles, and of the scope in checkpoints.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1602.07868; `tf.contrib.rnn.WeightNormLSTMCell`.
    """

    num_units: int = fields.size()
    norm: bool = fields.flag(True)
    use_peepholes: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None)
    proj_clip: float | None = fields.number(None, low=0)
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name("wn_lstm_cell")
    dtype: DType | None = fields.dtype()

    library_cell = property(core_lstm)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        specs = self.library_cell.param_specs(depth)
        if self.norm:
            make = self.initializer or extend.glorot_uniform
            norm = ParamSpec((4 * self.num_units,), make)
            specs |= {"norm_0": norm, "norm_1": norm}
            if self.num_proj is not None:
                norm = ParamSpec((self.num_proj,), make)
                specs["projection"] |= {"norm_0": norm}
        return {"wn_lstm_cell": specs}

    def stage_params(self, params: Params) -> Params:
        """Normalizes the kernels; see `AffineCell.stage_params`."""
        params = dict(params["wn_lstm_cell"])
        if not self.norm:
            return params
        kernel = params["kernel"]
        from_x, from_h = jnp.split(kernel, [kernel.shape[0] - self.output_size])
        from_x = _normalized(from_x, params.pop("norm_0"))
        from_h = _normalized(from_h, params.pop("norm_1"))
        params["kernel"] = jnp.concatenate([from_x, from_h])
        if self.num_proj is not None:
            projection = params["projection"]
            kernel = _normalized(projection["kernel"], projection["norm_0"])
            params["projection"] = {"kernel": kernel}
        return params


def _normalized(kernel: Array, norm: Array) -> Array:
    """Scales each column of `kernel` to its norm in `norm`."""
    wide = kernel.astype(extend.at_least_float32(kernel.dtype))
    squares = jnp.sum(wide * wide, axis=0, keepdims=True)
    normal = wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    return normal.astype(kernel.dtype) * norm[None, :]
