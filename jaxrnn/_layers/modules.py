"""The options, cells and runs that the modules of linen and nnx share.

A module of linen or nnx inherits from a class of this file, which holds and runs the
cells, and from a class of `jaxrnn.linen` or `jaxrnn.nnx`, which holds the parameters
and the random streams.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from .._base.arguments import as_bool, check_both_lists, check_instance, is_list_of
from .._base.errors import describe
from .._base.expect import expect
from .._base.hints import with_hints
from .._base.trees import output_of
from .._base.typing import ArrayLike, DType, Key, Lengths, Params, PyTree
from .._cells.base import RNNCell
from .._drivers.bidirectional import (
    bidirectional_dynamic_rnn,
    joined,
    run_backward,
)
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.stack_bidirectional import run_layers
from ..memory import Strategy
from .batch_axes import first_step, merge, merge_inputs, split
from .cells import (
    DIRECTIONS,
    BoundCells,
    Cells,
    HoldsCell,
    HoldsCells,
    both_directions,
    compute_dtype,
    flag,
    in_dtype,
    list_bound,
    list_cells,
    params_of_cells,
    under_scope,
)

Merge: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""`merge(outputs_fw, outputs_bw)` returns the outputs of a module."""


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Recurrent(HoldsCells):
    """A module that runs its cells over sequences; see `RNN`."""

    time_major: bool = False
    return_carry: bool = False
    return_states: bool = False
    swap_memory: bool | Strategy = False
    parallel_iterations: int | None = None
    implementation: str | None = None
    dtype: DType | None = None

    @with_hints
    def __call__(
        self,
        inputs: PyTree,
        sequence_length: Lengths | None = None,
        *,
        initial_state: PyTree = None,
        resets: ArrayLike | None = None,
        reset_state: PyTree = None,
        mask: ArrayLike | None = None,
        deterministic: bool | None = None,
        return_carry: bool | None = None,
        return_states: bool | None = None,
        rngs: Key | None = None,
    ) -> PyTree:
        """Runs the module over sequences.

        Args:
            inputs: `[*batch, time, ...]`, or `[time, *batch, ...]` if `time_major`; or
                a nest of such arrays, with any number of batch axes, including none.
                For a cell without `feature_axes`, such as a `FunctionCell`, the inputs
                must have as many batch axes as `sequence_length`, or one batch axis if
                there are no lengths.
            sequence_length: `[*batch]`, integers, clamped to `[0, time]`; None for all
                steps. Inputs past the length of a row have no effect, and outputs there
                are zero. Flax calls this argument `seq_lengths`.
            initial_state: The state before the first step, each leaf `[*batch, ...]`;
                None for the zero state. With two directions, either state of the pair
                may be None. Real leaves are cast to `dtype`; complex leaves stay
                complex. Flax calls this argument `initial_carry`.
            resets: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`: True
                where the state of a row is reset before the step, for example at the
                start of an episode. See `jaxrnn.dynamic_rnn` and
                `jaxrnn.bidirectional_dynamic_rnn`.
            reset_state: The state after a reset, in the form of `initial_state`; None
                for the zero state. Only `RNN` supports this argument; bidirectional
                modules always reset to zeros.
            mask: Bool `[*batch, time]`, or `[time, *batch]` if `time_major`; an
                alternative to `sequence_length`. True at valid steps, False at masked
                steps; gaps are allowed. See `jaxrnn.dynamic_rnn`. A reversed run
                reverses all steps, including masked steps.
            deterministic: Whether to run without random numbers; None to use the
                module's attribute, which `train()` and `eval()` of nnx set.
            return_carry: Whether to also return the state; None to use the module's
                attribute.
            return_states: Whether to also return the state after every step; None to
                use the module's attribute.
            rngs: A key for random numbers, instead of the module's stream; in nnx, also
                a stream or `nnx.Rngs`. If a function under `jax.jit` closes over an nnx
                module, pass a key: the module's stream cannot advance in such a
                function and raises `TraceContextError`.

        Returns:
            The outputs, `[*batch, time, ...]`, or `[time, *batch, ...]` if
            `time_major`. With `return_carry`, the pair `(state, outputs)`, in Flax's
            order. With `return_states`, `(outputs, state, states)`, as in
            `jaxrnn.dynamic_rnn`, regardless of `return_carry`. With two directions,
            `states` is a pair, as in `jaxrnn.bidirectional_dynamic_rnn`.

        Raises:
            TypeError: If an option has the wrong type, or if `rngs` is neither a stream
                nor a key; see also `jaxrnn.dynamic_rnn`.
            ValueError: As in `jaxrnn.dynamic_rnn`.
            flax.errors.InvalidRngError: In linen, if a cell declares that it draws
                random numbers but the stream `rng_collection` is missing.
        """
        first, *_ = list_cells(self._cells())
        start = 1 if self.time_major else 0
        inputs, lengths, shape = merge_inputs(
            first, inputs, sequence_length, start, self.dtype
        )
        params = self._params(first_step(inputs, start))
        key = self._draw_key(deterministic, rngs)
        dtype = compute_dtype(self.dtype, (inputs, params))
        outputs, state, *states = self._drive(
            self._bind(in_dtype(dtype, params), key),
            in_dtype(dtype, inputs),
            in_dtype(dtype, merge("initial_state", initial_state, shape)),
            sequence_length=lengths,
            dtype=dtype,
            parallel_iterations=self.parallel_iterations,
            swap_memory=self.swap_memory,
            time_major=self.time_major,
            resets=merge("resets", resets, shape, start),
            reset_state=in_dtype(dtype, merge("reset_state", reset_state, shape)),
            implementation=self._implementation(),
            mask=merge("mask", mask, shape, start),
            return_states=flag("return_states", return_states, self.return_states),
        )
        outputs, states = split((outputs, states), shape, start)
        state = split(state, shape)
        return self._results(outputs, state, states, return_carry)

    def _results(
        self, outputs: PyTree, state: PyTree, states: list, return_carry: bool | None
    ) -> PyTree:
        """The results that were requested; `states` is empty or has one entry."""
        if states:
            return outputs, state, *states
        has_carry = flag("return_carry", return_carry, self.return_carry)
        return (state, outputs) if has_carry else outputs

    def _implementation(self) -> str | None:
        """The `implementation` of a call; in linen, None while creating parameters."""
        return self.implementation

    def _drive(
        self, cells: BoundCells, inputs: PyTree, state: PyTree, **options: Any
    ) -> tuple[PyTree, ...]:
        """Runs the cells; returns `(outputs, state)`, and `states` if requested.

        Args:
            cells: The bound cells, in the structure of the constructor's arguments.
            inputs: The inputs, with one batch axis.
            state: The initial state, or None.
            **options: The other arguments of `dynamic_rnn`.
        """
        raise NotImplementedError


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class OneDirection(Recurrent, HoldsCell):
    """A module that runs `dynamic_rnn`, over reversed rows if `reverse` is True."""

    reverse: bool = False
    keep_order: bool = False

    def _drive(
        self, cells: BoundCells, inputs: PyTree, state: PyTree, **options: Any
    ) -> tuple[PyTree, ...]:
        keep_order = as_bool("keep_order", self.keep_order)
        if not as_bool("reverse", self.reverse):
            return dynamic_rnn(cells, inputs, initial_state=state, **options)
        options |= {"initial_state": state, "keep_order": keep_order}
        return run_backward(cells, inputs, **options)


