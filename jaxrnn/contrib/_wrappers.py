"""Wrappers that add a projection, a highway, an embedding or attention to a cell."""

import math
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import ParamSpec, RNNCell, extend
from jaxrnn.extend import fields
from jaxrnn.typing import (
    Activation,
    Array,
    DType,
    Initializer,
    Key,
    Params,
    PyTree,
    Shaped,
    Size,
    Specs,
)

from ..decode._ids import Table


def activated(activation: Activation, x: Array) -> Array:
    """Applies an activation to x, `[batch, size]` or `[time, batch, size]`."""
    return jax.vmap(activation)(x) if x.ndim > 2 else activation(x)


class _WrapperWithInputs(extend.ParamsWrapper):
    """A wrapper with parameters that may change the inputs of its cell."""

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks and returns the inputs of one step, as arrays or shapes."""
        return extend.check_step_inputs(inputs)

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """Returns the inputs of the wrapped cell, or their shapes."""
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


class _Wrapper(_WrapperWithInputs, extend.ComposedCell):
    """A wrapper that maps the inputs or the output of its cell."""

    def checked_step(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        """Checks the inputs; `compose` and the cell check parameters and state."""
        return self.step_inputs(inputs), state


@final
@fields.dataclass
class InputProjectionWrapper(_Wrapper):
    """Projects the inputs of a cell: `cell(activation(x kernel + bias))`.

    Shapes, for input size `I` and `P = num_proj`: inputs `[batch, I]`; `kernel`
    `[I, P]`; `bias` `[P]`. The wrapper has the same state and output as the wrapped
    cell. The parameters of the wrapped cell are stored under the cell's scope, e.g.
    `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        num_proj: `P`.
        activation: A function or the name of a Keras activation. Default: no
            activation.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If `num_proj` is not positive, or the activation is unknown.

    Source: `tf.contrib.rnn.InputProjectionWrapper`.
    """

    num_proj: int = fields.count()
    activation: fields.ActivationLike = fields.activation(none="linear")
    input_size: object = fields.unused()
    reuse: object = fields.unused()

    maps_outputs = False

    def own_specs(self, depth: int) -> Specs:
        """Specs of the kernel and the bias."""
        return extend.affine_specs(depth, self.num_proj)

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """The shape of the projected inputs."""
        return jax.ShapeDtypeStruct((inputs.shape[0], self.num_proj), inputs.dtype)

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> PyTree:
        """Projects the inputs and runs the cell; see `ComposedCell.compose`."""
        own, inner = self.checked_params(params, inputs, None)
        projected = extend.affine(own, [inputs], inputs.dtype)
        return run_next(inner, activated(self.activation, projected))


@final
@fields.dataclass
class OutputProjectionWrapper(_Wrapper):
    """Projects the output of a cell: `activation(cell(x) kernel + bias)`.

    Shapes, for a wrapped cell whose output is `[batch, H]`, and `P = output_size`:
    output `[batch, P]`; `kernel` `[H, P]`; `bias` `[P]`. The wrapper has the same
    inputs and state as the wrapped cell. The parameters of the wrapped cell are stored
    under the cell's scope, e.g. `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        output_size: `P`.
        activation: A function or the name of a Keras activation. Default: no
            activation.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If `output_size` is not positive, the output of `cell` is not a
            single vector, or the activation is unknown.

    Source: `tf.contrib.rnn.OutputProjectionWrapper`.
    """

    # The default, an invalid size, becomes a class attribute, which hides the read-only
    # property `output_size` of `WrapperCell`.
    output_size: int = fields.count(default=0)
    activation: fields.ActivationLike = fields.activation(none="linear")
    reuse: object = fields.unused()

    maps_inputs = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_specs(0)  # Raises unless the cell outputs a single vector.

    def own_specs(self, depth: int) -> Specs:
        """Specs of the kernel and the bias; `depth` is not used."""
        rows = extend.vector_size(self.cell.output_size)
        return extend.affine_specs(rows, self.output_size)

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Returns the inputs, which the cell checks."""
        return inputs

    def compose(self, run_next: Callable, params: Params, inputs: PyTree) -> Array:
        """Runs the cell and projects its outputs; see `ComposedCell.compose`."""
        own, inner = self.split_params(params)
        outputs = run_next(inner, inputs)
        extend.check_params(own, self.own_specs, outputs)
        projected = extend.affine(own, [outputs], outputs.dtype)
        return activated(self.activation, projected)


