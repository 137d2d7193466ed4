"""A wrapper that lets a cell attend over recent outputs."""

import math

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec, RNNCell, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Key, Params, PyTree, Shaped, Size, Specs


@fields.dataclass
class AttentionCellWrapper(extend.ParamsWrapper):
    """A wrapper that lets a cell attend over the wrapper's last L outputs.

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
        attn_size: `A`; None for the cell's output size.
        attn_vec_size: `V`; None for `attn_size`.
        input_size: `N`; None for the size of the inputs.
        state_is_tuple: False for a state `[batch, S + A + L A]` that concatenates all
            parts; the cell's state must then be one vector.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field has the wrong type.
        ValueError: If a size is not positive, the cell's output or a part of its state
            is not a vector, or `state_is_tuple` is False and the cell's state is a
            nest.

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
        size = self.cell.state_size
        extend.vector_size(self.cell.output_size)
        is_flat = all(
            rank == 1 for rank in jax.tree.leaves(extend.map_sizes(len, size))
        )
        is_leaf = jax.tree_util.all_leaves([size])
        fits = is_flat and (self.state_is_tuple or is_leaf)
        what = "vectors" if self.state_is_tuple else "one vector"
        must = f"be {what} if `state_is_tuple` is {self.state_is_tuple}"
        extend.expect(fits, "cell.state_size", must, size)

    @property
    def _sizes(self) -> tuple[int, int, int, int, int]:
        """The sizes H, S, A, V and L."""
        out = extend.vector_size(self.cell.output_size)
        state = sum(jax.tree.leaves(extend.map_sizes(math.prod, self.cell.state_size)))
        size = self.attn_size or out
        return out, state, size, self.attn_vec_size or size, self.attn_length

    @property
    def state_size(self) -> Size:
        """Sizes `(cell.state_size, A, L A)`; their sum if the state is one array."""
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

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters for inputs `[batch, depth]`; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` are not floating-point, or do not have rank 2.
            TypeError: If `key` is not a random key.
        """
        inputs = extend.check_step_inputs(inputs)
        batch, depth = inputs.shape
        joined = jax.ShapeDtypeStruct((batch, self.input_size or depth), inputs.dtype)
        return self.init_params(key, depth, joined, dtype)

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
        state, context, memory = self._parts(state, inputs)
        joined = extend.affine(own, [inputs, context], inputs.dtype)
        output, state = self.cell.apply(inner, joined, state, key)
        context = self._attend(own["attention"], jax.tree.leaves(state), memory)
        output = extend.affine(
            own["attn_output_projection"], [output, context], inputs.dtype
        )
        memory = jnp.concatenate([memory[:, 1:], output[:, None]], axis=1)
        new_state = state, context, jax.lax.collapse(memory, 1)
        if not self.state_is_tuple:
            new_state = jnp.concatenate(new_state, axis=-1)
        return output, new_state

    def _parts(self, state: PyTree, inputs: Array) -> tuple[PyTree, Array, Array]:
        """The cell's state, the context `[batch, A]` and the memory `[batch, L, A]`."""
        _, cell_size, size, _, length = self._sizes
        if not self.state_is_tuple:
            state = extend.check_state(state, self.state_size, inputs)
            state = jnp.split(state, [cell_size, cell_size + size], axis=-1)
        is_triple = isinstance(state, tuple | list) and len(state) == 3
        must = "be (cell state, context, memory)"
        fix = "Create a state with `cell.zero_state`."
        extend.expect(is_triple, "state", must, state, fix)
        cell_state, context, memory = state
        parts = (context, memory)
        context, memory = extend.check_state(parts, (size, length * size), inputs)
        return cell_state, context, memory.reshape(len(inputs), length, size)

    def _attend(self, params: Params, query: list[Array], memory: Array) -> Array:
        """The context `[batch, A]`; `query` lists the parts of the cell's state."""
        features = jnp.dot(memory, params["attn_w"][0, 0])
        hidden = jnp.tanh(
            features + extend.affine(params, query, memory.dtype)[:, None]
        )
        scores = jnp.sum(params["attn_v"][None, None] * hidden, axis=-1)
        weights = jax.nn.softmax(scores, axis=-1)
        return jnp.sum(weights[..., None] * memory, axis=1)
