"""Attention around a cell."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, final

import jax
import jax.numpy as jnp

from ..._base.arguments import as_count, as_dtype, check_functions
from ..._base.cell_keys import apply_cell, check_key_of_step, fold
from ..._base.errors import describe
from ..._base.inputs import as_state
from ..._base.math import dot
from ..._base.read_only import ReadOnly
from ..._base.tensor_shape import TensorShape
from ..._base.trees import check_structure, named_leaves, size_shapes
from ..._base.typing import (
    Array,
    ArrayLike,
    DType,
    Key,
    Lengths,
    Params,
    PyTree,
    Shaped,
)
from ..._cells.base import scope_name
from ..._cells.hyperparameters import set_bools, set_field
from ..._cells.initializers import ParamSpec, glorot_uniform
from ..._tensor_array.tensor_array import TensorArray
from ..._wrappers.own_params import ParamsWrapper, vector_size
from .mechanisms import AttentionMechanism
from .state import AttentionMemory, AttentionWrapperState, as_memory
from .step import BoundMechanism, compute_attention


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class AttentionWrapper(ParamsWrapper):
    """A cell that attends to a memory at each step.

        output, cell_state = cell(cell_input_fn(inputs, attention), cell_state)
        alignments         = attention_mechanism(output, alignments)
        context            = sum over time of alignments * memory
        attention'         = [output, context] attention_layer/kernel

    The memory is no part of the cell, but of the state, which `initial_state` makes:

        state = cell.initial_state(memory, memory_sequence_length)
        outputs, state = dynamic_rnn(cell.bind(params), x, initial_state=state, ...)

    So any driver, decoder or module takes it; its keys are computed once a run.

    Shapes, for a cell with outputs of size `O`, memories `[batch, memory_time, M]`, and
    `A = attention_layer_size`, or `M` without a layer: inputs `[batch, I]`, attention
    and output `[batch, A]`, with `output_attention=False` the output is `[batch, O]`.
    Parameters: `memory_layer/kernel` `[M, num_units]`; those of the mechanism under its
    scope (`luong_attention/attention_g`, `bahdanau_attention/attention_v`, ...);
    `attention_layer/kernel` `[O + M, A]`; those of the cell, for inputs `[batch, I +
    A]`, under its scope (`lstm_cell`). Where several mechanisms have one name, that of
    the second ends in `_1`, and so on.

    Attributes:
        cell: The wrapped cell, whose output is one vector.
        attention_mechanism: The mechanism, or a list or tuple of several.
        attention_layer_size: `A`, a sequence for several mechanisms; None for the
            contexts themselves.
        alignment_history: Whether the state collects the alignments of all steps.
        cell_input_fn: `cell_input_fn(inputs, attention)`, the inputs of the cell; None
            for their concatenation.
        output_attention: Whether the output is the attention, or that of the cell.
        name: The name of the step in profiles; by default that of the class.
        attention_fn: `attention_fn(mechanism, cell_output, attention_state,
            attention_layer) -> (attention, alignments, next_attention_state)`. The
            mechanism is called as `mechanism(query, state) -> (alignments, state)` and
            has `values`, `keys` and `context(alignments)`. None for the equations
            above.
        dtype: The dtype of new parameters; None for that of the inputs.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If there is not one `attention_layer_size` for each mechanism, or
            the cell's output does not fit a mechanism.

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
    alignment_history: bool = False
    cell_input_fn: Callable[[PyTree, Array], PyTree] | None = None
    output_attention: bool = True
    _: dataclasses.KW_ONLY
    name: str | None = None
    attention_fn: Callable[..., tuple[Array, Array, Any]] | None = None
    dtype: DType | None = None

    feature_axes = property(lambda self: None if self.cell_input_fn else 1)

    def __post_init__(self) -> None:
        where = "AttentionWrapper"
        super().__post_init__()
        set_bools(self)
        if isinstance(self.attention_mechanism, list):
            set_field(self, attention_mechanism=tuple(self.attention_mechanism))
        for mechanism in self._mechanisms or [None]:
            if not isinstance(mechanism, AttentionMechanism):
                raise TypeError(
                    f"{where}: `attention_mechanism` must be an AttentionMechanism or "
                    f"several, got {describe(mechanism)}."
                )
        sizes = self.attention_layer_size
        if sizes is not None:
            sizes = tuple(sizes) if isinstance(sizes, tuple | list) else (sizes,)
            sizes = tuple(as_count(where, "attention_layer_size", n) for n in sizes)
            if len(sizes) != len(self._mechanisms):
                raise ValueError(
                    f"{where}: `attention_layer_size` must hold one size for each of "
                    f"{len(self._mechanisms)} mechanisms, got {len(sizes)}."
                )
            set_field(self, attention_layer_size=sizes)
        for name in ("cell_input_fn", "attention_fn"):
            if getattr(self, name) is not None:
                check_functions(where, **{name: getattr(self, name)})
        if self.dtype is not None:
            set_field(self, dtype=as_dtype(where, self.dtype))
        if not isinstance(self.name, str | None):
            raise TypeError(
                f"{where}: `name` must be a string, got {describe(self.name)}."
            )

    @property
    def _mechanisms(self) -> tuple[AttentionMechanism, ...]:
        mechanism = self.attention_mechanism
        return mechanism if isinstance(mechanism, tuple) else (mechanism,)

    def _one_or_all(self, parts: Sequence) -> Any:
        """The parts of all mechanisms: a tuple, if the mechanism was given as one."""
        return tuple(parts) if isinstance(self.attention_mechanism, tuple) else parts[0]

    def _parts(self, parts: Any) -> Sequence:
        """The inverse of `_one_or_all`."""
        return parts if isinstance(self.attention_mechanism, tuple) else (parts,)

    @property
    def is_random(self) -> bool | None:
        """Whether the cell draws random numbers, or a mechanism; see `RNNCell`."""
        return any(m.is_random for m in self._mechanisms) or self.cell.is_random

    @property
    def attention_size(self) -> int:
        """The size of the attention."""
        return sum(self.attention_layer_size or self._context_depths())

    def _context_depths(self) -> list[int]:
        return [mechanism.context_depth() for mechanism in self._mechanisms]

    @property
    def output_size(self) -> Any:
        """That of the attention, or of the cell's output."""
        return self.attention_size if self.output_attention else self.cell.output_size

    @property
    def state_size(self) -> AttentionWrapperState:
        """The sizes of the state; those that the memory decides are None."""
        shape = TensorShape._partial
        alignments = self._one_or_all([shape([None])] * len(self._mechanisms))
        history = () if not self.alignment_history else alignments
        return AttentionWrapperState(
            self.cell.state_size,
            self.attention_size,
            TensorShape([]),
            alignments,
            history or self._one_or_all([()] * len(self._mechanisms)),
            alignments,
            self._one_or_all([ReadOnly(())] * len(self._mechanisms)),
        )

    def zero_state(self, batch_size: int, dtype: DType) -> NoReturn:
        """Refused, as there is no memory.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "AttentionWrapper: `initial_state` must be given, since the memory is a "
            "part of the state. `cell.initial_state(memory, memory_sequence_length)` "
            "makes one."
        )

    def initial_state(
        self,
        memory: ArrayLike | Sequence[ArrayLike],
        memory_sequence_length: Lengths | Sequence[Lengths | None] | None = None,
        cell_state: PyTree = None,
    ) -> AttentionWrapperState:
        """The state before the first step, with the memory.

        Args:
            memory: What is attended to, floating `[batch, memory_time, depth]`: the
                outputs of an encoder. For several mechanisms a tuple with one for each.
            memory_sequence_length: `[batch]`, integers; None for all of the memory.
                It is clamped to `[0, memory_time]`. Beyond it the memory (NaN included)
                has no effect, and alignments are zero. A memory of length 0 gives a
                context of zeros. For several mechanisms a tuple.
            cell_state: The initial state of the wrapped cell, such as the encoder's
                last state; None for its zero state.

        Raises:
            TypeError: If a dtype does not fit.
            ValueError: If a shape does not fit, or there is not one memory for each
                mechanism.
        """
        where = "AttentionWrapper.initial_state"
        memories = self._memories(where, memory, memory_sequence_length)
        rows, _, _ = memories[0].memory.shape
        dtype = memories[0].memory.dtype
        if cell_state is None:
            cell_state = self.cell.zero_state(rows, dtype)
        else:
            self._check_cell_state(where, cell_state, rows)
        # Made twice: arrays that are one buffer cannot be donated.
        alignments, states = (
            [
                mechanism.initial_alignments(rows, memory.memory.shape[1], dtype)
                for mechanism, memory in zip(self._mechanisms, memories, strict=True)
            ]
            for _ in range(2)
        )
        history = lambda x: TensorArray(
            dtype, size=0, dynamic_size=True, element_shape=x.shape
        )
        histories = [history(x) if self.alignment_history else () for x in alignments]
        return AttentionWrapperState(
            as_state(where, "cell_state", cell_state),
            jnp.zeros((rows, self.attention_size), dtype),
            jnp.zeros((), jnp.int32),
            self._one_or_all(alignments),
            self._one_or_all(histories),
            self._one_or_all(states),
            self._one_or_all(list(map(ReadOnly, memories))),
        )

    def _check_cell_state(self, where: str, state: PyTree, rows: int) -> None:
        size = self.cell.state_size
        name = f"{where}: `cell_state`"
        opaque = jax.tree.map(lambda _: 0, state)
        check_structure(name, size, opaque, True, "It is a state of the wrapped cell.")
        for (leaf_name, leaf), shape in zip(
            named_leaves("cell_state", state), size_shapes(size), strict=True
        ):
            if jnp.shape(leaf) not in ((), (rows, *shape)):
                raise ValueError(
                    f"{where}: `{leaf_name}` must have shape {(rows, *shape)}, by the "
                    f"rows of the memory and the wrapped cell, got {describe(leaf)}."
                )

    def _memories(self, where: str, memory: Any, lengths: Any) -> list[AttentionMemory]:
        memories = self._parts(memory)
        several = isinstance(self.attention_mechanism, tuple)
        lengths = [None] * len(memories) if lengths is None else self._parts(lengths)
        count = len(self._mechanisms)
        if len(memories) != count or len(lengths) != count:
            raise ValueError(
                f"{where}: `memory` and `memory_sequence_length` must each hold one "
                f"for each of {count} mechanisms, got {len(memories)} and "
                f"{len(lengths)}."
            )
        made = []
        for i, mechanism in enumerate(self._mechanisms):
            name = f"memory[{i}]" if several else "memory"
            made.append(as_memory(where, name, memories[i], lengths[i]))
            values, first = made[i].memory, made[0].memory
            if values.shape[2] != mechanism.memory_depth:
                raise ValueError(
                    f"{where}: `{name}` must have the mechanism's `memory_depth`, "
                    f"{mechanism.memory_depth}, got {describe(values)}."
                )
            if values.shape[0] != first.shape[0]:
                raise ValueError(
                    f"{where}: `{name}` must have as many rows as `memory[0]`, "
                    f"{first.shape[0]}, got {describe(values)}."
                )
            if values.dtype != (mechanism.dtype or first.dtype):
                raise TypeError(
                    f"{where}: `{name}` must have the dtype of the mechanism and of "
                    f"`memory[0]`, {mechanism.dtype or first.dtype}, got "
                    f"{describe(values)}."
                )
        return made

    def _names(self, kind: str | None) -> list[str]:
        """The name of each mechanism's part of that kind; of None its own scope."""
        names, seen = [], collections.Counter()
        for mechanism in self._mechanisms:
            name = kind or mechanism.scope
            names.append(f"{name}_{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return names

    def own_specs(self, depth: int) -> dict[str, Any]:
        """All parameters but those of the wrapped cell, for inputs of any size."""
        query_depth = vector_size("AttentionWrapper", self.cell.output_size)
        specs = {
            name: mechanism.memory_specs()
            for name, mechanism in zip(
                self._names("memory_layer"), self._mechanisms, strict=True
            )
        }
        for name, mechanism in zip(self._names(None), self._mechanisms, strict=True):
            own = mechanism.param_specs(query_depth)
            specs |= {name: own} if own else {}
        sizes = self.attention_layer_size or ()
        layers = zip(self._names("attention_layer"), sizes, strict=False)
        for (name, size), depth in zip(layers, self._context_depths(), strict=False):
            shape = query_depth + depth, size
            specs[name] = {"kernel": ParamSpec(shape, glorot_uniform)}
        return specs

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """The parameters of the attention, and of the cell; see `RNNCell.init`.

        Raises:
            TypeError: If `key` is not a random key.
            ValueError: If `key` is an array of keys, or `cell_input_fn` does not fit.
        """
        first = jax.tree.leaves(inputs)[0]
        dtype = dtype or self.dtype
        attention = jax.ShapeDtypeStruct(
            (first.shape[0], self.attention_size), first.dtype
        )
        cell_inputs = jax.eval_shape(self._cell_inputs, inputs, attention)
        return self._init(key, self.attention_size, cell_inputs, dtype)

    def _cell_inputs(self, inputs: PyTree, attention: Array) -> PyTree:
        if self.cell_input_fn is not None:
            return self.cell_input_fn(inputs, attention)
        return jnp.concatenate([inputs, attention], axis=-1)

    def start(self, params: Params, state: PyTree) -> PyTree:
        """The state with the keys of its memory; see `RNNCell.start`."""
        self._check_state(state)
        own, inner = self._checked(params, state.attention, None)
        parts = zip(
            self._names("memory_layer"),
            self._mechanisms,
            self._parts(state.memory),
            strict=True,
        )
        # Anew if there are keys, which may be those of other parameters.
        memories = [ReadOnly(m.with_keys(own[n], part.value)) for n, m, part in parts]
        cell_state = self.cell.start(inner, state.cell_state)
        memory = self._one_or_all(memories)
        return state._replace(cell_state=cell_state, memory=memory)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, AttentionWrapperState]:
        """One step; see `RNNCell.apply`.

        Raises:
            TypeError: If the state is not an `AttentionWrapperState`, or dtypes differ.
            ValueError: If parameters are missing, or the rows of inputs and state
                differ.
        """
        check_key_of_step("AttentionWrapper", key)
        self._check_state(state)
        self._checked(params, state.attention, None)
        if any(isinstance(m.value.keys, tuple) for m in self._parts(state.memory)):
            state = self.start(params, state)
        self._check_rows(inputs, state)
        with jax.named_scope(scope_name(self)):
            output, cell_state = apply_cell(
                self.cell,
                params[self.cell_scope],
                self._cell_inputs(inputs, state.attention),
                state.cell_state,
                fold(key, 0),
            )
            attentions, alignments, states = zip(
                *(
                    self._attend(i, mechanism, params, output, state, key)
                    for i, mechanism in enumerate(self._mechanisms)
                ),
                strict=True,
            )
            attention = jnp.concatenate(attentions, axis=-1)
        history = state.alignment_history
        if self.alignment_history:
            histories = zip(self._parts(history), alignments, strict=True)
            history = self._one_or_all([h.write(state.time, a) for h, a in histories])
        new_state = AttentionWrapperState(
            cell_state,
            attention,
            state.time + jnp.ones((), jnp.int32),
            self._one_or_all(alignments),
            history,
            self._one_or_all(states),
            state.memory,
        )
        return attention if self.output_attention else output, new_state

    def _attend(
        self,
        i: int,
        mechanism: AttentionMechanism,
        params: Params,
        output: Array,
        state: AttentionWrapperState,
        key: Key | None,
    ) -> tuple[Array, Array, Any]:
        """`(attention, alignments, attention_state)` of mechanism i."""
        layer = None
        if self.attention_layer_size is not None:
            kernel = params[self._names("attention_layer")[i]]["kernel"]
            layer = lambda x: dot(x, kernel, x.dtype)
        bound = BoundMechanism(
            mechanism,
            params.get(self._names(None)[i], {}),
            self._parts(state.memory)[i].value,
            fold(key, 1 + i),
        )
        attention_state = self._parts(state.attention_state)[i]
        attend = self.attention_fn or compute_attention
        return attend(bound, output, attention_state, layer)

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, AttentionWrapperState) or not jax.tree.leaves(
            state.memory
        ):
            raise TypeError(
                "AttentionWrapper: `state` must be an AttentionWrapperState with its "
                f"memory, got {describe(state)}. `cell.initial_state(memory, "
                "memory_sequence_length)` makes one."
            )

    def _check_rows(self, inputs: PyTree, state: AttentionWrapperState) -> None:
        first = jax.tree.leaves(inputs)[0]
        rows = first.shape[0]
        if self.cell_input_fn is None and first.dtype != state.attention.dtype:
            raise TypeError(
                "AttentionWrapper: `inputs` must have the dtype of the memory, "
                f"{state.attention.dtype}, got {describe(first)}. Cast one of them."
            )
        if state.attention.shape[0] != rows:
            raise ValueError(
                f"AttentionWrapper: `state` must have the {rows} rows of the inputs, "
                f"got an attention {describe(state.attention)}. The rows of "
                "`initial_state` are those of the memory."
            )
        for memory in self._parts(state.memory):
            if rows % max(1, memory.value.memory.shape[0]):
                raise ValueError(
                    f"AttentionWrapper: `memory` must have the {rows} rows of the "
                    "inputs, or a number of beams for each of its rows, got "
                    f"{describe(memory.value.memory)}."
                )