@final
@fields.dataclass
class HighwayWrapper(_Wrapper):
    """Mixes the inputs and the output of a cell, with gates computed from the inputs.

    Each step computes::

        carry     = sigmoid(x carry_w + carry_b)
        transform = 1 - carry, or sigmoid(x transform_w + transform_b) if not coupled
        output    = x * carry + cell(x) * transform

    The wrapper has the same state as the wrapped cell. Shapes, for input size `I`,
    which must equal the output size of the wrapped cell: inputs and output
    `[batch, I]`; `carry_w`, `transform_w` `[I, I]`; `carry_b`, `transform_b` `[I]`. The
    parameters of the wrapped cell are stored under the cell's scope, e.g. `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        couple_carry_transform_gates: Whether the transform gate is `1 - carry`.
        carry_bias_init: The initial `carry_b`. The initial `transform_b` is
            `-carry_bias_init`.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.

    Source: arXiv:1505.00387; `tf.contrib.rnn.HighwayWrapper`.
    """

    couple_carry_transform_gates: bool = fields.flag(True)
    carry_bias_init: float = fields.number(1.0)

    def own_specs(self, depth: int) -> Specs:
        """Specs of the kernel and the bias of each gate."""
        gates = {"carry": self.carry_bias_init}
        if not self.couple_carry_transform_gates:
            gates["transform"] = -self.carry_bias_init
        specs = {}
        for gate, bias in gates.items():
            specs[f"{gate}_w"] = ParamSpec((depth, depth), extend.glorot_uniform, depth)
            specs[f"{gate}_b"] = ParamSpec((depth,), constant(bias))
        return specs

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks that the inputs have the size of the cell's output; returns them."""
        size = (extend.vector_size(self.cell.output_size),)
        fix = "To project the inputs, use an `InputProjectionWrapper`."
        return extend.check_step_inputs(
            inputs, "inputs", size, "like the cell's output", fix
        )

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> Array:
        """Runs the cell and mixes its outputs with the inputs; see `ComposedCell`."""
        own, inner = self.checked_params(params, inputs, None)

        def gate(name: str) -> Array:
            weights = {"kernel": own[f"{name}_w"], "bias": own[f"{name}_b"]}
            return jax.nn.sigmoid(extend.affine(weights, [inputs], inputs.dtype))

        carry = gate("carry")
        coupled = self.couple_carry_transform_gates
        transform = 1 - carry if coupled else gate("transform")
        return inputs * carry + run_next(inner, inputs) * transform


