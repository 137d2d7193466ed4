"""Dropout on the inputs, the state and the output of a cell."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp

from ..._base.arguments import check_given
from ..._base.cell_keys import check_key_or_none, run_key
from ..._base.errors import expect
from ..._base.math import is_float
from ..._base.trees import is_tensor_array, map_named
from ..._base.typing import Array, DType, Key, Params, PyTree, Size, State
from .. import fields
from ..lstm import LSTMStateTuple
from .base import WrapperCell


@final
@fields.dataclass
class DropoutWrapper(WrapperCell[State]):
    """Dropout on the inputs, the new state and the output of a cell.

    The random key comes from `cell.bind(params, key)`. Without a key, nothing is
    dropped; omit the key in evaluation. Each probability is the probability of keeping
    an entry, so `DropoutWrapper(cell, 0.2)` drops 80 % of the input entries on average.
    Kept entries are scaled by `1 / keep_prob`. Dropout on the new state does not affect
    the output of the same step. By default, c of an LSTM is never dropped, unless it
    shares an array with h (`state_is_tuple=False`).

    If the state is dropped with a new mask at each step, a slower scan runs the cell.
    With `variational_recurrent`, an affine cell such as an LSTM runs in XLA's loop.

    Attributes:
        cell: The wrapped cell.
        input_keep_prob: The probability of keeping an entry of the inputs, in [0, 1].
        output_keep_prob: The probability of keeping an entry of the output.
        state_keep_prob: The probability of keeping an entry of a state leaf that
            `dropout_state_filter_visitor` selects.
        variational_recurrent: Whether each leaf uses one mask for all steps and rows of
            a run (arXiv:1512.05287), instead of a new mask at each step.
        input_size: The sizes of the inputs; required for variational input dropout, as
            in TensorFlow, and otherwise unused.
        dtype: The dtype of the inputs; required for variational dropout.
        seed: Wrappers with different seeds draw different masks from the same key.
        dropout_state_filter_visitor: `visitor(substate)`, which selects the leaves of
            the state for dropout, from the top of the state downwards. Default: selects
            all leaves except c of an LSTM and TensorArrays. The visitor may return:

            - False: No leaf of `substate` is selected.
            - True: If `substate` is a leaf, it is selected. If `substate` is a nest,
              all its children are visited.
            - A one-level structure of bools: Only the children marked True are visited.
        mask_per_row: Whether variational masks differ between rows, as in Keras. All
            steps of a row still share a mask. Keyword-only.

    Raises:
        ValueError: If a probability is outside [0, 1], `seed` exceeds 64 bits,
            variational dropout lacks `dtype` or `input_size` or has a `dtype` that is
            not floating-point, or `mask_per_row` is True without
            `variational_recurrent`.
        TypeError: If `cell` is not an RNNCell, or another field has the wrong type.

    Source: `tf.compat.v1.nn.rnn_cell.DropoutWrapper`.
    """

    input_keep_prob: float = fields.number(1.0, low=0, high=1)
    output_keep_prob: float = fields.number(1.0, low=0, high=1)
    state_keep_prob: float = fields.number(1.0, low=0, high=1)
    variational_recurrent: bool = fields.flag(False)
    input_size: Size | None = fields.sizes(default=None)
    dtype: DType | None = fields.dtype()
    seed: int | None = fields.count(default=None, least=-(2**63), most=2**63 - 1)
    dropout_state_filter_visitor: Callable[[PyTree], PyTree] | None = fields.function(
        default=None
    )
    _: dataclasses.KW_ONLY
    mask_per_row: bool = fields.flag(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variational_recurrent:
            of = "With `variational_recurrent`, pass the"
            check_given("dtype", self.dtype, f"{of} dtype of the inputs.")
            if self.input_keep_prob < 1:
                fix = f"{of} depth of the inputs."
                check_given("input_size", self.input_size, fix)
        fits = self.variational_recurrent or not self.mask_per_row
        must = "be False without `variational_recurrent`"
        expect(fits, "mask_per_row", must, True)

    @property
    def is_random(self) -> bool | None:
        """True if a probability is below 1, otherwise `is_random` of the cell."""
        keep = min(self.input_keep_prob, self.output_keep_prob, self.state_keep_prob)
        return True if keep < 1 else self.cell.is_random

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, State]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            TypeError: If a leaf selected for dropout is not floating-point, or `key` is
                not a random key.
            ValueError: If the visitor does not return one bool for each child.
        """
        check_key_or_none(key)
        if key is None:
            return self.cell.apply(params, inputs, state)
        inputs = dropped(self, "input", key, inputs)
        inner_key = key_of_cell(self, key)
        output, state = self.cell.apply(params, inputs, state, inner_key)
        state = dropped(self, "state", key, state)
        return dropped(self, "output", key, output), state


