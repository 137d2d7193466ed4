"""LSTMs with separate kernels for groups of units, or for the inputs and the state."""

import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import Choice, LSTMCell, LSTMStateTuple, ParamSpec, Run, Stage, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, PyTree, Specs

from ._contrib_lstm import NO_PROJECTION, ContribLSTM, core_lstm

_BIASES = ("bias_i", "bias_j", "bias_f", "bias_o")


@fields.dataclass
class GLSTMCell(ContribLSTM):
    """An LSTM of `G` groups, each of which reads its own part of x and h.

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
        initializer: For all kernels; None for Glorot uniform. TensorFlow does not use
            the initializer for the projection.
        num_proj: The size of the projected output, positive; None for no projection.
        number_of_groups: `G`.
        forget_bias: Added to f at each step; not stored in the bias.
        activation: The activation of c': None for tanh, the name of a Keras
            activation, or a function.

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
    num_proj: int | None = fields.count(default=None, fix=NO_PROJECTION)
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

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One stage per group, then the projection stage if there is one."""
        groups = self.number_of_groups
        *first, last = (
            Stage(
                self._collect,
                rows=self.output_size // groups,
                columns=4 * self.num_units // groups,
                kernel=self.kernel_initializer,
                bias=None,
                path=f"group{g}",
                blocks=4,
            )
            for g in range(groups)
        )
        return *first, *self.with_projection(last)

    def elementwise_specs(self) -> Specs:
        """Specs of the bias of each block."""
        return dict.fromkeys(_BIASES, ParamSpec((self.num_units,), zeros))

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        self._check_divides("inputs.shape[-1]", depth)
        return super().param_specs(depth // self.number_of_groups)

    def stage_params(self, params: Params) -> Params:
        """Pads each kernel with rows of zeros for the inputs of the other groups."""
        staged = dict(params)
        groups = self.number_of_groups
        for g in range(groups):
            kernel = params[f"group{g}"]["kernel"]
            rows = kernel.shape[0] - self.output_size // groups
            x, h = jnp.split(kernel, [rows])
            x = jnp.pad(x, [(g * rows, (groups - 1 - g) * rows), (0, 0)])
            staged[f"group{g}"] = {"kernel": jnp.concatenate([x, h])}
        return staged

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of a group; see `RNNCell.choose_loop`.

        With tanh and without a projection, the groups are independent LSTMs, and one
        group runs after another. Running the stages would be slower, because each stage
        would also multiply the inputs of the other groups by zeros.
        """
        if self.num_proj is not None or self.activation is not jnp.tanh:
            return super().choose_loop(params, run)
        types = jax.eval_shape(self._parts, (run.inputs, run.state))
        inputs, state = types[0]
        inner = run.replace(inputs=inputs, state=state)
        choice = self._group.choose_loop(params["group0"], inner)
        return choice.within(self._run_groups)

    @property
    def _group(self) -> LSTMCell:
        return core_lstm(self, num_units=self.num_units // self.number_of_groups)

    def _run_groups(
        self, loop: Callable, params: Params, run: Run
    ) -> tuple[PyTree, PyTree]:
        """Runs all steps of one group after another."""
        biases = self._parts([params[name] for name in _BIASES])
        parts = self._parts((run.inputs, run.state, run.steps.restart_states))
        runs = []
        for g, (bias, part) in enumerate(zip(biases, parts, strict=True)):
            inputs, state, restart_states = part
            steps = run.steps.with_restart_states(restart_states)
            own = params[f"group{g}"] | {"bias": jnp.concatenate(bias)}
            inner = run.replace(steps=steps).of_inner(inputs, state)
            runs.append(loop(own, inner))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *runs)

    def _parts(self, tree: PyTree) -> list[PyTree]:
        """Splits arrays of all units or inputs into one part per group."""
        leaves, structure = jax.tree.flatten(tree)
        split = [jnp.split(leaf, self.number_of_groups, axis=-1) for leaf in leaves]
        return [
            structure.unflatten([parts[g] for parts in split])
            for g in range(self.number_of_groups)
        ]

    def enter(self, state: PyTree) -> tuple[Array, PyTree]:
        """The part of h that the first group reads, and the carry."""
        h, *others = jnp.split(state[1], self.number_of_groups, axis=-1)
        return h, (LSTMStateTuple(*state), others, [])

    def _collect(self, params: Params, z: Array, carry: PyTree) -> tuple[Array, PyTree]:
        """Collects the product of a group; after the last group, updates all units."""
        state, others, products = carry
        products = [*products, jnp.split(z, 4, axis=-1)]
        if others:
            return others[0], (state, others[1:], products)
        blocks = (jnp.concatenate(parts, -1) for parts in zip(*products, strict=True))
        biases = (params[name].astype(z.dtype)[None, :] for name in _BIASES)
        i, j, f, o = map(operator.add, blocks, biases)
        c = jax.nn.sigmoid(f + self.forget_bias) * state.c
        c = c + jax.nn.sigmoid(i) * jnp.tanh(j)
        return self.emit(c, jax.nn.sigmoid(o) * self.activation(c), state)


@fields.dataclass
class NASCell(ContribLSTM):
    """The cell that neural architecture search found for language modeling.

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
        num_proj: The size of the projected output, positive; None for no projection.
        use_bias: Whether to add a bias.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1611.01578; `tf.contrib.rnn.NASCell`.
    """

    num_units: int = fields.size()
    num_proj: int | None = fields.count(default=None, fix=NO_PROJECTION)
    use_bias: bool = fields.flag(False)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage of the inputs, then the stage of h, then any projection stage."""
        columns = 8 * self.num_units
        inputs = Stage(self._pass_inputs, rows=0, columns=columns, path="inputs")
        gates = Stage(
            self._combine,
            rows=self.output_size,
            columns=columns,
            path="state",
            takes_inputs=False,
        )
        return inputs, *self.with_projection(gates)

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
        return self.emit(c, jnp.tanh(c * jnp.tanh(exposed)), state)
