"""`NTMCell`, the neural Turing machine, and its state."""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant, truncated_normal

from jaxrnn import ParamSpec, RNNCell, TensorShape, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Key, Params, PyTree, Shaped, Specs

from .._base.trees import serializable
from ._lstms import clip_symmetric

_LIKE_TENSORFLOW = "Pass the depth of the inputs, which is TensorFlow's default."


@serializable
class NTMControllerState(NamedTuple):
    """The state of an `NTMCell`: its memory, its heads and the controller's state.

    Attributes:
        controller_state: The state of the controller.
        read_vector_list: The vectors that the read heads have read, a list with one
            array `[batch, memory_vector_dim]` per head.
        w_list: The addresses of the heads, a list with one array `[batch, memory_size]`
            per head. An address holds one weight for each place of the memory.
        M: The memory, `[batch, memory_size, memory_vector_dim]`.
        time: The number of steps that each row has run, `[batch]`. A scalar, as in
            contrib, applies to all rows.

    Source: `tf.contrib.rnn.NTMControllerState`.
    """

    controller_state: PyTree
    read_vector_list: PyTree
    w_list: PyTree
    M: PyTree
    time: PyTree


@fields.dataclass
class NTMCell(extend.ParamsWrapper):
    """A neural Turing machine: a controller cell that reads and writes a memory.

    The controller reads `[x, reads]` and outputs a vector u. The parameters of the
    heads are `u parameters_kernel + parameters_bias`, clipped to
    `[-clip_value, clip_value]`. These parameters contain a key, a strength, a gate,
    shifts and a sharpness for each head, then an erase vector and an add vector for
    each write head. With the memory M and the previous address w of a head::

        v_i = softmax_i(softplus(strength) * cosine(tanh(key), M_i))
        v   = sigmoid(gate) * v + (1 - sigmoid(gate)) * w
        v   = sum_s softmax(shift)_s * roll(v, s)
        w'  = v ** (1 + softplus(sharpness)), divided by its sum
        read  = w' M                                            (each read head)
        M'  = M * (1 - outer(w', sigmoid(erase))) + outer(w', tanh(add))
                                              (each write head, one after another)

    The output is `[u, reads] output_kernel + output_bias`, clipped to the same range.
    At a row's first step (`time` is 0), the initial reads, addresses and memory are
    parameters: `tanh(initial_read_vector_<i>)`, `softmax(initial_address_weights_<i>)`,
    `memory`.

    Shapes, for `S = memory_size`, `V = memory_vector_dim`, `R` read and `W` write
    heads, `C` the size of u, `O = output_dim` and `K = 2 * shift_range + 1`: inputs
    `[batch, I]`; output `[batch, O]`; state an `NTMControllerState`;
    `parameters_kernel` `[C, P]`, `parameters_bias` `[P]` with `P = (V + 3 + K) * (R +
    W) + 2V * W`; `output_kernel` `[C + V * R, O]`, `output_bias` `[O]`;
    `initial_read_vector_<i>` `[1, V]`; `initial_address_weights_<i>` `[1, S]`, read
    heads first; `memory` `[S, V]`. The parameters of the controller are stored under
    the controller's scope.

    Limitations of contrib's cell that this cell avoids:

    - In contrib, `state_size` describes a flattened memory.
    - contrib has a single `time` for all rows, so a sequence in a packed row would
      start from the memory of the previous sequence.
    - contrib supports only float32, and its softmax overflows if a strength is large.
    - With `shift_range=0`, contrib still shifts addresses by one and by two places.

    Attributes:
        controller: The controller, a cell that outputs a single vector.
        memory_size: `S`, at least `2 * shift_range + 1`.
        memory_vector_dim: `V`.
        read_head_num: `R`.
        write_head_num: `W`.
        shift_range: The maximum shift of an address in either direction, in places.
        output_dim: `O`. Required, because a cell must know its output size before it
            reads inputs. In contrib, the default is the size of the inputs.
        clip_value: The largest magnitude of the heads' parameters and of the output.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, `output_dim` is missing, or `dtype` is
            not floating-point.

    Source: arXiv:1410.5401, arXiv:1807.08518; `tf.contrib.rnn.NTMCell`.
    """

    # The base class expects the controller in the field `cell`.
    cell: RNNCell = dataclasses.field(init=False, repr=False, compare=False)
    controller: RNNCell = fields.checked(extend.check_rnn_cell)
    memory_size: int = fields.count()
    memory_vector_dim: int = fields.count()
    read_head_num: int = fields.size()
    write_head_num: int = fields.size()
    shift_range: int = fields.size(default=1)
    output_dim: int = fields.count(default=0, fix=_LIKE_TENSORFLOW)
    clip_value: float = fields.number(20, low=0)
    dtype: DType | None = fields.dtype()
    name: str | None = fields.name()

    output_size = property(lambda self: self.output_dim)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cell", self.controller)
        shifts = 2 * self.shift_range + 1
        must = f"be at least {shifts}, the number of shifts that `shift_range` allows"
        size = self.memory_size
        extend.expect(size >= shifts, "memory_size", must, size)

    @property
    def state_size(self) -> NTMControllerState:
        """The sizes of the state's leaves, without the batch axis."""
        return NTMControllerState(
            self.controller.state_size,
            [self.memory_vector_dim] * self.read_head_num,
            [self.memory_size] * (self.read_head_num + self.write_head_num),
            TensorShape([self.memory_size, self.memory_vector_dim]),
            TensorShape([]),
        )

    def zero_state(self, batch_size: int, dtype: DType) -> NTMControllerState:
        """The controller's zero state, and zeros that the first step replaces."""
        zero = RNNCell.zero_state(self, batch_size, dtype)
        controller_state = self.controller.zero_state(batch_size, dtype)
        return zero._replace(controller_state=controller_state)

    def start(self, params: Params, state: PyTree) -> NTMControllerState:
        """Prepares the controller's part of the state; see `RNNCell.start`."""
        state = NTMControllerState(*state)
        started = super().start(params, state.controller_state)
        return state._replace(controller_state=started)

    @property
    def _sizes(self) -> list[int]:
        """The sizes of each head's parameters, then of the erase and add vectors."""
        heads = self.read_head_num + self.write_head_num
        size = self.memory_vector_dim
        of_head = size + 2 * self.shift_range + 4
        return [of_head] * heads + [size] * 2 * self.write_head_num

    def own_specs(self, depth: int) -> Specs:
        """Specs of all parameters except the controller's."""
        u = extend.vector_size(self.controller.output_size, "controller")
        size = self.memory_vector_dim
        places = self.memory_size
        reads = self.read_head_num
        heads = reads + self.write_head_num

        def product(name: str, rows: int, columns: int) -> Specs:
            normal = truncated_normal(1 / math.sqrt(rows))
            specs = extend.affine_specs(rows, columns, normal)
            return {f"{name}_{part}": spec for part, spec in specs.items()}

        def vectors(name: str, count: int, columns: int) -> Specs:
            spec = ParamSpec((1, columns), extend.glorot_uniform)
            return {f"{name}_{i}": spec for i in range(count)}

        return {
            **product("parameters", u, sum(self._sizes)),
            **product("output", u + size * reads, self.output_dim),
            **vectors("initial_read_vector", reads, size),
            **vectors("initial_address_weights", heads, places),
            "memory": ParamSpec((places, size), constant(1e-6)),
        }

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Creates parameters, including the controller's; see `RNNCell.init`.

        Raises:
            ValueError: If `inputs` do not have rank 2, or the dtype is not
                floating-point.
            TypeError: If `key` is not a random key.
        """
        batch, depth = extend.check_step_inputs(inputs).shape
        depth += self.read_head_num * self.memory_vector_dim
        operand = jax.ShapeDtypeStruct((batch, depth), inputs.dtype)
        return self.init_params(key, depth, operand, dtype or self.dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`. The controller receives the key.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        inputs = extend.check_step_inputs(inputs)
        params, inner = self.checked_params(params, inputs, key)
        state = NTMControllerState(*state)
        # Do not check the state of the controller, which does so itself, and `time`,
        # which may be a scalar.
        own = state._replace(controller_state=(), time=())
        size = self.state_size._replace(controller_state=(), time=())
        extend.check_state(own, size, inputs, wider=False)
        first = jnp.broadcast_to(state.time == 0, state.M.shape[:1])

        def choose(new: Array, old: Array) -> Array:
            """Replaces `old` with `new` in rows that are at their first step."""
            axes = tuple(range(1, old.ndim))
            return jnp.where(jnp.expand_dims(first, axes), new, old)

        with jax.named_scope(extend.scope_name(self)):
            reads = [
                choose(jnp.tanh(params[f"initial_read_vector_{i}"]), old)
                for i, old in enumerate(state.read_vector_list)
            ]
            addresses = [
                choose(jax.nn.softmax(params[f"initial_address_weights_{i}"]), old)
                for i, old in enumerate(state.w_list)
            ]
            memory = choose(params["memory"][None], state.M)
            operand = jnp.concatenate([inputs, *reads], axis=-1)
            u, controller_state = self.controller.apply(
                inner, operand, state.controller_state, key
            )
            z = self._clipped(params, "parameters", [u])
            cuts = list(itertools.accumulate(self._sizes))[:-1]
            heads = iter(jnp.split(z, cuts, axis=-1))
            addresses = [self._address(next(heads), memory, w) for w in addresses]
            read = self.read_head_num
            reads = [jnp.einsum("bs,bsv->bv", w, memory) for w in addresses[:read]]
            for w in addresses[read:]:
                erase = jax.nn.sigmoid(next(heads))
                add = jnp.tanh(next(heads))
                place = w[:, :, None]
                memory = memory * (1 - place * erase[:, None]) + place * add[:, None]
            output = self._clipped(params, "output", [u, *reads])
            return output, NTMControllerState(
                controller_state=controller_state,
                read_vector_list=reads,
                w_list=addresses,
                M=memory,
                time=state.time + 1,
            )

    def _clipped(self, params: Params, name: str, operands: list[Array]) -> Array:
        product = {part: params[f"{name}_{part}"] for part in ("kernel", "bias")}
        z = extend.affine(product, operands, operands[0].dtype)
        return clip_symmetric(z, self.clip_value)

    def _address(self, head: Array, memory: Array, before: Array) -> Array:
        """The new address of a head, `[batch, memory_size]`.

        Args:
            head: The concatenated parameters of the head: key, strength, gate, shifts
                and sharpness.
            memory: `[batch, memory_size, memory_vector_dim]`.
            before: The address before the step.
        """
        size = self.memory_vector_dim
        cuts = size, size + 1, size + 2, head.shape[1] - 1
        key, strength, gate, shift, sharpness = jnp.split(head, cuts, axis=-1)
        key = jnp.tanh(key)
        gate = jax.nn.sigmoid(gate)
        shift = jax.nn.softmax(shift)
        product = jnp.einsum("bsv,bv->bs", memory, key)
        cosine = product / (_norm(memory) * _norm(key)[:, None] + 1e-8)
        found = jax.nn.softmax(jax.nn.softplus(strength) * cosine)
        w = gate * found + (1 - gate) * before
        # As in contrib, the weights are for the shifts 0, then 1, 2, ... places up,
        # then ..., 2, 1 places down.
        reach = self.shift_range
        shifts = [*range(reach + 1), *range(-reach, 0)]
        w = sum(shift[:, i, None] * jnp.roll(w, s, 1) for i, s in enumerate(shifts))
        w = w ** (jax.nn.softplus(sharpness) + 1)
        return w / jnp.sum(w, axis=1, keepdims=True)


def _norm(x: Array) -> Array:
    """The Euclidean norm along the last axis; its derivative at 0 is 0."""
    square = jnp.sum(jnp.square(x), axis=-1)
    is_zero = square == 0
    root = jnp.sqrt(jnp.where(is_zero, jnp.ones_like(square), square))
    return jnp.where(is_zero, jnp.zeros_like(root), root)