def _unit_variance(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws uniform numbers with mean 0 and variance 1."""
    limit = math.sqrt(3)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


@final
@fields.dataclass
class EmbeddingWrapper(_Wrapper):
    """Feeds a cell the embeddings of ids: `cell(embedding[x])`.

    Shapes: inputs `[batch, 1]` or `[batch]`, integers in `[0, embedding_classes)`;
    `embedding` `[embedding_classes, embedding_size]`. The embedding of any other id is
    NaN. TensorFlow raises an error on CPUs and returns zeros on GPUs. The wrapper has
    the same state and output as the wrapped cell. The parameters of the wrapped cell
    are stored under the cell's scope, e.g. `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        embedding_classes: The number of ids.
        embedding_size: The size of an embedding.
        initializer: Initializes the embeddings. Default: uniform numbers with variance
            1.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If `embedding_classes` or `embedding_size` is not positive.

    Source: `tf.contrib.rnn.EmbeddingWrapper`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> ids = jnp.zeros((3, 5, 1), jnp.int32)  # [batch, time, 1]
        >>> cell = jaxrnn.contrib.EmbeddingWrapper(jaxrnn.GRUCell(16), 10, 8)
        >>> params = cell.init(jax.random.key(0), ids[:, 0], jnp.float32)
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params), ids, dtype=jnp.float32
        ... )
        >>> outputs.shape
        (3, 5, 16)
    """

    embedding_classes: int = fields.count()
    embedding_size: int = fields.count()
    initializer: Initializer | None = fields.initializer()
    reuse: object = fields.unused()

    maps_outputs = False

    def own_specs(self, depth: int) -> Specs:
        """Specs of the embeddings."""
        shape = (self.embedding_classes, self.embedding_size)
        return {"embedding": ParamSpec(shape, self.initializer or _unit_variance)}

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks and returns ids, `[batch, 1]` or `[batch]`."""
        is_array = isinstance(inputs, Shaped)
        are_ids = is_array and jnp.issubdtype(inputs.dtype, jnp.integer)
        extend.expect(
            are_ids, "inputs", "be an array of integers", inputs, error=TypeError
        )
        fix = (
            "For ids [batch, time], pass `ids[:, 0]` to `init` and `ids[..., None]` to "
            "`dynamic_rnn`."
        )
        fits = len(inputs.shape) == 1 or inputs.shape[1:] == (1,)
        extend.expect(fits, "inputs", "be [batch, 1] or [batch]", inputs, fix)
        return inputs

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """The shape of the embeddings, which are float32 if `dtype` is None."""
        shape = inputs.shape[0], self.embedding_size
        return jax.ShapeDtypeStruct(shape, dtype or jnp.float32)

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> PyTree:
        """Runs the cell on the embeddings of the ids; see `ComposedCell.compose`."""
        own, inner = self.split_params(params)
        # Ids are integers and do not determine the dtype of the parameters. So compare
        # all parameters with the dtype of `embedding`.
        extend.check_params(own, self.own_specs, own.get("embedding", inputs))
        ids = inputs if inputs.ndim == 1 else inputs[..., 0]
        last = self.embedding_classes - 1
        if ids.dtype.itemsize < 4:  # A narrow integer might not hold `last`.
            ids = ids.astype(jnp.int32)
        embedded = Table(own["embedding"])(jnp.clip(ids, 0, last))
        is_known = ((ids >= 0) & (ids <= last))[..., None]
        return run_next(inner, jnp.where(is_known, embedded, jnp.nan))


