"""The attention wrapper."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import TensorArray, TensorShape, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, ArrayLike, DType, Key, Lengths, Params, PyTree, Specs

from . import state as wrapper_state
from .mechanisms import AttentionMechanism
from .memory import as_memories
from .state import Attention, AttentionWrapperState, compute_attention, numbered


@fields.dataclass
class AttentionWrapper(extend.ParamsWrapper):
    """A cell that attends to a memory at each step.

        output, cell_state = cell(cell_input_fn(inputs, attention), cell_state)
        alignments         = attention_mechanism(output, alignments)
        context            = sum over time of alignments * memory
        attention'         = [output, context] attention_layer/kernel

    The memory is part of the state, not of the cell. `initial_state` creates the state:

        state = cell.initial_state(memory, memory_sequence_length)
        outputs, state = dynamic_rnn(cell.bind(params), x, initial_state=state, ...)

    Functions and decoders that run cells therefore need no argument for the memory.
    `packed_rnn` does not support this cell. The keys of the memory are computed once
    per run.

    Shapes, for a cell with outputs of size `O`, memories `[batch, memory_time, M]`, and
    `A = attention_layer_size`, or `M` without a layer: inputs `[batch, I]`; attention
    `[batch, A]`; output `[batch, A]`, or `[batch, O]` with `output_attention=False`.
    Parameters: `memory_layer/kernel` `[M, num_units]`; the mechanism's parameters under
    the mechanism's scope (e.g. `luong_attention/attention_g`);
    `attention_layer/kernel` `[O + M, A]`; the cell's parameters, for inputs
    `[batch, I + A]`, under the cell's scope (e.g. `lstm_cell`). With several
    mechanisms, the attention is the concatenation of their attentions, and the names of
    the second mechanism's layers end in `_1`, of the third's in `_2`, and so on. Equal
    scopes of mechanisms are numbered in the same way.

    Attributes:
        cell: The wrapped cell, which must output a single vector.
        attention_mechanism: The mechanism, or a list or tuple of mechanisms.
        attention_layer_size: `A`, or a sequence with one size per mechanism; None to
            use the contexts as the attention.
        alignment_history: Whether the state collects the alignments of all steps.
        cell_input_fn: `cell_input_fn(inputs, attention)`, which returns the inputs of
            the cell; None to concatenate both arguments.
        output_attention: True to output the attention, False to output the cell's
            output.
        attention_fn: `attention_fn(mechanism, cell_output, attention_state,
            attention_layer) -> (attention, alignments, next_attention_state)`. The
            mechanism is called as `mechanism(query, state) -> (alignments, state)` and
            has `values`, `keys` and `context(alignments)`. None to use the equations
            above.
        dtype: The dtype of new parameters; None for the dtype of the inputs.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `attention_layer_size` does not have one size per mechanism, or
            the size of the cell's output does not match a mechanism.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> from jaxrnn import contrib
        >>> memory, x = jnp.ones((2, 7, 6)), jnp.ones((2, 5, 3))
        >>> mechanism = contrib.LuongAttention(4, memory_depth=6)
        >>> cell = contrib.AttentionWrapper(jaxrnn.LSTMCell(4), mechanism, 8)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, state = jaxrnn.dynamic_rnn(
        ...     cell.bind(params),
        ...     x,
        ...     initial_state=cell.initial_state(memory, [7, 4]),
        ...     dtype=x.dtype,
        ... )
        >>> outputs.shape, state.alignments.shape
        ((2, 5, 8), (2, 7))

    Source: arXiv:1508.04025, arXiv:1409.0473; `tf.contrib.seq2seq.AttentionWrapper`.
    """

    attention_mechanism: Any
    attention_layer_size: Any = None
    alignment_history: bool = fields.flag(False)
    cell_input_fn: Callable[[PyTree, Array], PyTree] | None = fields.checked(
        extend.check_function, default=None
    )
    output_attention: bool = fields.flag(True)
    _: dataclasses.KW_ONLY
    name: str | None = fields.name()
    attention_fn: Callable[..., tuple[Array, Array, PyTree]] | None = fields.checked(
        extend.check_function, default=None
    )
    dtype: DType | None = fields.dtype()

    feature_axes = property(lambda self: None if self.cell_input_fn else 1)
    _has_several = property(lambda self: isinstance(self.attention_mechanism, tuple))
    _mechanisms = property(lambda self: self._several(self.attention_mechanism))

    def __post_init__(self) -> None:
        mechanisms = self.attention_mechanism
        super().__post_init__()
        if isinstance(mechanisms, list):
            object.__setattr__(self, "attention_mechanism", tuple(mechanisms))
        must = "be an AttentionMechanism, or a list of at least one mechanism"
        for mechanism in self._mechanisms or [()]:
            is_mechanism = isinstance(mechanism, AttentionMechanism)
            extend.expect(
                is_mechanism, "attention_mechanism", must, mechanism, error=TypeError
            )
        sizes = self.attention_layer_size
        if sizes is None:
            return
        name = "attention_layer_size"
        count = len(self._mechanisms)
        sizes = sizes if isinstance(sizes, tuple | list) else (sizes,)
        sizes = tuple(extend.as_count(name, n) for n in sizes)
        must = f"have length {count}, with one size per mechanism"
        extend.expect(len(sizes) == count, name, must, len(sizes))
        object.__setattr__(self, name, sizes)

    def _several(self, part: PyTree) -> Sequence[PyTree]:
        """Returns `part` as a sequence with one entry per mechanism."""
        return part if self._has_several else (part,)

    @property
    def _attentions(self) -> list[Attention]:
        sizes = self.attention_layer_size or [None] * len(self._mechanisms)
        scopes = [mechanism.scope for mechanism in self._mechanisms]
        return [
            Attention(
                mechanism,
                attention_fn=self.attention_fn or compute_attention,
                size=sizes[i],
                number=i,
                scope=numbered(mechanism.scope, scopes[:i].count(mechanism.scope)),
            )
            for i, mechanism in enumerate(self._mechanisms)
        ]

    def _without_axis(self, state: AttentionWrapperState) -> AttentionWrapperState:
        """Unpacks the data of a single mechanism that was not passed in a list."""
        if self._has_several:
            return state
        return state.map_mechanisms(lambda entries: entries[0])

    @property
    def is_random(self) -> bool | None:
        """Whether the cell or a mechanism draws random numbers; see `RNNCell`."""
        return any(m.is_random for m in self._mechanisms) or self.cell.is_random

    @property
    def attention_size(self) -> int:
        """The size of the attention."""
        contexts = (mechanism.context_depth() for mechanism in self._mechanisms)
        return sum(self.attention_layer_size or contexts)

    @property
    def output_size(self) -> Any:
        """The size of the attention or of the cell's output."""
        return self.attention_size if self.output_attention else self.cell.output_size

    @property
    def state_size(self) -> AttentionWrapperState:
        """The sizes of the state; None for sizes that depend on the memory."""
        count = len(self._mechanisms)
        alignments = TensorShape._partial([None])
        history = alignments if self.alignment_history else ()
        return self._without_axis(
            AttentionWrapperState(
                cell_state=self.cell.state_size,
                attention=self.attention_size,
                time=TensorShape([]),
                alignments=(alignments,) * count,
                alignment_history=(history,) * count,
                attention_state=(alignments,) * count,
                memory=(extend.ReadOnly(()),) * count,
            )
        )

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """Unsupported, because a zero state would have no memory.

        Raises:
            ValueError: Always.
        """
        must = "be given, because it holds the memory"
        fix = "Create a state with `cell.initial_state(memory)`."
        extend.expect(False, "initial_state", must, None, fix)

    def initial_state(
        self,
        memory: ArrayLike | Sequence[ArrayLike],
        memory_sequence_length: Lengths | Sequence[Lengths | None] | None = None,
        cell_state: PyTree = None,
    ) -> AttentionWrapperState:
        """Creates the initial state, which holds the memory.

        Args:
            memory: The memory, e.g. the outputs of an encoder, floating
                `[batch, memory_time, depth]`. For several mechanisms, pass a tuple with
                one memory per mechanism.
            memory_sequence_length: `[batch]`, integers, clamped to `[0, memory_time]`;
                None for the whole memory. Entries beyond the length have no effect,
                even if they are NaN, and their alignments are zero. A memory of length
                0 gives a context of zeros. For several mechanisms, pass a tuple with
                one entry per mechanism.
            cell_state: The initial state of the wrapped cell, e.g. the encoder's last
                state; None for its zero state.

        Raises:
            TypeError: If an array has the wrong dtype.
            ValueError: If an array has the wrong shape, or the number of memories
                differs from the number of mechanisms.
        """
        lengths = memory_sequence_length
        if lengths is not None:
            lengths = self._several(lengths)
        memories = as_memories(self._mechanisms, self._several(memory), lengths)
        rows = memories[0].memory.shape[0]
        dtype = memories[0].memory.dtype
        if cell_state is None:
            cell_state = self.cell.zero_state(rows, dtype)
        else:
            wrapper_state.check_cell_state(self.cell, cell_state, rows)
        cell_state = extend.as_arrays("cell_state", cell_state)

        times = [memory.memory.shape[1] for memory in memories]

        def alignments() -> tuple[Array, ...]:
            pairs = zip(self._mechanisms, times, strict=True)
            return tuple(m.initial_alignments(rows, time, dtype) for m, time in pairs)

        def history(time: int) -> TensorArray | tuple[()]:
            if not self.alignment_history:
                return ()
            return TensorArray(dtype, 0, True, element_shape=(rows, time))

        return self._without_axis(
            AttentionWrapperState(
                cell_state=cell_state,
                attention=jnp.zeros((rows, self.attention_size), dtype),
                time=jnp.zeros((), jnp.int32),
                # Create two arrays, because JAX cannot donate one buffer twice.
                alignments=alignments(),
                attention_state=alignments(),
                alignment_history=tuple(map(history, times)),
                memory=tuple(map(extend.ReadOnly, memories)),
            )
        )

    def _written(
        self, state: AttentionWrapperState, alignments: tuple[Array, ...]
    ) -> tuple[PyTree, ...]:
        """The history of each mechanism, to which the new alignments are added."""
        if not self.alignment_history:
            return state.alignment_history
        pairs = zip(state.alignment_history, alignments, strict=True)
        return tuple(history.write(state.time, new) for history, new in pairs)

    def own_specs(self, depth: int) -> Specs:
        """Specs of all parameters except the wrapped cell's, for any size of inputs."""
        query_depth = extend.vector_size(self.cell.output_size)
        specs: Specs = {}
        for attention in self._attentions:
            specs |= attention.specs(query_depth)
        return specs

    def init(self, key: Key, inputs: PyTree, dtype: DType = None) -> Params:
        """Creates the parameters of the attention and the cell; see `RNNCell.init`.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys, or the result of `cell_input_fn`
                does not match the cell.
        """
        first = jax.tree.leaves(inputs)[0]
        size = self.attention_size
        attention = jax.ShapeDtypeStruct((first.shape[0], size), first.dtype)
        cell_inputs = jax.eval_shape(self._cell_inputs, inputs, attention)
        return self.init_params(key, size, cell_inputs, dtype or self.dtype)

    def _keys(self, key: Key | None) -> list[Key | None]:
        """The key of the cell, then the key of each mechanism."""
        numbers = range(1 + len(self._mechanisms))
        return [key if key is None else jax.random.fold_in(key, n) for n in numbers]

    def _cell_inputs(self, inputs: PyTree, attention: Array) -> PyTree:
        if self.cell_input_fn is not None:
            return self.cell_input_fn(inputs, attention)
        return jnp.concatenate([inputs, attention], axis=-1)

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Computes the keys of the memory; see `RNNCell.start`."""
        wrapper_state.check_is_state(state)
        own, inner = self.checked_params(params, state.attention, None)
        cell_state = self.cell.start(inner, state.cell_state)
        state = state.map_mechanisms(self._several)
        # Existing keys are recomputed, because they may come from other parameters.
        memory = tuple(
            extend.ReadOnly(attention.with_keys(own, memory.value))
            for attention, memory in zip(self._attentions, state.memory, strict=True)
        )
        return self._without_axis(state._replace(cell_state=cell_state, memory=memory))

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, AttentionWrapperState]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            TypeError: If the state is not an `AttentionWrapperState`, or dtypes differ.
            ValueError: If parameters are missing, or the inputs and the state differ in
                their number of rows.
        """
        wrapper_state.check_is_state(state)
        own, inner = self.checked_params(params, state.attention, key)
        checks_dtype = self.cell_input_fn is None
        wrapper_state.check_rows(state, jax.tree.leaves(inputs)[0], checks_dtype)
        state = state.map_mechanisms(self._several)
        cell_key, *keys = self._keys(key)
        with jax.named_scope(extend.scope_name(self)):
            cell_inputs = self._cell_inputs(inputs, state.attention)
            output, cell_state = self.cell.apply(
                inner, cell_inputs, state.cell_state, cell_key
            )
            parts = (self._attentions, state.memory, state.attention_state, keys)
            attended = [
                attention.attend(own, output, memory.value, old, key)
                for attention, memory, old, key in zip(*parts, strict=True)
            ]
            attentions, alignments, states = zip(*attended, strict=True)
            attention = jnp.concatenate(attentions, axis=-1)
        new_state = self._without_axis(
            state._replace(
                cell_state=cell_state,
                attention=attention,
                time=state.time + jnp.ones((), jnp.int32),
                alignments=alignments,
                alignment_history=self._written(state, alignments),
                attention_state=states,
            )
        )
        return attention if self.output_attention else output, new_state