def concatenate(outputs_fw: PyTree, outputs_bw: PyTree) -> PyTree:
    """Concatenates the outputs of both directions along the last axis of each leaf."""
    return joined(outputs_fw, outputs_bw, axis=-1)


@dataclasses.dataclass(eq=False, repr=False)
class TwoDirections(Recurrent):
    """A module that runs `bidirectional_dynamic_rnn`, and merges the outputs."""

    cell_fw: RNNCell
    cell_bw: RNNCell
    merge: Merge = dataclasses.field(default=concatenate, kw_only=True)

    def _cells(self) -> Cells:
        fw = under_scope("cell_fw", self.cell_fw)
        return {"fw": fw, "bw": under_scope("cell_bw", self.cell_bw)}

    def _params_of(self, *cells: BoundCells) -> Params:
        return params_of_cells(self._cells(), both_directions(cells))

    def _drive(
        self, cells: BoundCells, inputs: PyTree, state: PyTree, **options: Any
    ) -> tuple[PyTree, ...]:
        fix = "To add the outputs, pass `jnp.add`."
        check_instance("merge", self.merge, Callable, "a function of both outputs", fix)
        cell_fw, cell_bw = cells
        what = "a pair (state_fw, state_bw)"
        state_fw, state_bw = _pair(what, state, options.pop("reset_state"))
        outputs, *states = bidirectional_dynamic_rnn(
            cell_fw,
            cell_bw,
            inputs,
            initial_state_fw=state_fw,
            initial_state_bw=state_bw,
            **options,
        )
        return self.merge(*outputs), *states


