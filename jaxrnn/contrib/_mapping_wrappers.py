"""Wrappers that map a cell's inputs or output: projections, gates, embeddings."""

import math
from typing import final

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant

from jaxrnn import ParamSpec, extend
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
    Specs,
)

from ..decode._ids import Table
from ._mapped_cell import MappedWrapper


class _Projection(MappedWrapper):
    """A wrapper with a matrix product and an activation (None for the identity)."""

    activation: Activation

    def _project(self, own: Params, x: Array) -> Array:
        extend.check_params(own, self.own_specs, x)
        return self.activation(extend.affine(own, [x], x.dtype))


@final
@fields.dataclass
class InputProjectionWrapper(_Projection):
    """Projects the inputs of a cell: `cell(activation(x kernel + bias))`.

    Shapes, for input size `I` and `P = num_proj`: inputs `[batch, I]`; `kernel`
    `[I, P]`; `bias` `[P]`. The wrapper has the same state and output as the wrapped
    cell. The parameters of the wrapped cell are stored under the cell's scope, e.g.
    `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        num_proj: `P`.
        activation: The name of a Keras activation, or a function; None for no
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

    def own_specs(self, depth: int) -> Specs:
        """Specs of the kernel and the bias."""
        return extend.affine_specs(depth, self.num_proj)

    def cell_inputs(self, inputs: PyTree, dtype: DType) -> PyTree:
        """The shape of the projected inputs."""
        return jax.ShapeDtypeStruct((inputs.shape[0], self.num_proj), inputs.dtype)

    def before(self, own: Params, inputs: Array) -> Array:
        """The projected inputs."""
        return self._project(own, inputs)


@final
@fields.dataclass
class OutputProjectionWrapper(_Projection):
    """Projects the output of a cell: `activation(cell(x) kernel + bias)`.

    Shapes, for a wrapped cell whose output is `[batch, H]`, and `P = output_size`:
    output `[batch, P]`; `kernel` `[H, P]`; `bias` `[P]`. The wrapper has the same
    inputs and state as the wrapped cell. The parameters of the wrapped cell are stored
    under the cell's scope, e.g. `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        output_size: `P`.
        activation: The name of a Keras activation, or a function; None for no
            activation.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If `output_size` is not positive, the output of `cell` is not a
            single vector, or the activation is unknown.

    Source: `tf.contrib.rnn.OutputProjectionWrapper`.
    """

    # The default, an invalid size, becomes a class attribute. It hides the read-only
    # property `output_size` of `WrapperCell`.
    output_size: int = fields.count(default=0)
    activation: fields.ActivationLike = fields.activation(none="linear")
    reuse: object = fields.unused()

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

    def after(self, own: Params, inputs: PyTree, output: Array) -> Array:
        """The projected output."""
        return self._project(own, output)


@final
@fields.dataclass
class HighwayWrapper(MappedWrapper):
    """Mixes the inputs and the output of a cell, with gates computed from the inputs.

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

    def before(self, own: Params, inputs: Array) -> Array:
        """Checks the parameters and returns the inputs."""
        extend.check_params(own, self.own_specs, inputs)
        return inputs

    def after(self, own: Params, inputs: Array, output: Array) -> Array:
        """The mixture of inputs and output."""

        def gate(name: str) -> Array:
            weights = {"kernel": own[f"{name}_w"], "bias": own[f"{name}_b"]}
            return jax.nn.sigmoid(extend.affine(weights, [inputs], inputs.dtype))

        carry = gate("carry")
        coupled = self.couple_carry_transform_gates
        transform = 1 - carry if coupled else gate("transform")
        return inputs * carry + output * transform


def _unit_variance(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws uniform numbers with mean 0 and variance 1."""
    limit = math.sqrt(3)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


@final
@fields.dataclass
class EmbeddingWrapper(MappedWrapper):
    """Feeds a cell the embeddings of ids: `cell(embedding[x])`.

    Shapes: inputs `[batch, 1]` or `[batch]`, integers in `[0, embedding_classes)`;
    `embedding` `[embedding_classes, embedding_size]`. The embedding of any other id
    is NaN, whereas TensorFlow raises an error on CPUs and returns zeros on GPUs.
    The wrapper has the same state and output as the wrapped cell. The parameters of
    the wrapped cell are stored under the cell's scope, e.g. `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        embedding_classes: The number of ids.
        embedding_size: The size of an embedding.
        initializer: For the embeddings; None for uniform numbers with variance 1.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If `embedding_classes` or `embedding_size` is not positive.

    Source: `tf.contrib.rnn.EmbeddingWrapper`.
    """

    embedding_classes: int = fields.count()
    embedding_size: int = fields.count()
    initializer: Initializer | None = fields.initializer()
    reuse: object = fields.unused()

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

    def before(self, own: Params, inputs: Array) -> Array:
        """The embeddings of the ids."""
        # The dtype of the ids does not determine the dtype of the parameters, so check
        # the parameters against `embedding` instead of the ids.
        known = own.get("embedding", inputs)
        extend.check_params(own, self.own_specs, known)
        ids = inputs.reshape(inputs.shape[:1])
        last = self.embedding_classes - 1
        if ids.dtype.itemsize < 4:  # A narrow integer might not hold `last`.
            ids = ids.astype(jnp.int32)
        embedded = Table(own["embedding"])(jnp.clip(ids, 0, last))
        is_known = jnp.expand_dims((ids >= 0) & (ids <= last), 1)
        return jnp.where(is_known, embedded, jnp.nan)
