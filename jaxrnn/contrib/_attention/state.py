"""The state of an `AttentionWrapper`, and the attentions that update it."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import ParamSpec, RNNCell, TensorArray, extend
from jaxrnn.typing import Array, Key, Params, PyTree, Specs

from .mechanisms import AttentionMechanism
from .memory import AttentionMemory


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
        alignment_history: A TensorArray of the alignments of all steps; `()` unless
            the wrapper's `alignment_history` is True.
        attention_state: The state of the mechanism, by default the alignments.
        memory: The memory, which also contains its keys once a run has started. The
            memory is read-only, so loops neither mask nor reorder its rows.

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
        """Applies `fn` to each field that holds data of the mechanisms."""
        return self._replace(
            alignments=fn(self.alignments),
            alignment_history=fn(self.alignment_history),
            attention_state=fn(self.attention_state),
            memory=fn(self.memory),
        )

    def clone(self, **fields: PyTree) -> "AttentionWrapperState":
        """A copy of the state with some fields replaced; shapes must stay the same.

        Raises:
            ValueError: If a field does not exist, or a shape differs.
            TypeError: If a structure differs.
        """
        unknown = sorted(fields.keys() - set(self._fields))
        must = f"have names among {', '.join(self._fields)}"
        extend.expect(not unknown, "fields", must, ", ".join(unknown))
        for name, new in fields.items():
            _check_shapes(name, new, getattr(self, name))
        return self._replace(**fields)


def _check_shapes(name: str, tree: PyTree, like: PyTree, fix: str = "") -> None:
    """Compares the structure and the shapes of `tree` with those of `like`.

    A scalar, e.g. a step count, applies to all rows. TensorArrays may differ in shape.

    Raises:
        TypeError: If the structures differ.
        ValueError: If shapes differ.
    """
    leaf = lambda x: isinstance(x, TensorArray)
    wanted, structure = jax.tree.flatten(like, is_leaf=leaf)
    alike = structure == jax.tree.structure(tree, is_leaf=leaf)
    must = f"have the structure {structure}"
    extend.expect(alike, name, must, tree, fix, error=TypeError)
    named = jax.tree.leaves_with_path(tree, is_leaf=leaf)
    for (path, got), want in zip(named, wanted, strict=True):
        if not isinstance(want, TensorArray):
            fits = jnp.shape(got) in ((), want.shape)
            full = name + jax.tree_util.keystr(path)
            extend.expect(fits, full, f"have shape {want.shape}", got, fix)


def check_is_state(state: PyTree) -> None:
    """Raises TypeError unless `state` is an `AttentionWrapperState` with a memory."""
    is_state = isinstance(state, AttentionWrapperState)
    has_memory = is_state and jax.tree.leaves(state.memory)
    must = "be an AttentionWrapperState with a memory"
    fix = "Create a state with `cell.initial_state(memory)`."
    extend.expect(has_memory, "state", must, state, fix, error=TypeError)


def check_rows(state: AttentionWrapperState, inputs: Array, checks_dtype: bool) -> None:
    """Checks that state and inputs have equal batch sizes and, optionally, dtypes.

    Raises:
        ValueError: If the batch sizes differ. The memory may have fewer rows than the
            inputs if several beams share each row of the memory.
        TypeError: If `checks_dtype` is True and the dtypes differ.
    """
    attention = state.attention
    rows = inputs.shape[0]
    fits = not checks_dtype or inputs.dtype == attention.dtype
    must = f"have the dtype of `state.attention` ({attention.dtype})"
    extend.expect(fits, "inputs", must, inputs, error=TypeError)
    must = f"have as many rows as the inputs ({rows})"
    extend.expect(len(attention) == rows, "state.attention", must, attention)
    must = f"{must}, or one row for each group of beams"
    for array in jax.tree.leaves(state.memory):
        fits = not rows % max(1, len(array))
        extend.expect(fits, "state.memory", must, array)


def check_cell_state(cell: RNNCell, state: PyTree, rows: int) -> None:
    """Checks that `state` is a state of the cell with the given number of rows.

    Raises:
        TypeError: If the structure differs.
        ValueError: If a shape differs.
    """
    types = extend.map_sizes(
        lambda shape: jax.ShapeDtypeStruct((rows, *shape), jnp.float32),
        cell.state_size,
    )
    _check_shapes("cell_state", state, types, "Pass a state of the wrapped cell.")


@dataclasses.dataclass(frozen=True)
class BoundMechanism:
    """A mechanism with its parameters and memory, as `attention_fn` receives it.

    Attributes:
        mechanism: The hyperparameters.
        params: The parameters of the mechanism, without the memory layer.
        memory: The memory, with its keys.
        key: The random key of the step, or None.
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
            query: `[batch, query_depth]`. The batch size may be a multiple of the
                memory's batch size. In this case, adjacent rows, e.g. beams, share a
                row of the memory.
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
            # If a memory is empty, set all its scores to 0. If all scores were minus
            # infinity, softmax would return NaN.
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
        """The sum of the values, weighted by the alignments, `[batch, depth]`."""
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
    """The default `attention_fn`, which runs one step of attention.

    Args:
        attention_mechanism: The mechanism, with its memory.
        cell_output: `[batch, query_depth]`.
        attention_state: The state of the mechanism, `[batch, memory_time]`.
        attention_layer: The function that computes the attention from the concatenated
            output and context; None to use the context as the attention.

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


class Attention(NamedTuple):
    """One attention of an `AttentionWrapper`.

    Attributes:
        mechanism: The mechanism.
        attention_fn: See `AttentionWrapper`.
        size: The size of the attention layer; None for no layer.
        number: The index of the attention, from 0.
        scope: The scope of the mechanism's own parameters.
    """

    mechanism: AttentionMechanism
    attention_fn: Callable
    size: int | None
    number: int
    scope: str

    memory_layer = property(lambda self: numbered("memory_layer", self.number))
    layer = property(lambda self: numbered("attention_layer", self.number))

    def specs(self, query_depth: int) -> Specs:
        """Specs of all parameters, for queries of size `query_depth`."""
        own = self.mechanism.param_specs(query_depth)
        specs = {self.memory_layer: self.mechanism.memory_specs()}
        specs |= {self.scope: own} if own else {}
        if self.size is not None:
            shape = (query_depth + self.mechanism.context_depth(), self.size)
            specs[self.layer] = {"kernel": ParamSpec(shape, extend.glorot_uniform)}
        return specs

    def with_keys(self, params: Params, memory: AttentionMemory) -> AttentionMemory:
        """Adds keys to the memory; `params` are the wrapper's own parameters."""
        return self.mechanism.with_keys(params[self.memory_layer], memory)

    def attend(
        self,
        params: Params,
        output: Array,
        memory: AttentionMemory,
        state: Array,
        key: Key | None,
    ) -> tuple[Array, Array, Array]:
        """Calls `attention_fn` with the output of the cell.

        Args:
            params: The wrapper's own parameters.
            output: The output of the cell, `[batch, query_depth]`.
            memory: The memory, with its keys if `start` was called.
            state: The state of the mechanism.
            key: The random key of this attention's step, or None.
        """
        # The memory has no keys yet if an outer wrapper did not call `start`.
        if isinstance(memory.keys, tuple):
            memory = self.with_keys(params, memory)
        bound = BoundMechanism(
            self.mechanism,
            params=params.get(self.scope, {}),
            memory=memory,
            key=key,
        )

        def layer(x: Array) -> Array:
            return jnp.dot(x, params[self.layer]["kernel"])

        return self.attention_fn(
            bound, output, state, None if self.size is None else layer
        )


def numbered(name: str, number: int) -> str:
    """The name, followed by `_<number>` unless `number` is 0."""
    return f"{name}_{number}" if number else name