def _pair(what: str, state: PyTree, reset_state: PyTree) -> tuple[PyTree, PyTree]:
    """The initial states of both directions, or two Nones.

    Raises:
        ValueError: If `state` is not a pair, or if there is a `reset_state`.
    """
    if reset_state is not None:
        raise ValueError(
            "`reset_state` must be None for a bidirectional module, which always "
            f"resets the state to zeros, got {describe(reset_state)}."
        )
    pair = (None, None) if state is None else state
    expect(is_list_of(pair, 2), "initial_state", f"be {what}", pair)
    return pair


@dataclasses.dataclass(eq=False, repr=False)
class Stack(Recurrent):
    """A module that runs layers of `bidirectional_dynamic_rnn`.

    Each layer reads both outputs of the layer below.
    """

    cells_fw: Sequence[RNNCell]
    cells_bw: Sequence[RNNCell]

    def _cells(self) -> Cells:
        check_both_lists(self.cells_fw, self.cells_bw)
        cells = {}
        for i, (fw, bw) in enumerate(zip(self.cells_fw, self.cells_bw, strict=True)):
            fw = under_scope(f"cells_fw[{i}]", fw)
            bw = under_scope(f"cells_bw[{i}]", bw)
            cells[f"cell_{i}"] = {"fw": fw, "bw": bw}
        return cells

    def _init_part(self, name: str, key: Key, step: PyTree, dtype: DType) -> Params:
        for below, layer in self._cells().items():
            if below == name:
                break
            fw, bw = (output_of(c, {}, step, dtype) for c in list_cells(layer))
            step = jax.eval_shape(concatenate, fw, bw)
        return super()._init_part(name, key, step, dtype)

    def _bind(self, params: Params, key: Key | None = None) -> BoundCells:
        return tuple(zip(*super()._bind(params, key), strict=True))

    def _params_of(self, *cells: BoundCells) -> Params:
        count = len(self.cells_fw)
        pairs = zip(both_directions(cells), DIRECTIONS.values(), strict=True)
        directions = [list_bound(count, cells, what) for cells, what in pairs]
        return params_of_cells(self._cells(), list(zip(*directions, strict=True)))

    def _drive(
        self, cells: BoundCells, inputs: PyTree, state: PyTree, **options: Any
    ) -> tuple[PyTree, ...]:
        what = "a pair (states_fw, states_bw), each with one state per layer"
        starts = _pair(what, state, options.pop("reset_state"))

        def run(*cells_and_inputs: Any, **of_layer: Any) -> tuple[PyTree, ...]:
            outputs, *states = bidirectional_dynamic_rnn(
                *cells_and_inputs, **of_layer, **options
            )
            return concatenate(*outputs), *zip(*states, strict=True)

        outputs, fw, bw = run_layers(run, inputs, cells, starts, None)
        # For each layer, `fw` and `bw` hold the final state and, if requested, the
        # states of all steps.
        of_layers = (zip(*direction, strict=True) for direction in (fw, bw))
        return outputs, *zip(*of_layers, strict=True)
