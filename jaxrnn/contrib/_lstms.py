"""LSTM variants such as `PhasedLSTMCell`, and core cells under contrib's names."""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant, zeros

from jaxrnn import (
    AffineCell,
    GRUCell,
    LSTMCell,
    LSTMStateTuple,
    ParamSpec,
    Stage,
    extend,
)
from jaxrnn.extend import Choice, Run, fields
from jaxrnn.typing import (
    Array,
    DType,
    Initializer,
    Key,
    Params,
    PyTree,
    Shaped,
    Specs,
)

from .._base.math import clip_symmetric as clip_symmetric
from .._cells.lstm import LSTM as LSTM, add_peephole as add_peephole


def as_counts(least: int) -> Callable[[str, Any], tuple[int, ...]]:
    """Returns the check of a field that is a list of integers of at least `least`."""

    def check(name: str, value: Any) -> tuple[int, ...]:
        fix = "For one entry, pass a list such as `[3]`."
        is_list = isinstance(value, Iterable)
        must = "be a list of integers"
        extend.expect(is_list, name, must, value, fix, error=TypeError)
        entries = enumerate(value)
        return tuple(extend.as_count(f"{name}[{k}]", n, least) for k, n in entries)

    return check


def core_lstm(cell: object, **fields: Any) -> LSTMCell:
    """Creates an `LSTMCell` with `fields`, and copies all other fields from `cell`.

    Fields that `cell` does not have get their defaults.
    """
    names = {field.name for field in dataclasses.fields(LSTMCell)}
    common = {name: getattr(cell, name) for name in names if hasattr(cell, name)}
    return LSTMCell(**common | fields)


def shard_specs(cell: Any, name: str, rows: int, columns: int, shards: int) -> Specs:
    """Specs of a kernel whose rows are split into variables `<name>_0`, `<name>_1`, ...

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    must = f"have at least as many rows as shards ({shards})"
    extend.expect(shards <= rows, name, must, rows, "Choose fewer shards.")
    kernel = cell.initializer or extend.glorot_uniform
    least, longer = divmod(rows, shards)
    sizes = [least + (i < longer) for i in range(shards)]
    return {
        f"{name}_{i}": ParamSpec((size, columns), kernel)
        for i, size in enumerate(sizes)
    }


def joined(params: Params, name: str, shards: int) -> Array:
    """The kernel `name`, concatenated from its shards."""
    return jnp.concatenate([params[f"{name}_{i}"] for i in range(shards)])


class OfLSTMCell(LSTM):
    """The base class of cells that compute with the equations of an `LSTMCell`."""

    library_cell: Any
    """The `LSTMCell` with the same equations as this cell."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the `LSTMCell`."""
        return self.library_cell.stages

    def elementwise_specs(self) -> Specs:
        """Specs of the peepholes; empty without peepholes."""
        return self.library_cell.elementwise_specs()


@final
@fields.dataclass
class LSTMBlockCell(OfLSTMCell):
    """An `LSTMCell` without projection, under the name of TensorFlow's fused operation.

    The cell has the same equations, shapes and parameters as an `LSTMCell`::

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f_diag c) * c
             + sigmoid(i + w_i_diag c) * tanh(j)
        c' = clip(c', -cell_clip, cell_clip)
        h' = sigmoid(o + w_o_diag c') * tanh(c')

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; c, h and output
    `[batch, H]`; `kernel` `[I + H, 4H]`, blocks i, j, f, o; `bias` `[4H]`; `w_i_diag`,
    `w_f_diag`, `w_o_diag` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        cell_clip: The largest magnitude of c'. None, 0 and negative numbers mean no
            limit. Gradients take the clip into account, unlike in TensorFlow.
        use_peephole: Whether the gates read c through three diagonal kernels.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1409.2329; `tf.contrib.rnn.LSTMBlockCell`.
    """

    num_units: int = fields.size()
    forget_bias: float = fields.number(1.0)
    cell_clip: float | None = fields.number(None)
    use_peephole: bool = fields.flag(False)
    dtype: DType | None = fields.dtype()
    reuse: object = fields.unused()
    name: str | None = fields.name("lstm_cell")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell_clip is not None and self.cell_clip <= 0:
            object.__setattr__(self, "cell_clip", None)

    library_cell = property(
        lambda self: core_lstm(self, use_peepholes=self.use_peephole),
        doc="The `LSTMCell` with the same equations as this cell.",
    )

    @property
    def equations(self) -> extend.Equations:
        """The equations of the `LSTMCell`; see `AffineCell`."""
        return self.library_cell.equations


