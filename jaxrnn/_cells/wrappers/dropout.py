"""Dropout on the inputs, the state and the output of a cell."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from ..._base.arguments import check_given
from ..._base.cell_keys import check_key_or_none, fold_in, run_key
from ..._base.errors import expect
from ..._base.math import is_float
from ..._base.trees import is_tensor_array, map_named
from ..._base.typing import Array, DType, Key, Params, PyTree, Size, State
from ..._run import masking
from ..._run.run import Choice, Loop, Run
from .. import fields
from ..affine import AffineCell, Stage, Updated
from ..base import scope_name
from ..lstm import LSTMStateTuple
from ..params import ParamSpec, Specs, zeros
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
        dropout_state_filter_visitor: `visitor(substate)`, called from the top of the
            state downwards. If the visitor returns False, no leaf of `substate` is
            selected for dropout. If it returns True, a leaf is selected, and the
            children of a nest are visited. If it returns a one-level structure of
            bools, only the children marked True are visited. Without a visitor, all
            leaves except c of an LSTM and TensorArrays are selected.
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
            check_given("dtype", self.dtype, "Pass the dtype of the inputs.")
            if self.input_keep_prob < 1:
                fix = "Pass the depth of the inputs."
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
        inputs = self._drop("input", key, inputs)
        inner_key = fold_in(key, self._stream("cell", 0))
        output, state = self.cell.apply(params, inputs, state, inner_key)
        state = self._drop("state", key, state)
        return self._drop("output", key, output), state

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of the cell, unless masks of the state need a scan."""
        cell: Any = self.cell
        choice = cell.choose_loop(params, run)
        if run.keys is None:
            return choice
        if self.state_keep_prob < 1:
            # A loop can scale the state by one mask for all steps. It copies
            # element-wise parameters to each row, so if there are any, the rows must
            # share the mask.
            is_fixed = choice.scales_state and self.variational_recurrent
            if not is_fixed or (self.mask_per_row and cell.elementwise_specs()):
                return Choice.scan("the loop cannot apply dropout to the state")
            params = jax.eval_shape(self._with_scales, params, run)
            choice = CellWithScaledState(cell).choose_loop(params, run)
        return choice.within(self._run)

    def _with_scales(self, params: Params, run: Run) -> Params:
        """The parameters of a `CellWithScaledState`, from those of the cell."""
        inputs = masking.first_inputs(run.inputs, run.steps.axis)
        _, types = jax.eval_shape(self.cell.apply, params, inputs, run.state)
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), types)
        keys: Any = run.keys
        scales = self._drop("state", keys(jnp.int32(0)), ones)
        if not self.mask_per_row:  # The loop may copy the scales to each row.
            scales = jax.tree.map(lambda x: x[:1] if x.ndim else x, scales)
        return {"cell": params, "scales": scales}

    def _run(self, loop: Loop, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps, with masks that are drawn before the loop."""
        keys: Any = run.keys
        steps = run.steps

        def drop(salt: str, tree: PyTree) -> PyTree:
            if getattr(self, f"{salt}_keep_prob") == 1:
                return tree
            of_step = functools.partial(self._drop, salt)
            if not self.variational_recurrent:
                return steps.stack(of_step, keys, tree)
            # The key is not mapped, so all steps share one draw.
            all_steps = jax.vmap(of_step, (None, steps.axis), steps.axis)
            return all_steps(keys(jnp.int32(0)), tree)

        inputs = drop("input", run.inputs)
        stream = self._stream("cell", 0)
        inner = run.of_inner(inputs, run.state, keys=lambda t: fold_in(keys(t), stream))
        if self.state_keep_prob < 1:
            params = self._with_scales(params, run)
        outputs, state = loop(params, inner)
        return steps.map_outputs(functools.partial(drop, "output"), outputs), state

    def _drop(self, salt: str, key: Key, tree: PyTree) -> PyTree:
        """Applies dropout to the inputs, the selected state or the output of a step."""
        keep_prob = getattr(self, f"{salt}_keep_prob")
        if keep_prob == 1:
            return tree
        # With the run's key, all steps draw the same mask.
        key = run_key(key) if self.variational_recurrent else key
        is_shared = self.variational_recurrent and not self.mask_per_row
        visitor = self.dropout_state_filter_visitor or _all_but_c
        chosen = _selected(visitor, tree) if salt == "state" else None
        marks = iter(jax.tree.leaves(chosen))
        indices = itertools.count()
        fix = f"Set `{salt}_keep_prob` to 1, or exclude the leaf of a state with "
        fix += "`dropout_state_filter_visitor`."

        def drop_leaf(name: str, leaf: Array) -> Array:
            index = next(indices)
            if not next(marks, True):
                return leaf
            leaf_key = jax.random.fold_in(key, self._stream(salt, index))
            shape = (1, *leaf.shape[1:]) if is_shared and leaf.ndim else leaf.shape
            must = "be floating-point for dropout"
            expect(is_float(leaf), name, must, leaf, fix, error=TypeError)
            if keep_prob == 0:
                return jnp.zeros_like(leaf)
            mask = jax.random.bernoulli(leaf_key, keep_prob, shape)
            return jnp.where(mask, leaf / keep_prob, jnp.zeros((), leaf.dtype))

        return map_named(salt, drop_leaf, tree)

    def _stream(self, salt: str, index: int) -> int:
        """TensorFlow's seed for an operation, which the caller folds into a key."""
        name = f"{self.seed}{salt}_{index}".encode()
        digest = hashlib.md5(name, usedforsecurity=False)
        return int(digest.hexdigest()[:8], 16) & 0x7FFFFFFF


@fields.dataclass
class CellWithScaledState(AffineCell):
    """Runs `cell`, but multiplies each new state by `scales`.

    The parameters are `{"cell": ..., "scales": ...}`. The scales are an element-wise
    parameter, so a loop does not save them for each step.
    """

    cell: AffineCell
    enter: ClassVar[Any] = property(lambda self: self.cell.enter)
    name: ClassVar[Any] = property(lambda self: scope_name(self.cell))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the wrapped cell, of which the last also scales the state."""
        *others, last = self.cell.stages

        def scale(x: Array, scale: Array) -> Array:
            # A scale of 0 also replaces infinity and NaN.
            return jnp.where(scale > 0, x * scale, jnp.zeros((), x.dtype))

        def update(params: Params, z: Array, carry: PyTree) -> Updated:
            output, state = last.update(params, z, carry)
            return output, jax.tree.map(scale, state, params["scales"])

        return (*others, dataclasses.replace(last, update=update))

    def elementwise_specs(self) -> Specs:
        """Specs of the cell's element-wise parameters and of the scales."""
        return self.cell.elementwise_specs() | {"scales": ParamSpec((), zeros)}

    def stage_params(self, params: Params) -> Params:
        """The parameters of the cell's stages, and the scales."""
        return self.cell.stage_params(params["cell"]) | {"scales": params["scales"]}


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
    must = f"return a bool, or {len(children)} bools, one for each part of a nest"
    expect(len(marks) == len(children), "dropout_state_filter_visitor", must, verdict)
    selected = [
        _selected(visitor, child) if mark else jax.tree.map(lambda _: False, child)
        for mark, child in zip(marks, children, strict=True)
    ]
    return treedef.unflatten(selected)
