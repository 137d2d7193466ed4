"""The map of a state over several steps, as the state of another cell.

In linear recurrences and matrix memories, the state after several steps is a simple
function of the state before them, such as `a * h + b`. A `Transition` computes this
function without that state, so that devices which run later steps need not wait for it.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.math import cast_like
from .._base.trees import TensorShape, map_sizes
from .._base.typing import Array, DType, Params, PyTree, Size
from .._loops import masking
from . import fields
from .base import RNNCell
from .delta_rule import DeltaInputs, DeltaRule
from .linear_recurrence import (
    Coefficients,
    Element,
    LinearRecurrenceCell,
    is_zero,
    one_like,
    plus,
    times,
)
from .matrix_memory import Chunk, MatrixMemoryCell, only_finite, with_nan
from .mlstm_rule import MLSTMInputs, MLSTMRule, MLSTMState
from .params import Specs


class Transition(abc.ABC):
    """A cell whose state is the function that maps a state of `cell` over the steps.

    The function begins as the identity. Where `cell` restarts, the function becomes the
    constant function of the restart state. The outputs have size 0.
    """

    cell: Any
    output_size = 0

    def param_specs(self, depth: int) -> Specs:
        """The specs of the cell."""
        return self.cell.param_specs(depth)

    @abc.abstractmethod
    def identity(self, state: PyTree) -> PyTree:
        """The function that returns its argument, for states like `state`."""

    @abc.abstractmethod
    def constant(self, state: PyTree) -> PyTree:
        """The function that returns `state`."""

    @abc.abstractmethod
    def map(self, transition: PyTree, state: PyTree) -> PyTree:
        """The state to which the function `transition` maps `state`."""

    def narrowed(self, state: PyTree, like: PyTree) -> PyTree:
        """The state of `cell`, cast to the dtypes of `like`."""
        return cast_like(like, state)


@fields.dataclass
class LinearTransition(Transition, LinearRecurrenceCell):
    """`a * h + b` of a linear recurrence, as the units `[a, b]`.

    A step multiplies both by its own a, and adds its own b to b. A cell with
    `term_from_zeros` has a third block of units: the result for a state of zeros.
    """

    cell: LinearRecurrenceCell

    @property
    def _blocks(self) -> int:
        usual = LinearRecurrenceCell.term_from_zeros
        return 2 if type(self.cell).term_from_zeros is usual else 3

    @property
    def state_size(self) -> Size:
        """The size of the cell's state, times the number of blocks."""
        repeat = lambda shape: TensorShape([*shape[:-1], self._blocks * shape[-1]])
        return map_sizes(repeat, self.cell.state_size)

    def identity(self, state: Element) -> Element:
        """See `Transition.identity`."""
        one = jax.tree.map(jnp.full_like, state, one_like(state))
        return self._joined(one, _zeros(state))

    def constant(self, state: Element) -> Element:
        """See `Transition.constant`."""
        return self._joined(_zeros(state), state)

    def map(self, transition: Element, state: Element) -> Element:
        """`a * state + b`; see `Transition.map`."""
        a, b, *others = self._split(transition)
        for from_zeros in others:
            b = masking.choose(is_zero(state), from_zeros, b)
        return plus(times(a, state), b)

    def are_from_zeros(
        self, first: Element, state: Element, restarting: Array | None, before: Element
    ) -> Array:
        """See `LinearRecurrenceCell`; only the third block may be from zeros."""
        first, state = self._split(first)[2], self._split(state)[2]
        before = None if before is None else self._split(before)[2]
        return super().are_from_zeros(first, state, restarting, before)

    def wide_coefficients(
        self, params: Params, inputs: Array, state: Element
    ) -> Coefficients:
        """The coefficients of the cell for each block."""
        own = self._split(state)[0]
        a, b, rest = self.cell.wide_coefficients(params, inputs, own)
        return self._joined(a, a), self.constant(b), (b, rest)

    def wide_term_from_zeros(
        self, rest: PyTree, inputs: Array, state: Element
    ) -> Element | None:
        """The terms of the cell, in the third block."""
        b, rest = rest
        own = self._split(state)[0]
        first = self.cell.wide_term_from_zeros(rest, inputs, own)
        return None if first is None else self._joined(_zeros(b), b, first)

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Those of the cell; `wide_coefficients` replaces them."""
        return self.cell.coefficients(params, inputs)

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """No numbers."""
        return jax.tree.leaves(state)[0][..., :0]

    def _joined(self, a: Element, b: Element, from_zeros: Element = None) -> Element:
        """The blocks side by side; `from_zeros` is `b` by default."""
        blocks = [a, b, b if from_zeros is None else from_zeros][: self._blocks]
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *blocks)

    def _split(self, x: Element) -> list[Element]:
        """The blocks of a state or of its coefficients."""
        split = lambda x: jnp.split(x, self._blocks, axis=-1)
        return jax.tree.transpose(jax.tree.structure(x), None, jax.tree.map(split, x))


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)


class MemoryTransition(Transition):
    """What the transitions of matrix memories share."""

    cell: Any

    def safety_check(self, params: Params, dtype: DType) -> Callable[..., Array]:
        """The check of the cell; see `MatrixMemoryCell`."""
        return self.cell.safety_check(params, dtype)

    def project(self, params: Params, inputs: PyTree, dtype: DType) -> Any:
        """The values of the cell; see `MatrixMemoryCell`."""
        return self.cell.project(params, inputs, dtype)

    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """No numbers."""
        return h.reshape(h.shape[0], -1)[:, :0]

    def narrowed(self, state: PyTree, like: PyTree) -> PyTree:
        """The state, cast like the states of the cell."""
        return self.cell.stored(state, like)

    def map(self, transition: PyTree, state: PyTree) -> PyTree:
        """The mapped state; NaN where the map or the state is not finite.

        Products would spoil the gradients of other parts, because 0 * NaN is NaN.
        """
        (transition, state), is_finite = only_finite((transition, state))
        return with_nan(is_finite, self.map_finite(transition, state))

    @abc.abstractmethod
    def map_finite(self, transition: PyTree, state: PyTree) -> PyTree:
        """The mapped state, for finite arguments."""


@fields.dataclass
class DeltaTransition(MemoryTransition, DeltaRule):
    """`A S + B` of the delta rule, as one matrix with the columns `[B, A]`.

    A step multiplies A and B by `a (I - b outer(k, k))`, and adds `b outer(k, v)` to B:
    the delta rule for the values `[v, 0]`.
    """

    cell: DeltaRule

    @property
    def state_size(self) -> TensorShape:
        """The sizes of `[B, A]`, `[heads, key, value + key]`."""
        heads, key, value = self.cell.state_size
        return TensorShape([heads, key, value + key])

    def identity(self, state: Array) -> Array:
        """See `Transition.identity`."""
        *axes, size, _ = state.shape
        one = jnp.broadcast_to(jnp.eye(size, dtype=state.dtype), (*axes, size, size))
        return jnp.concatenate([jnp.zeros_like(state), one], axis=-1)

    def constant(self, state: Array) -> Array:
        """See `Transition.constant`."""
        return _padded(state, state.shape[-2])

    def map_finite(self, transition: Array, state: Array) -> Array:
        """`A S + B`."""
        b, a = jnp.split(transition, [state.shape[-1]], axis=-1)
        highest = jax.lax.Precision.HIGHEST
        return jnp.einsum("bnkj,bnjv->bnkv", a, state, precision=highest) + b

    def prepared(self, values: DeltaInputs) -> DeltaInputs:
        """The values of the cell, with `[v, 0]` in place of v."""
        values = self.cell.prepared(values)
        return values._replace(v=_padded(values.v, values.k.shape[-1]))


def _padded(x: Array, count: int) -> Array:
    """`x` with `count` zeros at the end of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])