def dropped(wrapper: DropoutWrapper, salt: str, key: Key, tree: PyTree) -> PyTree:
    """Applies dropout to the inputs, the selected state or the output of a step.

    Args:
        wrapper: The wrapper.
        salt: The kind of `tree`: "input", "state" or "output".
        key: The key of the step.
        tree: The inputs, the state or the output.
    """
    keep_prob = getattr(wrapper, f"{salt}_keep_prob")
    if keep_prob == 1:
        return tree
    # With the run's key, all steps draw the same mask.
    key = run_key(key) if wrapper.variational_recurrent else key
    is_shared = wrapper.variational_recurrent and not wrapper.mask_per_row
    visitor = wrapper.dropout_state_filter_visitor or _all_but_c
    chosen = _selected(visitor, tree) if salt == "state" else None
    marks = iter(jax.tree.leaves(chosen))
    indices = itertools.count()
    fix = f"Set `{salt}_keep_prob` to 1."
    if salt == "state":
        fix += " Or exclude the array with `dropout_state_filter_visitor`."

    def drop_leaf(name: str, leaf: Array) -> Array:
        index = next(indices)
        if not next(marks, True):
            return leaf
        leaf_key = jax.random.fold_in(key, stream(wrapper, salt, index))
        shape = (1, *leaf.shape[1:]) if is_shared and leaf.ndim else leaf.shape
        must = "be floating-point for dropout"
        expect(is_float(leaf), name, must, leaf, fix, error=TypeError)
        if keep_prob == 0:
            return jnp.zeros_like(leaf)
        mask = jax.random.bernoulli(leaf_key, keep_prob, shape)
        return jnp.where(mask, leaf / keep_prob, jnp.zeros((), leaf.dtype))

    return map_named(salt, drop_leaf, tree)


def key_of_cell(wrapper: DropoutWrapper, key: Key) -> Key:
    """Derives the key of the wrapped cell's step from the key of the wrapper's step."""
    return jax.random.fold_in(key, stream(wrapper, "cell", 0))


def stream(wrapper: DropoutWrapper, salt: str, index: int) -> int:
    """Returns TensorFlow's seed of a dropout operation, to be folded into a key."""
    name = f"{wrapper.seed}{salt}_{index}".encode()
    digest = hashlib.md5(name, usedforsecurity=False)
    return int(digest.hexdigest()[:8], 16) & 0x7FFFFFFF


def _all_but_c(substate: PyTree) -> PyTree:
    """TensorFlow's default filter: all leaves except c of an LSTM and TensorArrays."""
    if getattr(substate, "_fields", None) == LSTMStateTuple._fields:
        return LSTMStateTuple(c=False, h=True)
    return not is_tensor_array(substate)


def _selected(visitor: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """A tree of bools: whether the visitor selects each leaf of `state` for dropout."""
    verdict = visitor(state)
    if jax.tree_util.all_leaves([state]):
        return bool(verdict)
    children, treedef = jax.tree.flatten(state, is_leaf=lambda x: x is not state)
    marks = jax.tree.leaves(verdict)
    if jax.tree_util.all_leaves([verdict]):
        marks *= len(children)
    must = f"return a bool, or {len(children)} bools, one for each child of the nest"
    expect(len(marks) == len(children), "dropout_state_filter_visitor", must, verdict)
    selected = [
        _selected(visitor, child) if mark else jax.tree.map(lambda _: False, child)
        for mark, child in zip(marks, children, strict=True)
    ]
    return treedef.unflatten(selected)
