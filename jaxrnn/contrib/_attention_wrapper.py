"""`AttentionWrapper`, a cell that attends to a memory, and its state."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec, TensorArray, TensorShape, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, ArrayLike, DType, Key, Lengths, Params, PyTree, Specs

from .._base.trees import serializable, with_tuples_of
from ._attention_mechanisms import AttentionMechanism, AttentionMemory, as_memories


@serializable
class AttentionWrapperState(NamedTuple):
    """The state of an `AttentionWrapper`; `cell.initial_state` creates one.

    With several mechanisms, `alignments`, `alignment_history`, `attention_state` and
    `memory` are tuples with one entry per mechanism.

    Attributes:
        cell_state: The state of the wrapped cell.
        attention: The attention of the previous step, `[batch, attention_size]`.
        time: The number of steps so far, an int32 scalar.
        alignments: The weights of the memory entries in the previous step,
            `[batch, memory_time]`.
        alignment_history: A TensorArray of the alignments of all steps, or `()` if the
            wrapper's `alignment_history` is False.
        attention_state: The state of the mechanism, by default equal to `alignments`.
        memory: The memory and, once a run has started, its keys. The memory is
            read-only, so loops neither mask nor reorder its rows.

    Source: `tf.contrib.seq2seq.AttentionWrapperState`, which has no memory.
    """

    cell_state: PyTree
    attention: PyTree
    time: PyTree
    alignments: PyTree
    alignment_history: PyTree
    attention_state: PyTree
    memory: PyTree = ()

    def map_mechanisms(self, fn: Callable[[PyTree], PyTree]) -> "AttentionWrapperState":
        """Applies `fn` to each field that has one entry per mechanism."""
        return self._replace(
            alignments=fn(self.alignments),
            alignment_history=fn(self.alignment_history),
            attention_state=fn(self.attention_state),
            memory=fn(self.memory),
        )

    def clone(self, **fields: PyTree) -> "AttentionWrapperState":
        """Returns a copy of the state in which `fields` replace values of equal shapes.

        Raises:
            ValueError: If a shape differs.
            TypeError: If a structure differs.
        """
        state = with_tuples_of(self, self._replace(**fields))
        _check_shapes("state", state, self)
        return state


@dataclasses.dataclass(frozen=True)
class BoundMechanism:
    """A mechanism with its parameters and memory, as `attention_fn` receives it.

    Attributes:
        mechanism: The hyperparameters.
        params: The parameters of the mechanism, without the memory layer.
        memory: The memory, with its keys.
        key: The random key of the step. None if the cell is bound without a key.
    """

    mechanism: AttentionMechanism
    params: Params
    memory: AttentionMemory
    key: Key | None = None

    values = property(lambda self: self.memory.values)
    keys = property(lambda self: self.memory.keys)

    def __call__(self, query: Array, state: Array) -> tuple[Array, Array]:
        """Computes `(alignments, next_state)`, both `[batch, memory_time]`.

        Args:
            query: `[batch, query_depth]`. If the batch size is a multiple of the
                memory's batch size, adjacent rows, e.g. beams, share a row of the
                memory.
            state: The state of the mechanism, by default the previous alignments.
        """
        mechanism = self.mechanism
        score = mechanism.score(
            self.params, self.grouped(query), self.keys, self.grouped(state)
        )
        valid = self.memory.valid
        if valid is not None:
            masked = mechanism.score_mask_value
            masked = jnp.asarray(-jnp.inf if masked is None else masked, score.dtype)
            # If a memory has length 0, set all its scores to 0, because softmax returns
            # NaN if all scores are minus infinity.
            masked = jnp.where(valid[:, None, :1], masked, jnp.zeros_like(masked))
            score = jnp.where(valid[:, None], score, masked)
        score = score.reshape(state.shape)
        alignments = mechanism.probabilities(score, state, self.key)
        if valid is not None:
            grouped = self.grouped(alignments)
            alignments = jnp.where(valid[:, None, :1], grouped, jnp.zeros_like(grouped))
            alignments = alignments.reshape(state.shape)
        return alignments, mechanism.next_state(alignments, state)

    def context(self, alignments: Array) -> Array:
        """Computes the context `[batch, depth]`, the weighted sum of the values."""
        context = jnp.einsum("bqt,btd->bqd", self.grouped(alignments), self.values)
        return context.reshape(alignments.shape[0], context.shape[-1])

    def grouped(self, x: Array) -> Array:
        """Reshapes `[batch, n]` to `[memory rows, queries, n]`."""
        rows = self.values.shape[0]
        return x.reshape(rows, x.shape[0] // max(rows, 1), x.shape[1])


def compute_attention(
    attention_mechanism: BoundMechanism,
    cell_output: Array,
    attention_state: Array,
    attention_layer: Callable[[Array], Array] | None,
) -> tuple[Array, Array, Array]:
    """Runs one step of attention; the default `attention_fn`.

    Args:
        attention_mechanism: The mechanism, with its memory.
        cell_output: `[batch, query_depth]`.
        attention_state: The state of the mechanism, `[batch, memory_time]`.
        attention_layer: Maps the concatenated output and context to the attention. If
            None, the context is the attention.

    Returns:
        `(attention, alignments, next_attention_state)`.

    Source: arXiv:1508.04025.
    """
    alignments, next_state = attention_mechanism(cell_output, attention_state)
    context = attention_mechanism.context(alignments)
    if attention_layer is None:
        return context, alignments, next_state
    joined = jnp.concatenate([cell_output, context], axis=-1)
    return attention_layer(joined), alignments, next_state


def _as_mechanisms(name: str, given: object) -> Any:
    """A mechanism, or a tuple of at least one mechanism."""
    is_list = isinstance(given, tuple | list)
    mechanisms = tuple(given) if is_list else (given,)
    fits = mechanisms and all(isinstance(m, AttentionMechanism) for m in mechanisms)
    must = "be an AttentionMechanism, or a list of at least one mechanism"
    extend.expect(fits, name, must, given, error=TypeError)
    return mechanisms if is_list else given


@fields.dataclass
class AttentionWrapper(extend.ParamsWrapper):
    """A cell that attends to a memory at each step.

    Each step computes::

        output, cell_state = cell(cell_input_fn(inputs, attention), cell_state)
        alignments         = attention_mechanism(output, alignments)
        context            = sum over time of alignments * memory
        attention'         = [output, context] attention_layer/kernel

    The state contains the memory, so loops and decoders need no argument for it.
    `initial_state` creates the state::

        state = cell.initial_state(memory, memory_sequence_length)
        outputs, state = dynamic_rnn(cell.bind(params), x, initial_state=state, ...)

    The keys of the memory are computed once per run.

    Shapes, for a cell with outputs of size `O`, memories `[batch, memory_time, M]`, and
    `A = attention_layer_size`, or `M` without a layer: inputs `[batch, I]`; attention
    `[batch, A]`; output `[batch, A]`, or `[batch, O]` with `output_attention=False`.
    Parameters: `memory_layer/kernel` `[M, num_units]`; the mechanism's parameters under
    the mechanism's scope (e.g. `luong_attention/attention_g`); `attention_layer/kernel`
    `[O + M, A]`; the cell's parameters, for inputs `[batch, I + A]`, under the cell's
    scope (e.g. `lstm_cell`). With several mechanisms, the attention is the
    concatenation of their attentions. The layers of the second mechanism are named
    `memory_layer_1` and `attention_layer_1`, and so on. Equal scopes of mechanisms are
    numbered in the same way, e.g. `luong_attention_1`.

    Attributes:
        cell: The wrapped cell, which must output a single vector.
        attention_mechanism: The mechanism, or a list or tuple of mechanisms.
        attention_layer_size: `A`, or a sequence with one size per mechanism. If None,
            the contexts are the attention.
        alignment_history: Whether the state collects the alignments of all steps.
        cell_input_fn: `cell_input_fn(inputs, attention)`, which returns the inputs of
            the cell. By default, both arguments are concatenated.
        output_attention: Whether the output is the attention. If False, the output is
            the cell's output.
        attention_fn: `attention_fn(mechanism, cell_output, attention_state,
            attention_layer) -> (attention, alignments, next_attention_state)`. In this
            function, call `mechanism(query, state) -> (alignments, state)` and
            `mechanism.context(alignments)`, or read `mechanism.keys` and
            `mechanism.values`. By default, the equations above are used.
        dtype: The dtype of new parameters. Default: the dtype of the inputs.

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

    attention_mechanism: Any = fields.checked(_as_mechanisms)
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
        super().__post_init__()
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
    def _scopes(self) -> list[str]:
        """The scope of each mechanism's own parameters."""
        scopes = [mechanism.scope for mechanism in self._mechanisms]
        counts = [scopes[:i].count(scope) for i, scope in enumerate(scopes)]
        return list(map(_numbered, scopes, counts))

    def _without_axis(self, state: AttentionWrapperState) -> AttentionWrapperState:
        """Removes the tuples of length 1 if `attention_mechanism` is not a list."""
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
        """The sizes of the state. Sizes that depend on the memory are None."""
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
        must = "`initial_state` must be given, because it contains the memory"
        fix = "Call the unbound wrapper's method `initial_state(memory)`."
        raise ValueError(f"{must}. {fix}")

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
            memory_sequence_length: The length of each row's memory, `[batch]`,
                integers, clamped to `[0, memory_time]`. Default: the whole memory.
                Entries beyond the length have no effect, even if they are NaN, and
                their alignments are zero. A memory of length 0 gives a context of
                zeros. For several mechanisms, pass a tuple with one entry per
                mechanism.
            cell_state: The initial state of the wrapped cell, e.g. the encoder's last
                state. By default, the zero state of the wrapped cell.

        Raises:
            TypeError: If an array has the wrong dtype.
            ValueError: If an array has the wrong shape, or the number of memories
                differs from the number of mechanisms.
        """
        lengths: Any = (None,) * len(self._mechanisms)
        if memory_sequence_length is not None:
            lengths = self._several(memory_sequence_length)
        memories = as_memories(self._mechanisms, self._several(memory), lengths)
        rows = memories[0].memory.shape[0]
        dtype = memories[0].memory.dtype
        zeros = self.cell.zero_state(rows, dtype)
        cell_state = zeros if cell_state is None else cell_state
        fix = "Pass a state of the wrapped cell."
        _check_shapes("cell_state", cell_state, zeros, fix)
        cell_state = extend.as_arrays("cell_state", cell_state)

        shapes = [memory.memory.shape[:2] for memory in memories]

        def alignments() -> tuple[Array, ...]:
            pairs = zip(self._mechanisms, shapes, strict=True)
            return tuple(m.initial_alignments(*shape, dtype) for m, shape in pairs)

        def history(shape: tuple[int, ...]) -> TensorArray | tuple[()]:
            if not self.alignment_history:
                return ()
            return TensorArray(dtype, 0, True, element_shape=shape)

        return self._without_axis(
            AttentionWrapperState(
                cell_state=cell_state,
                attention=jnp.zeros((rows, self.attention_size), dtype),
                time=jnp.zeros((), jnp.int32),
                # Create two arrays, because JAX cannot donate one buffer twice.
                alignments=alignments(),
                attention_state=alignments(),
                alignment_history=tuple(map(history, shapes)),
                memory=tuple(map(extend.ReadOnly, memories)),
            )
        )

    def own_specs(self, depth: int) -> Specs:
        """Specs of all parameters except the wrapped cell's, for any size of inputs."""
        query_depth = extend.vector_size(self.cell.output_size)
        specs: Specs = {}
        for i, mechanism in enumerate(self._mechanisms):
            own = mechanism.param_specs(query_depth)
            specs[_numbered("memory_layer", i)] = mechanism.memory_specs()
            specs |= {self._scopes[i]: own} if own else {}
            if self.attention_layer_size is not None:
                depth = query_depth + mechanism.context_depth()
                shape = (depth, self.attention_layer_size[i])
                kernel = ParamSpec(shape, extend.glorot_uniform)
                specs[_numbered("attention_layer", i)] = {"kernel": kernel}
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

    def _cell_inputs(self, inputs: PyTree, attention: Array) -> PyTree:
        if self.cell_input_fn is not None:
            return self.cell_input_fn(inputs, attention)
        return jnp.concatenate([inputs, attention], axis=-1)

    def start(self, params: Params, state: PyTree) -> PyTree:
        """Computes the keys of the memory; see `RNNCell.start`."""
        _check_is_state(state)
        own, inner = self.checked_params(params, state.attention, None)
        cell_state = self.cell.start(inner, state.cell_state)
        # Recompute existing keys, because they may come from other parameters.
        memory = tuple(
            extend.ReadOnly(self._with_keys(own, i, memory.value))
            for i, memory in enumerate(self._several(state.memory))
        )
        memory = memory if self._has_several else memory[0]
        return state._replace(cell_state=cell_state, memory=memory)

    def _with_keys(self, own: Params, i: int, memory: PyTree) -> AttentionMemory:
        """Adds the keys to the memory of mechanism `i`."""
        return self._mechanisms[i].with_keys(own[_numbered("memory_layer", i)], memory)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, AttentionWrapperState]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            TypeError: If the state is not an `AttentionWrapperState`, or its dtypes do
                not match the inputs and the parameters.
            ValueError: If parameters are missing, or the inputs and the state differ in
                their number of rows.
        """
        _check_is_state(state)
        own, inner = self.checked_params(params, state.attention, key)
        self._check_inputs(jax.tree.leaves(inputs)[0], state.attention)
        state = state.map_mechanisms(self._several)
        # The key of the cell, then the key of each mechanism.
        keys = [key] * (1 + len(self._mechanisms))
        if key is not None:
            keys = [jax.random.fold_in(key, n) for n in range(len(keys))]
        cell_key, *keys = keys
        with jax.named_scope(extend.scope_name(self)):
            cell_inputs = self._cell_inputs(inputs, state.attention)
            output, cell_state = self.cell.apply(
                inner, cell_inputs, state.cell_state, cell_key
            )
            attended = []
            for i, mechanism in enumerate(self._mechanisms):
                memory = state.memory[i].value
                # If an outer wrapper did not call `start`, the memory has no keys.
                if isinstance(memory.keys, tuple):
                    memory = self._with_keys(own, i, memory)
                weights = own.get(self._scopes[i], {})
                bound = BoundMechanism(mechanism, weights, memory, keys[i])
                layer = None
                if self.attention_layer_size is not None:
                    kernel = own[_numbered("attention_layer", i)]["kernel"]
                    layer = lambda x, kernel=kernel: jnp.dot(x, kernel)
                attention_fn = self.attention_fn or compute_attention
                before = state.attention_state[i]
                results = attention_fn(bound, output, before, layer)
                history = state.alignment_history[i]
                if self.alignment_history:
                    history = history.write(state.time, results[1])
                attended.append((*results, history))
            attentions, alignments, states, histories = zip(*attended, strict=True)
            attention = jnp.concatenate(attentions, axis=-1)
        new_state = self._without_axis(
            state._replace(
                cell_state=cell_state,
                attention=attention,
                time=state.time + jnp.ones((), jnp.int32),
                alignments=alignments,
                alignment_history=histories,
                attention_state=states,
            )
        )
        return attention if self.output_attention else output, new_state

    def _check_inputs(self, inputs: Array, attention: Array) -> None:
        """Checks the inputs' number of rows and, without `cell_input_fn`, dtype."""
        fits = self.cell_input_fn is not None or inputs.dtype == attention.dtype
        must = f"have the dtype of `state.attention` ({attention.dtype})"
        extend.expect(fits, "inputs", must, inputs, error=TypeError)
        fits = len(attention) == len(inputs)
        must = f"have as many rows as the inputs ({len(inputs)})"
        extend.expect(fits, "state.attention", must, attention)


