"""Cells that map the inputs or outputs of an inner cell for all steps at once.

One of these cells is the intersection cell, which has one gate through time and one
gate through depth.
"""

import functools
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import Choice, ParamSpec, RNNCell, Run, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Key, Params, PyTree, Shaped, Specs

from ._small_cells import UGRNNCell


class MappedCell(RNNCell):
    """A cell that applies one function before an inner cell and another after it.

        given   = before(own, inputs)
        y, s'   = inner(given, s)
        output  = after(own, given, y)

    The functions `before` and `after` map a single step and must treat each row
    separately; None is the identity. `own` holds the parameters of both functions. The
    state is the state of the inner cell.
    """

    inner: Any
    before: Callable[..., PyTree] | None = None
    after: Callable[..., PyTree] | None = None
    split_params: Callable[[Params], tuple[Params, Params]]
    """`split_params(params)` returns `own` and the parameters of the inner cell."""
    checked_inputs: Callable[..., PyTree]
    """`checked_inputs(params, inputs, state, key)` checks and returns the inputs."""

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype does not match the cell and the inputs.
        """
        inputs = self.checked_inputs(params, inputs, state, key)
        own, inner = self.split_params(params)
        given = self.before(own, inputs) if self.before else inputs
        output, state = self.inner.apply(inner, given, state, key)
        return (self.after(own, given, output) if self.after else output), state

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of the inner cell; see `RNNCell.choose_loop`."""
        own, inner = self.split_params(params)
        if self.before:
            before = functools.partial(self.before, own)
            run = run.replace(inputs=jax.eval_shape(jax.vmap(before), run.inputs))
        return self.inner.choose_loop(inner, run).within(self._run)

    def _run(self, loop: Callable, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Maps all inputs, runs the inner cell and maps all outputs."""
        own, inner = self.split_params(params)
        steps = run.steps
        if self.before:
            before = functools.partial(self.before, own)
            mapped = jax.vmap(before)(steps.zero_dead(run.inputs))
            run = run.of_inner(mapped, run.state)
        outputs, state = loop(inner, run)
        if not self.after:
            return outputs, state
        after = functools.partial(self.after, own)
        inputs = run.inputs

        def map_outputs(outputs: PyTree) -> PyTree:
            return steps.zero_dead(jax.vmap(after)(inputs, outputs))

        return steps.map_outputs(map_outputs, outputs), state


class MappedWrapper(extend.ParamsWrapper, MappedCell):
    """A wrapper that maps the inputs or the output of its cell."""

    inner = property(lambda self: self.cell)

    def checked_inputs(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> PyTree:
        """Checks the inputs; the functions and the cell check everything else."""
        return self.step_inputs(inputs)

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks and returns the inputs of one step, as arrays or shapes."""
        return extend.check_step_inputs(inputs)

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """The inputs that the wrapped cell receives, as arrays or shapes."""
        return inputs

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for the wrapper and the cell; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` do not match the wrapper and the cell.
            TypeError: If a dtype does not match, or `key` is not a random key.
        """
        inputs = self.step_inputs(inputs)
        depth = jax.tree.leaves(inputs)[0].shape[-1]
        return self.init_params(key, depth, self.cell_inputs(inputs, dtype), dtype)


@final
@fields.dataclass
class IntersectionRNNCell(MappedCell, extend.SpecsCell):
    """A recurrent cell whose output mixes the inputs with a candidate (+RNN).

        v          = x, or x in_projection/kernel + in_projection/bias
        g, j, q, y = split([v, h] kernel + bias)
        g, q       = sigmoid(g + forget_bias), sigmoid(q + forget_bias)
        h'         = g * h + (1 - g) * tanh(j)
        output     = q * v + (1 - q) * y_activation(y)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `kernel` `[2H, 4H]` and `bias` `[4H]`, blocks g, j, q, y;
    `in_projection/kernel` `[I, H]` and `in_projection/bias` `[H]`, only if I differs
    from H.

    Attributes:
        num_units: `H`, at least 0.
        num_in_proj: With None or 0, the inputs must have size H. With any positive
            number, inputs of other sizes are projected to size H, as in contrib.
        initializer: For the kernels; None for Glorot uniform. The biases are
            initialized to zeros unless `initializer` is an `initializers.by_part` with
            a `bias`.
        forget_bias: Added to g and q at each step; not stored in the bias.
        y_activation: A function, the name of a Keras activation, or None for tanh.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: arXiv:1611.09913; `tf.contrib.rnn.IntersectionRNNCell`.
    """

    num_units: int = fields.size()
    num_in_proj: int | None = fields.count(
        default=None, least=0, fix="For no projection, pass None."
    )
    initializer: Initializer | None = fields.initializer()
    forget_bias: float = fields.number(1.0)
    y_activation: fields.ActivationLike = fields.activation(jax.nn.relu)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order.

        Raises:
            ValueError: If `depth` is not `num_units`, and `num_in_proj` is None or 0.
        """
        size = self.num_units
        kernel = self.initializer or extend.glorot_uniform
        bias = extend.bias_initializer(kernel, zeros)
        specs: Specs = {
            "kernel": ParamSpec((2 * size, 4 * size), kernel, size, 4),
            "bias": ParamSpec((4 * size,), bias, blocks=4),
        }
        if depth == size:
            return specs
        must = f"have depth `num_units` ({size})"
        fix = f"To project the inputs, pass `num_in_proj={size}`."
        extend.expect(self.num_in_proj, "inputs", must, depth, fix)
        kernel = ParamSpec((depth, size), kernel, depth)
        projection = {"kernel": kernel, "bias": ParamSpec((size,), bias)}
        return {"in_projection": projection, **specs}

    @property
    def inner(self) -> "_Recurrence":
        """The inner cell, which has the gate through time."""
        return _Recurrence(
            self.num_units, forget_bias=self.forget_bias, name=extend.scope_name(self)
        )

    def split_params(self, params: Params) -> tuple[Params, Params]:
        """The parameters of q, y and the projection; then the parameters of g and j."""
        inner = {}
        own = dict(params)
        for name in ("kernel", "bias"):
            inner[name], own[name] = jnp.split(params[name], 2, axis=-1)
        return own, inner

    def checked_inputs(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> PyTree:
        """Checks the arguments of a step and returns its inputs."""
        inputs, state = self.checked_step(params, inputs, state, key)
        extend.check_state(state, self.state_size, inputs, wider=False)
        return inputs

    def before(self, own: Params, inputs: Array) -> Array:
        """The inputs, projected if there is a projection."""
        if "in_projection" not in own:
            return inputs
        return extend.affine(own["in_projection"], [inputs], inputs.dtype)

    def after(self, own: Params, inputs: Array, old_state: Array) -> Array:
        """The output, which the gate through depth computes from the old state."""
        z = extend.affine(own, [inputs, old_state], inputs.dtype)
        q, y = jnp.split(z, 2, axis=-1)
        q = jax.nn.sigmoid(q + self.forget_bias)
        return q * inputs + (1 - q) * self.y_activation(y)


@final
class _Recurrence(UGRNNCell):
    """The inner cell of `IntersectionRNNCell`; it outputs the old state for `after`."""

    def _update(self, params: Params, z: Array, state: Array) -> tuple[Array, Array]:
        return state, super()._update(params, z, state)[1]