@fields.dataclass
class AttentionCellWrapper(_WrapperWithInputs):
    """Adds attention over the last L outputs to a cell.

    Each step computes::

        y, s'   = cell([x, a] kernel + bias, s)
        score_l = sum(attn_v * tanh(m_l attn_w + q)), with
        q       = [s'] attention/kernel + attention/bias
        a'      = sum over l of softmax(score)_l m_l
        output  = [y, a'] attn_output_projection/kernel + attn_output_projection/bias
        m'      = m_2, ..., m_L, output

    `[s']` is the concatenation of all parts of the cell's new state. The memory m
    starts as zeros, and these zeros are included in the softmax.

    Shapes, for input size `I`, `A = attn_size`, `V = attn_vec_size`, `N = input_size`,
    `L = attn_length`, a cell with output `[batch, H]` and a state of S numbers: inputs
    `[batch, I]`; output `[batch, A]`; state `(s, a, m)` with `a` `[batch, A]` and `m`
    `[batch, L A]`; `kernel` `[I + A, N]`, `bias` `[N]`; under `attention`: `attn_w`
    `[1, 1, A, V]`, `attn_v` `[V]`, `kernel` `[S, V]`, `bias` `[V]`; under
    `attn_output_projection`: `kernel` `[H + A, A]`, `bias` `[A]`. The parameters of
    the wrapped cell are stored under the cell's scope, e.g. `lstm_cell`.

    Attributes:
        cell: The wrapped cell.
        attn_length: `L`.
        attn_size: `A`. Default: the cell's output size.
        attn_vec_size: `V`. Default: `attn_size`.
        input_size: `N`. Default: the size of the inputs.
        state_is_tuple: If False, the state is one array `[batch, S + A + L A]`, and the
            state of the cell must be one vector.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If a size is not positive, the cell's output is not a vector, or
            `state_is_tuple` is False and the cell's state is not one vector.

    Source: arXiv:1601.06733; `tf.contrib.rnn.AttentionCellWrapper`.
    """

    attn_length: int = fields.count()
    attn_size: int | None = fields.count(default=None)
    attn_vec_size: int | None = fields.count(default=None)
    input_size: int | None = fields.count(default=None)
    state_is_tuple: bool = fields.flag(True)
    reuse: object = fields.unused()

    @property
    def output_size(self) -> int:
        """The size of the output, `A`."""
        return self._sizes[2]

    def __post_init__(self) -> None:
        super().__post_init__()
        extend.vector_size(self.cell.output_size)
        if not self.state_is_tuple:
            must = "be one vector if `state_is_tuple` is False"
            extend.vector_size(self.cell.state_size, "cell.state_size", must)

    @property
    def _sizes(self) -> tuple[int, int, int, int, int]:
        """The sizes H, S, A, V and L."""
        out = extend.vector_size(self.cell.output_size)
        state = sum(jax.tree.leaves(extend.map_sizes(math.prod, self.cell.state_size)))
        size = self.attn_size or out
        return out, state, size, self.attn_vec_size or size, self.attn_length

    @property
    def state_size(self) -> Size:
        """`(cell.state_size, A, L A)`, or the sum if the state is one array."""
        _, _, size, _, length = self._sizes
        sizes = self.cell.state_size, size, length * size
        return sizes if self.state_is_tuple else sum(sizes)

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The wrapped cell's zero state, and zeros for the context and the memory."""
        zero = RNNCell.zero_state(self, batch_size, dtype)
        if not self.state_is_tuple:
            return zero
        return self.cell.zero_state(batch_size, dtype), *zero[1:]

    def own_specs(self, depth: int) -> Specs:
        """Specs of the parameters of the three matrix products and of the scores."""
        out, state, size, vector, _ = self._sizes
        joined = self.input_size or depth
        # In TensorFlow, `attn_w` is the kernel of a convolution, with fan-in A and
        # fan-out V.
        attn_w = jax.nn.initializers.glorot_uniform()
        return {
            **extend.affine_specs(depth + size, joined),
            "attention": {
                "attn_w": ParamSpec((1, 1, size, vector), attn_w),
                "attn_v": ParamSpec((vector,), extend.glorot_uniform),
                **extend.affine_specs(state, vector),
            },
            "attn_output_projection": extend.affine_specs(out + size, size),
        }

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """The shape of the cell's inputs, `[batch, N]`."""
        batch, depth = inputs.shape
        return jax.ShapeDtypeStruct((batch, self.input_size or depth), inputs.dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If the state or a parameter does not match the cell and the
                inputs.
            TypeError: If a dtype does not match the cell and the inputs.
        """
        inputs = extend.check_step_inputs(inputs)
        own, inner = self.checked_params(params, inputs, key)
        # The cell's state, the context [batch, A] and the memory [batch, L, A].
        _, cell_size, size, _, length = self._sizes
        if not self.state_is_tuple:
            state = extend.check_state(state, self.state_size, inputs)
            state = jnp.split(state, [cell_size, cell_size + size], axis=-1)
        is_triple = isinstance(state, tuple | list) and len(state) == 3
        must = "be (cell state, context, memory)"
        fix = "Create a state with `cell.zero_state`."
        extend.expect(is_triple, "state", must, state, fix)
        state, *parts = state
        context, memory = extend.check_state(parts, [size, length * size], inputs)
        memory = memory.reshape(len(inputs), length, size)
        joined = extend.affine(own, [inputs, context], inputs.dtype)
        output, state = self.cell.apply(inner, joined, state, key)
        # Attend over the memory, with the cell's new state as the query.
        attention = own["attention"]
        query = extend.affine(attention, jax.tree.leaves(state), memory.dtype)
        features = jnp.dot(memory, attention["attn_w"][0, 0])
        hidden = jnp.tanh(features + query[:, None])
        scores = jnp.sum(attention["attn_v"][None, None] * hidden, axis=-1)
        weights = jax.nn.softmax(scores, axis=-1)
        context = jnp.sum(weights[..., None] * memory, axis=1)
        output = extend.affine(
            own["attn_output_projection"], [output, context], inputs.dtype
        )
        memory = jnp.concatenate([memory[:, 1:], output[:, None]], axis=1)
        new_state = state, context, jax.lax.collapse(memory, 1)
        if not self.state_is_tuple:
            new_state = jnp.concatenate(new_state, axis=-1)
        return output, new_state