def _check_shapes(name: str, tree: PyTree, like: PyTree, fix: str = "") -> None:
    """Raises an error unless `tree` has the structure and the shapes of `like`.

    A scalar, e.g. a step count, may replace an array. TensorArrays may differ in shape.

    Raises:
        TypeError: If the structures differ.
        ValueError: If a shape differs.
    """
    leaf = lambda x: isinstance(x, TensorArray)
    wanted, structure = jax.tree.flatten(like, is_leaf=leaf)
    alike = structure == jax.tree.structure(tree, is_leaf=leaf)
    must = f"have the structure {structure}"
    extend.expect(alike, name, must, tree, fix, error=TypeError)
    named = jax.tree.leaves_with_path(tree, is_leaf=leaf)
    for (path, got), want in zip(named, wanted, strict=True):
        if not leaf(want):
            full = name + jax.tree_util.keystr(path)
            fits = jnp.shape(got) in ((), want.shape)
            extend.expect(fits, full, f"have shape {want.shape}", got, fix)


def _check_is_state(state: PyTree) -> None:
    """Raises TypeError unless `state` is an `AttentionWrapperState` with a memory."""
    is_state = isinstance(state, AttentionWrapperState)
    has_memory = is_state and jax.tree.leaves(state.memory)
    must = "be an AttentionWrapperState with a memory"
    fix = "Call the unbound wrapper's method `initial_state(memory)`."
    extend.expect(has_memory, "state", must, state, fix, error=TypeError)


def _numbered(name: str, number: int) -> str:
    """The name, followed by `_<number>` unless `number` is 0."""
    return f"{name}_{number}" if number else name