class MLSTMMap(NamedTuple):
    """The map of an mLSTM's state over several steps.

    Attributes:
        written: The state after the steps if the memory was empty, an `MLSTMState`.
        log_keep: The sum of `log(sigmoid(f))`, `[batch, heads]`; -inf if the map is
            constant.
    """

    written: Any
    log_keep: Any


@fields.dataclass
class MLSTMTransition(MemoryTransition, MatrixMemoryCell):
    """`exp(log_keep) C + written` of an mLSTM, for the memory C and its normalizer."""

    cell: MLSTMRule

    @property
    def state_size(self) -> Any:
        """The sizes of an `MLSTMMap`."""
        size = self.cell.state_size
        return MLSTMMap(size, size.m)

    def identity(self, state: MLSTMState) -> MLSTMMap:
        """See `Transition.identity`."""
        empty = _zeros(state)
        return MLSTMMap(empty._replace(m=empty.m - jnp.inf), empty.m)

    def constant(self, state: MLSTMState) -> MLSTMMap:
        """See `Transition.constant`."""
        return MLSTMMap(state, jnp.full_like(state.m, -jnp.inf))

    def map_finite(self, transition: MLSTMMap, state: MLSTMState) -> MLSTMState:
        """`exp(log_keep) C + written`, with the larger of both scales."""
        written, log_keep = transition
        old = log_keep + state.m
        m = jnp.maximum(old, written.m)
        # An empty memory stays empty; -inf + inf is NaN.
        scale = lambda x: jnp.exp(jnp.where(m == -jnp.inf, 0.0, x - m))[..., None]
        kept, added = scale(old), scale(written.m)
        n = kept * state.n + added * written.n
        c = kept[..., None] * state.c + added[..., None] * written.c
        return MLSTMState(c, n, m)

    def idle(self) -> MLSTMInputs:
        """The values of the cell; see `MatrixMemoryCell`."""
        return self.cell.idle()

    def update(self, values: MLSTMInputs, state: MLSTMMap) -> tuple[Array, MLSTMMap]:
        """One step; see `MatrixMemoryCell`."""
        h, written = self.cell.update(values, state.written)
        return h, MLSTMMap(written, state.log_keep + jax.nn.log_sigmoid(values.f))

    def attend(self, chunk: Chunk) -> tuple[Array, MLSTMMap]:
        """All steps of a chunk; see `MatrixMemoryCell`."""
        again = chunk.restart_states
        again = None if again is None else again.written
        own = {"state": chunk.state.written, "restart_states": again}
        h, written = self.cell.attend(dataclasses.replace(chunk, **own))
        log_keep = chunk.sums(jax.nn.log_sigmoid(chunk.values.f))
        log_keep += chunk.start(lambda state: state.log_keep)
        return h, MLSTMMap(written, chunk.after(log_keep))


_TRANSITIONS: Any = {
    LinearRecurrenceCell: LinearTransition,
    DeltaRule: DeltaTransition,
    MLSTMRule: MLSTMTransition,
}


def transition_of(cell: RNNCell) -> Any:
    """The `Transition` of a cell, or None if its kind of cell has none."""
    kinds = (make for kind, make in _TRANSITIONS.items() if isinstance(cell, kind))
    make = next(kinds, None)
    if isinstance(cell, MatrixMemoryCell) and make is not None:
        return make(cell, chunk_size=cell.chunk_size)
    return make and make(cell)