@final
@fields.dataclass
class GRUBlockCellV2(AffineCell[Array]):
    """A `GRUCell` under the name of TensorFlow's fused operation.

    The cell has the same equations, shapes and parameters as a `GRUCell`::

        r, u = split(sigmoid([x, h] gates/kernel + gates/bias))
        c    = tanh([x, r * h] candidate/kernel + candidate/bias)
        h'   = u * h + (1 - u) * c

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, blocks r, u;
    `candidate/kernel` `[I + H, H]`, `candidate/bias` `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        cell_size: The old name of `num_units`. After construction, the field is None,
            and `num_units` holds the size.
        name: The name of the step in profiles.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If both or neither of `num_units` and `cell_size` are given, if the
            given number is negative, or if `dtype` is not floating-point.

    Source: arXiv:1406.1078; `tf.contrib.rnn.GRUBlockCellV2`.
    """

    num_units: int = fields.size(default=None)
    cell_size: int | None = fields.size(default=None)
    reuse: object = fields.unused()
    name: str | None = fields.name("gru_cell")
    dtype: DType | None = fields.dtype()

    @property
    def equations(self) -> extend.Equations:
        """The equations of a GRU; see `AffineCell`."""
        return extend.Equations("gru")

    state_size = output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        is_one = (self.num_units is None) != (self.cell_size is None)
        must = "be given, or else its old name `cell_size`, but not both"
        extend.expect(is_one, "num_units", must, self.num_units)
        if self.num_units is None:
            object.__setattr__(self, "num_units", self.cell_size)
            object.__setattr__(self, "cell_size", None)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the gates, then the stage of the candidate."""
        return GRUCell(self.num_units).stages


_BIASES = ("bias_i", "bias_j", "bias_f", "bias_o")


@fields.dataclass
class GLSTMCell(extend.SpecsCell, extend.ComposedCell):
    """An LSTM whose units are split into `G` groups, each with its own kernel.

    Group g reads only its part of x and h.

    Each step computes::

        i_g, j_g, f_g, o_g = split([x_g, h_g] group<g>/kernel)
        i, j, f, o = concat over g of (i_g, j_g, f_g, o_g) + (bias_i, ..., bias_o)
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
        m  = sigmoid(o) * activation(c')
        h' = m projection/kernel

    The activation of j is always tanh, as in TensorFlow.

    Shapes, for input size `I`, `H = num_units`, `P = num_proj` or `H`, and
    `G = number_of_groups`: inputs `[batch, I]`; c `[batch, H]`; h and output
    `[batch, P]`; `group0/kernel` and so on `[(I + P) / G, 4H / G]`, blocks i, j, f, o;
    `bias_i`, `bias_j`, `bias_f`, `bias_o` `[H]`; `projection/kernel` `[H, P]`.

    Attributes:
        num_units: `H`, at least 0.
        initializer: Initializes all kernels. Default: Glorot uniform. TensorFlow
            ignores this initializer for the projection.
        num_proj: The size of the projected output, positive. Default: no projection.
        number_of_groups: `G`.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        activation: The activation of c', a function or the name of a Keras activation.
            Default: tanh.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `num_units` is negative, `num_proj` or `number_of_groups` is not
            positive, `number_of_groups` does not divide `num_units` or `num_proj`, the
            activation is unknown, or `dtype` is not floating-point. `init` and `apply`
            also raise ValueError if `number_of_groups` does not divide the depth of the
            inputs.

    Source: arXiv:1703.10722; `tf.contrib.rnn.GLSTMCell`.
    """

    num_units: int = fields.size()
    initializer: Initializer | None = fields.initializer()
    num_proj: int | None = fields.count(default=None)
    number_of_groups: int = fields.count(default=1)
    forget_bias: float = fields.number(1.0)
    activation: fields.ActivationLike = fields.activation()
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_divides("num_units", self.num_units)
        self._check_divides("num_proj", self.num_proj or 0)

    def _check_divides(self, name: str, size: int) -> None:
        groups = self.number_of_groups
        must = f"be divisible by `number_of_groups` ({groups})"
        extend.expect(size % groups == 0, name, must, size)

    state_size = property(lambda self: LSTMStateTuple(self.num_units, self.output_size))
    output_size = property(lambda self: self.num_proj or self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        self._check_divides("inputs.shape[-1]", depth)
        groups = self.number_of_groups
        make = self.initializer or extend.glorot_uniform
        rows = depth // groups
        shape = (rows + self.output_size // groups, 4 * self.num_units // groups)
        group = {"kernel": ParamSpec(shape, make, rows, 4)}
        specs: Specs = {f"group{g}": group for g in range(groups)}
        specs |= dict.fromkeys(_BIASES, ParamSpec((self.num_units,), zeros))
        if self.num_proj is not None:
            kernel = ParamSpec((self.num_units, self.num_proj), make, 0, 1)
            specs["projection"] = {"kernel": kernel}
        return specs

    def step(
        self, params: Params, inputs: Array, state: LSTMStateTuple
    ) -> tuple[Array, LSTMStateTuple]:
        """Runs one step; see `SpecsCell.step`."""
        c, h = state
        dtype = jnp.promote_types(c.dtype, h.dtype)
        products = []
        for g, parts in enumerate(
            zip(self._parts(inputs), self._parts(h), strict=True)
        ):
            z = extend.affine(params[f"group{g}"], parts, dtype)
            products.append(jnp.split(z, 4, axis=-1))
        blocks = (jnp.concatenate(parts, -1) for parts in zip(*products, strict=True))
        biases = (params[name].astype(dtype)[None, :] for name in _BIASES)
        i, j, f, o = map(operator.add, blocks, biases)
        c = jax.nn.sigmoid(f + self.forget_bias) * c
        c = c + jax.nn.sigmoid(i) * jnp.tanh(j)
        m = (jax.nn.sigmoid(o) * self.activation(c)).astype(h.dtype)
        if self.num_proj is not None:
            m = extend.affine(params["projection"], [m], dtype).astype(h.dtype)
        return m, LSTMStateTuple(c, m)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of a group; see `RNNCell.choose_loop`."""
        if self.num_proj is not None or self.activation is not jnp.tanh:
            return Choice.scan(
                "a GLSTMCell with a projection or without tanh is not a set of LSTMs"
            )
        return super().choose_loop(params, run)

    # With tanh and without a projection, the groups are independent LSTMs. `compose`
    # runs one group after another, each over all steps.
    maps_inputs = maps_outputs = False
    inner = property(
        lambda self: core_lstm(self, num_units=self.num_units // self.number_of_groups)
    )

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> Array:
        """Runs each group and joins their outputs; see `ComposedCell.compose`."""
        biases = zip(*(self._parts(params[name]) for name in _BIASES), strict=True)
        outputs = []
        for g, (x, bias) in enumerate(zip(self._parts(inputs), biases, strict=True)):
            group = params[f"group{g}"] | {"bias": jnp.concatenate(bias)}
            outputs.append(run_next(group, x))
        return jnp.concatenate(outputs, axis=-1)

    def split_state(self, state: PyTree) -> list[PyTree]:
        """Splits the state into the states of the groups."""
        pairs = zip(*map(self._parts, state), strict=True)
        return [LSTMStateTuple(*pair) for pair in pairs]

    def join_states(self, states: list[PyTree]) -> PyTree:
        """Concatenates the states of the groups."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *states)

    def _parts(self, x: Array) -> list[Array]:
        """Splits an array of all units or inputs into one part for each group."""
        return jnp.split(x, self.number_of_groups, axis=-1)


@fields.dataclass
class NASCell(LSTM):
    """The cell that neural architecture search found for language modeling.

    Each step computes::

        x0, ..., x7 = split(x kernel)
        h0, ..., h7 = split(h recurrent_kernel + bias)
        a0, a2, a5, a7 = sigmoid(xk + hk), each with its own k
        a4, a6 = tanh(xk + hk)
        a1 = relu(x1 + h1)
        a3 = relu(x3 * h3)
        c' = tanh(tanh(a0 * a1) + c) * tanh(a2 + a3)
        m  = tanh(c' * tanh(tanh(a4 * a5) + sigmoid(a6 + a7)))
        h' = m projection_weights

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` or `H`: inputs
    `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; `kernel` `[I, 8H]`;
    `recurrent_kernel` `[P, 8H]`; `bias` `[8H]`, if `use_bias`; `projection_weights`
    `[H, P]`, if there is a projection. Without a projection, `h' = m`.

    Attributes:
        num_units: `H`, at least 0.
        num_proj: The size of the projected output, positive. Default: no projection.
        use_bias: Whether to add a bias.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1611.01578; `tf.contrib.rnn.NASCell`.
    """

    num_units: int = fields.size()
    num_proj: int | None = fields.count(default=None)
    use_bias: bool = fields.flag(False)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the inputs, then the stage of h, then any projection stage."""
        columns = 8 * self.num_units
        inputs = Stage(
            self._pass_inputs, operand_size=0, columns=columns, path="inputs"
        )
        return inputs, *self._gate_stages(self._combine, 8, "state", takes_inputs=False)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        n = self.num_units
        h = self.output_size
        specs: Specs = {
            "recurrent_kernel": ParamSpec(
                (h, 8 * n), extend.glorot_uniform, 0, blocks=8
            ),
            "kernel": ParamSpec((depth, 8 * n), extend.glorot_uniform, depth, blocks=8),
        }
        if self.use_bias:
            specs["bias"] = ParamSpec((8 * n,), zeros, blocks=8)
        if self.num_proj is not None:
            specs["projection_weights"] = ParamSpec(
                (n, h), extend.glorot_uniform, 0, blocks=1
            )
        return specs

    def stage_params(self, params: Params) -> Params:
        """One dict of parameters per stage; see `AffineCell.stage_params`."""
        state = {"kernel": params["recurrent_kernel"]}
        if self.use_bias:
            state["bias"] = params["bias"]
        staged: Params = {"inputs": {"kernel": params["kernel"]}, "state": state}
        if self.num_proj is not None:
            staged["projection"] = {"kernel": params["projection_weights"]}
        return staged

    def _pass_inputs(
        self, params: Params, z: Array, state: LSTMStateTuple
    ) -> tuple[Array, PyTree]:
        return state.h, (z, state)

    def _combine(self, params: Params, z: Array, carry: PyTree) -> tuple[Array, PyTree]:
        from_inputs, state = carry
        sums = jnp.split(from_inputs + z, 8, axis=-1)
        x3, h3 = (jnp.split(part, 8, axis=-1)[3] for part in (from_inputs, z))

        def gate(k: int) -> Array:
            return jax.nn.sigmoid(sums[k])

        memory = jnp.tanh(jnp.tanh(gate(0) * jax.nn.relu(sums[1])) + state.c)
        c = memory * jnp.tanh(gate(2) + jax.nn.relu(x3 * h3))
        exposed = jnp.tanh(jnp.tanh(sums[4]) * gate(5))
        exposed = exposed + jax.nn.sigmoid(jnp.tanh(sums[6]) + gate(7))
        return self._emit(c, jnp.tanh(c * jnp.tanh(exposed)), state)


_TINY = 1e-30  # The least ratio and period, because the time gate divides by both.


@fields.dataclass
class PhasedLSTMCell(extend.SpecsCell):
    """An LSTM whose units update while a time-periodic gate is open.

    The inputs are `(time, x)`; times need not be equally spaced.

    Each step computes::

        i, f = split(sigmoid([x, h] mask_gates/kernel + mask_gates/bias))
        c~   = f * c + i * tanh([x, h] new_input/kernel + new_input/bias)
        h~   = tanh(c~) * sigmoid([x, h] output_gate/kernel + output_gate/bias)
        phi  = ((time - phase) mod period) / period
        k    = 2 phi / ratio_on          if phi < ratio_on / 2
               2 - 2 phi / ratio_on      else if phi < ratio_on
               leak * phi                otherwise
        c', h' = k * c~ + (1 - k) * c, k * h~ + (1 - k) * h

    With peepholes, `mask_gates` reads `[x, h, c]` and `output_gate` reads `[x, h, c~]`.
    As in contrib, the derivative of `a mod b` is 1 with respect to a and 0 with respect
    to b.

    Shapes, for input size `I` and `H = num_units`: inputs `([batch, 1], [batch, I])`;
    c, h and output `[batch, H]`; `mask_gates/kernel` `[I + H, 2H]`, blocks i, f;
    `new_input/kernel` and `output_gate/kernel` `[I + H, H]`; a `bias` for each kernel;
    `period`, `phase`, `ratio_on` `[H]`. With peepholes, the kernels of `mask_gates` and
    `output_gate` have `H` more rows. phi is computed in the wider dtype of the times
    and x. Use float64 times for integers beyond 2 ** 24, which float32 cannot
    represent.

    contrib requires float32 for x, state and parameters. Here, all three may have any
    floating-point dtype.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c.
        leak: The slope of k while the gate is closed, in [0, 1].
        ratio_on: The initial value of the parameter `ratio_on`, the fraction of a
            period during which the gate is open, in (0, 1].
        trainable_ratio_on: Whether gradients flow to the parameter `ratio_on`.
        period_init_min: The least initial period, positive and at most
            `period_init_max`. Initial periods are drawn from
            `exp(U(log(min), log(max)))`, and initial phases from `U(0, period)`.
        period_init_max: The largest initial period.
        dtype: The required dtype of parameters and x. Default: any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1610.09513; `tf.contrib.rnn.PhasedLSTMCell`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jnp.ones((3, 5, 8))  # [batch, time, depth]
        >>> times = jnp.cumsum(x[:, :, :1], axis=1)  # [batch, time, 1]
        >>> cell = jaxrnn.contrib.PhasedLSTMCell(16)
        >>> params = cell.init(jax.random.key(0), (times[:, 0], x[:, 0]))
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params), (times, x), dtype=x.dtype
        ... )
        >>> outputs.shape
        (3, 5, 16)
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    leak: float = fields.number(0.001, low=0, high=1)
    ratio_on: float = fields.number(0.1, low=_TINY, high=1)
    trainable_ratio_on: bool = fields.flag(True)
    period_init_min: float = fields.number(1.0, low=_TINY)
    period_init_max: float = fields.number(1000.0, low=_TINY, high=1e30)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    feature_axes = None  # Inputs are a pair `(time, x)`.
    state_size = property(lambda self: LSTMStateTuple(self.num_units, self.num_units))
    output_size = property(lambda self: self.num_units)

    def __post_init__(self) -> None:
        super().__post_init__()
        low = self.period_init_min
        must = f"not exceed `period_init_max` ({self.period_init_max})"
        extend.expect(low <= self.period_init_max, "period_init_min", must, low)

    def param_specs(self, depth: int) -> Specs:
        """Specs for x of size `depth`; `phase` is drawn as a fraction of the period."""
        units = self.num_units
        rows = depth + units
        peepholes = units if self.use_peepholes else 0
        return {
            "mask_gates": extend.affine_specs(rows + peepholes, 2 * units),
            "new_input": extend.affine_specs(rows, units),
            "output_gate": extend.affine_specs(rows + peepholes, units),
            "period": ParamSpec((units,), self._draw_period),
            "phase": ParamSpec((units,), jax.random.uniform),
            "ratio_on": ParamSpec((units,), constant(self.ratio_on)),
        }

    def _draw_period(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        low = math.log(self.period_init_min)
        high = math.log(self.period_init_max)
        return jnp.exp(jax.random.uniform(key, shape, dtype, low, high))

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `(time, x)`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not a pair of arrays of rank 2, or the dtype is
                not floating-point.
            TypeError: If `key` is not a random key.
        """
        params = super().init(key, self._checked_inputs(inputs)[1], dtype)
        return params | {"phase": params["phase"] * params["period"]}

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`. The step draws no random numbers.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        time, x = self._checked_inputs(inputs)
        x, state = self.checked_step(params, x, state, key)
        with jax.named_scope(extend.scope_name(self)):
            k = self._time_gate(params, time, x.dtype)
            c, h = state

            def product(name: str, *operands: Array) -> Array:
                return extend.affine(params[name], operands, state.c.dtype)

            def gates(name: str, c: Array) -> Array:
                peepholes = [c.astype(h.dtype)] if self.use_peepholes else []
                return jax.nn.sigmoid(product(name, x, h, *peepholes))

            i, f = jnp.split(gates("mask_gates", c), 2, axis=-1)
            c = f * c + i * jnp.tanh(product("new_input", x, h))
            o = gates("output_gate", c)
            candidates = LSTMStateTuple(c, (jnp.tanh(c) * o).astype(h.dtype))
            state = jax.tree.map(
                lambda new, old: (
                    k.astype(old.dtype) * new + (1 - k).astype(old.dtype) * old
                ),
                candidates,
                state,
            )
            return state.h, state

    def _time_gate(self, params: Params, time: Array, dtype: DType) -> Array:
        """The gate k, `[batch, units]`."""
        wide = jnp.promote_types(time.dtype, dtype)
        period, phase, ratio_on = (
            params[name][None, :] for name in ("period", "phase", "ratio_on")
        )
        if not self.trainable_ratio_on:
            ratio_on = jax.lax.stop_gradient(ratio_on)
        period = period.astype(wide)
        elapsed = time.astype(wide) - phase.astype(wide)
        # As in contrib, the derivative of `a mod b` is 1 with respect to a and 0 with
        # respect to b.
        rest = jax.lax.stop_gradient(jnp.mod(elapsed, period) - elapsed)
        phi = ((elapsed + rest) / period).astype(dtype)
        up = 2 * phi / ratio_on
        k = jnp.where(phi < ratio_on, 2 - up, self.leak * phi)
        return jnp.where(phi < 0.5 * ratio_on, up, k)

    def _checked_inputs(self, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Checks and returns `(time, x)`, each an array or its shape."""
        is_pair = isinstance(inputs, tuple | list) and len(inputs) == 2
        must = "be a pair (times, x) of arrays [batch, 1] and [batch, depth]"
        extend.expect(is_pair, "inputs", must, inputs)
        time, x = inputs
        fix = "To add the last axis, pass `times[..., None]`."
        time = extend.check_step_inputs(time, "inputs[0]", (1,), "(the times)", fix)
        return time, extend.check_step_inputs(x, "inputs[1]")
