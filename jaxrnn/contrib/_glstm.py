"""The LSTM of groups of units that do not see each other."""

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from jaxrnn import DeclinedError, LSTMStateTuple, ParamSpec, Stage, Steps

from .._base.cell_keys import check_key_of_step
from .._base.math import affine
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from .._cells.initializers import glorot_uniform, zeros
from ._contrib_lstm import ContribLSTM
from ._fields import set_counts

_BIASES = ("bias_i", "bias_j", "bias_f", "bias_o")


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GLSTMCell(ContribLSTM):
    """An LSTM of `G` groups, each of which reads its part of x and of h.

        i_g, j_g, f_g, o_g = split([x_g, h_g] group<g>/kernel)
        i, j, f, o = the concatenation of those of all groups, and bias_i, ..., bias_o
        c' = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
        m  = sigmoid(o) * activation(c')
        h' = m projection/kernel

    The activation of j is always tanh, as in TensorFlow.

    Shapes, for input size `I`, `H = num_units`, `P = num_proj` or `H`, and
    `G = number_of_groups`: inputs `[batch, I]`; c `[batch, H]`; h and output
    `[batch, P]`; `group0/kernel` and so on `[(I + P) / G, 4H / G]`, blocks i, j, f, o;
    `bias_i`, `bias_j`, `bias_f`, `bias_o` `[H]`; `projection/kernel` `[H, P]`.

    Attributes:
        num_units: `H`.
        initializer: For all kernels; None for Glorot uniform. TensorFlow does not use
            it for the projection.
        num_proj: `P`, or None for no projection.
        number_of_groups: `G`.
        forget_bias: Added to f at each step; not part of the stored bias.
        activation: That of c': None for tanh, the name of a Keras activation, or a
            function.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `num_units` is negative, `num_proj` or `number_of_groups` not
            positive, the groups cannot divide `num_units` or `num_proj`, the activation
            is not known, or `dtype` is not floating. From `init` and `apply`, if they
            cannot divide the inputs.

    Source: arXiv:1703.10722; `tf.contrib.rnn.GLSTMCell`.
    """

    num_units: int
    initializer: Initializer | None = None
    num_proj: int | None = None
    number_of_groups: int = 1
    forget_bias: float = 1.0
    activation: Any = None
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers: it does not."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        set_counts(self, "number_of_groups")
        for field in ("num_units", "num_proj"):
            self._check_divides(f"`{field}`", getattr(self, field) or 0)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One product for the four blocks; then the projection, if any."""
        (c, h), kernel = self.sizes, self.initializer or glorot_uniform
        gates = Stage(self._gates, h, 4 * c, kernel, zeros, blocks=4)
        return self.with_projection(gates, kernel)

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        self._check_divides("the depth of `inputs`", depth)
        (c, h), groups = self.sizes, self.number_of_groups
        make = self.initializer or glorot_uniform
        shape = ((depth + h) // groups, 4 * c // groups)
        group = {"kernel": ParamSpec(shape, make, depth // groups, 4)}
        specs: dict[str, Any] = {f"group{g}": group for g in range(groups)}
        specs |= dict.fromkeys(_BIASES, ParamSpec((c,), zeros))
        return specs | (self.stages[1].specs(0) if self.num_proj else {})

    def stage_params(self, params: Params) -> Params:
        """Those of one group under the names of the stages; several have no such form.

        Raises:
            DeclinedError: If there are several groups.
        """
        if self.number_of_groups > 1:
            raise DeclinedError("each group has a kernel of its own")
        kernel, projection = params["group0"]["kernel"], params.keys() & {"projection"}
        staged = {"kernel": kernel, "bias": _joined_bias(params)}
        return staged | {name: params[name] for name in projection}

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step, with a small product for each group; see `AffineCell.apply`."""
        check_key_of_step(type(self).__name__, key)
        inputs, state = self._checked(params, inputs, state)
        return self.chain(self._product_by_group, params, inputs, state)[:2]

    def apply_sequence(
        self,
        params: Params,
        inputs: Array,
        state: PyTree,
        steps: Steps,
        keys: Any = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """All steps at once, group by group; see `AffineCell.apply_sequence`.

        Raises:
            DeclinedError: If a projection joins several groups at every step, or as
                `AffineCell.apply_sequence`.
        """
        if self.number_of_groups == 1:
            return self.run_stages(params, inputs, state, steps, implementation)
        if self.num_proj is not None:
            raise DeclinedError("the projection joins the groups at every step")
        groups = self._parts((inputs, state, steps.restart_states))
        runs = []
        for g, (inputs, state, restart_states) in enumerate(groups):
            biases = {name: self._parts(params[name])[g] for name in _BIASES}
            group_steps = steps.with_restart_states(restart_states)
            runs.append(
                self._group.run_stages(
                    biases | {"group0": params[f"group{g}"]},
                    inputs,
                    state,
                    group_steps.with_stand_in(inputs, state),
                    implementation,
                )
            )
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *runs)

    @property
    def _group(self) -> "GLSTMCell":
        units = self.num_units // self.number_of_groups
        return dataclasses.replace(self, num_units=units, number_of_groups=1)

    def _parts(self, tree: PyTree) -> list[PyTree]:
        """The parts of all groups."""
        leaves, structure = jax.tree.flatten(tree)
        split = (jnp.split(leaf, self.number_of_groups, axis=-1) for leaf in leaves)
        return [structure.unflatten(part) for part in zip(*split, strict=True)]

    def _product_by_group(self, k: int, stage: Stage, *args: Any) -> Array:
        """The product of stage k, where that of the gates is made of the groups'."""
        if k:
            return stage.product(*args)
        params, inputs, operand, dtype = args
        products = [
            affine(params[f"group{g}"], pair, dtype)
            for g, pair in enumerate(self._parts((inputs, operand)))
        ]
        by_gate = zip(*(jnp.split(z, 4, axis=-1) for z in products), strict=True)
        z = jnp.concatenate([part for gate in by_gate for part in gate], axis=-1)
        return z + _joined_bias(params).astype(dtype)[None, :]

    def _check_divides(self, what: str, size: int) -> None:
        if size % self.number_of_groups:
            raise ValueError(
                f"GLSTMCell: {what} must be divisible by `number_of_groups`, "
                f"{self.number_of_groups}, got {size}."
            )

    def _gates(
        self, params: Params, z: Array, state: LSTMStateTuple
    ) -> tuple[Array, PyTree]:
        i, j, f, o = jnp.split(z, 4, axis=-1)
        kept = jax.nn.sigmoid(f + self.forget_bias) * state.c
        c = kept + jax.nn.sigmoid(i) * jnp.tanh(j)
        return self.emit(c, jax.nn.sigmoid(o) * self.activation(c), state)


def _joined_bias(params: Params) -> Array:
    return jnp.concatenate([params[name] for name in _BIASES])
