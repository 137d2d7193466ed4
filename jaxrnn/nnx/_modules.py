"""`dynamic_rnn` and its bidirectional variants as nnx modules."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._base.arguments import as_count, check_instance
from .._base.errors import describe, error_note
from .._base.expect import expect
from .._base.hints import with_hints
from .._base.inputs import check_shaped
from .._base.like import check_structure
from .._base.math import is_traced
from .._base.trees import named_leaves, with_structure
from .._base.typing import Array, ArrayLike, DType, Key, Lengths, Params, PyTree
from .._cells.base import RNNCell, check_rnn_cell
from .._cells.bound import BoundCell
from .._layers import modules, parameters
from .._layers.modules import BoundCells, Cells
from .._layers.parameters import AxisNames
from ..memory import Strategy

Merge = Callable[[PyTree, PyTree], PyTree]
Rngs = nnx.Rngs | nnx.RngStream | jax.Array
# Flax 0.12.6 and older call this function `nnx.pure`.
as_pure = getattr(nnx, "as_pure", None) or nnx.pure


class _Signature:
    """The signature of a class's constructor, which nnx's metaclass hides."""

    def __get__(self, instance: object | None, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError  # `inspect` then reads the signature of `__call__`.
        _, *parameters = inspect.signature(owner.__init__).parameters.values()
        # The annotation of a field that is not stored, an `InitVar`, holds its type.
        types = [getattr(p.annotation, "type", p.annotation) for p in parameters]
        pairs = zip(parameters, types, strict=True)
        return inspect.Signature([p.replace(annotation=kind) for p, kind in pairs])


class FieldsModule(nnx.Module):
    """An nnx module that is a dataclass."""

    __signature__ = _Signature()

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, list):  # nnx hashes attributes, but lists have no hash.
            value = tuple(value)
        for cell in value if isinstance(value, tuple) else [value]:
            # nnx would reject the arrays of a bound cell with a less clear error.
            if isinstance(cell, BoundCell):
                check_rnn_cell(name, cell)
        super().__setattr__(name, value)


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Recurrent(FieldsModule):
    """What the modules share: options, parameters, a random stream, and a call.

    A module adds the fields of its cells and the argument `in_features`, and its method
    `_cells` returns the cells as `run` expects them.
    """

    time_major: bool = False
    return_carry: bool = False
    return_states: bool = False
    swap_memory: bool | Strategy = False
    parallel_iterations: int | None = None
    implementation: str | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]
    axis_names: dataclasses.InitVar[AxisNames | None] = None
    rng_collection: str = "dropout"
    deterministic: bool | None = False

    def __post_init__(  # pyright: ignore[reportGeneralTypeIssues]
        self,
        rngs: nnx.Rngs,
        axis_names: AxisNames | None,
        in_features: int | PyTree,
    ) -> None:
        cells, stream = self._cells(), self.rng_collection
        self.params = make_params(
            cells, in_features, rngs, self.param_dtype, axis_names
        )
        is_random = modules.are_random(cells)
        if is_random is None:  # `rngs[stream]` falls back to the stream "default".
            is_random = stream in rngs or "default" in rngs
        with error_note(f"The cell draws random numbers from the stream {stream!r}."):
            forked = rngs[stream].fork() if is_random else None
        self.rngs = nnx.data(forked)  # pyright: ignore[reportAttributeAccessIssue]

    def _cells(self) -> Cells:
        raise NotImplementedError

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
        rngs: Rngs | None = None,
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
                module's attribute, which `train()` and `eval()` set.
            return_carry: Whether to also return the state; None to use the module's
                attribute.
            return_states: Whether to also return the state after every step; None to
                use the module's attribute.
            rngs: A key, a stream or `nnx.Rngs` for random numbers, instead of the
                module's stream. If a function under `jax.jit` closes over the module,
                pass a key: the module's stream cannot advance in such a function and
                raises `TraceContextError`.

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
        """
        key = self._draw_key(deterministic, rngs)
        params = as_pure(self.params)
        return modules.run(
            self,
            params,
            key,
            inputs,
            sequence_length,
            initial_state=initial_state,
            resets=resets,
            reset_state=reset_state,
            mask=mask,
            return_carry=return_carry,
            return_states=return_states,
            implementation=self.implementation,
        )

    def _draw_key(self, deterministic: bool | None, rngs: Rngs | None) -> Key | None:
        """The key for one call, or None if the call draws no random numbers."""
        is_quiet = modules.flag("deterministic", deterministic, self.deterministic)
        if is_quiet or modules.are_random(self._cells()) is False:
            return None
        if rngs is not None:
            return draw_key(rngs, self.rng_collection)
        stream = vars(self)["rngs"]
        note = (
            "Raised by the module's random stream. Pass `rngs=key`. If the cell draws "
            "no random numbers, declare `is_random=False`."
        )
        with error_note(note):
            return None if stream is None else stream()

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets whether calls are deterministic by default; called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic

    def get_cells(self) -> BoundCells:
        """The module's bound cells, in the form that `set_cells` accepts."""
        return modules.bind_cells(self._cells(), as_pure(self.params))

    def set_cells(self, *cells: BoundCells) -> None:
        """Copies the parameters of bound cells into the module.

        Args:
            *cells: A bound cell. For two directions, the forward cells and the backward
                cells, as two arguments or as one pair; converters and `get_cells`
                return such a pair.

        Raises:
            TypeError: If an argument is not a bound cell, or if a parameter is complex
                but the module's parameter is real.
            ValueError: If a bound cell is not one of this module's cells, or if its
                parameters have other names or shapes than the module's.
        """
        own = as_pure(self.params)
        params = parameters.params_of_cells(self._cells(), cells)
        _check_fits(own, params)
        arrays = jax.tree.map(_in_place_of, own, params)
        # `nnx.update` expects dicts instead of lists. The conversion keeps the order of
        # the leaves.
        names = nnx.to_pure_dict(nnx.state(self.params))
        nnx.update(self.params, with_structure(names, arrays))


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RNN(Recurrent):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Args:
        cell: The cell, or a `MultiRNNCell` for several layers.
        in_features: The size of the inputs, or an example of one step of inputs:
            `[batch, ...]` or a nest, as arrays or `jax.ShapeDtypeStruct`s.
        reverse: Whether each row is read from its last valid step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, which is also Flax's default, returns the outputs in the
            order of computation: the output of a row's last step comes first.
        rngs: The streams for parameters and for random numbers.
        time_major: Whether time is the first axis of inputs and outputs.
        return_carry: Whether a call returns `(state, outputs)`.
        return_states: Whether a call returns `(outputs, state, states)`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        implementation: As in `jaxrnn.dynamic_rnn`.
        dtype: The dtype of the zero state and of the outputs, and of real inputs,
            parameters and states, which are cast to `dtype`. Complex arrays stay
            complex in the precision of `dtype`. An integer `dtype` casts nothing. None
            for the widest real or complex dtype of inputs and parameters; float32 if
            all are integers.
        param_dtype: The dtype of the parameters, real or complex floating-point.
        axis_names: Names of the parameters' axes, for partitioning: a dict from the
            last part of a parameter's name ("kernel", "bias") to a tuple with a name or
            None for each axis.
        rng_collection: The name of the stream for random numbers. The module forks this
            stream if a cell declares that it draws random numbers, or if a cell
            declares nothing and `rngs` has the stream or a default stream; see
            `jaxrnn.RNNCell.is_random`.
        deterministic: Whether calls draw no random numbers; `train()` and `eval()`
            change this attribute.

    Raises:
        TypeError: If an argument has the wrong type; options that are not needed to
            create parameters are checked in calls.
        ValueError: If `axis_names` does not match the parameters, or if `param_dtype`
            is not floating-point.
        KeyError: If a cell draws random numbers but `rngs` has no stream for them.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> rnn = jaxrnn.nnx.RNN(jaxrnn.LSTMCell(8), 3, rngs=nnx.Rngs(0))
        >>> rnn(jnp.ones((2, 5, 3), jnp.float32), [5, 3]).shape
        (2, 5, 8)
    """

    cell: RNNCell
    in_features: dataclasses.InitVar[int | PyTree]
    reverse: bool = dataclasses.field(default=False, kw_only=True)
    keep_order: bool = dataclasses.field(default=False, kw_only=True)

    def _cells(self) -> Cells:
        return check_rnn_cell("cell", self.cell)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Bidirectional(Recurrent):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`.

    Args:
        cell_fw: The forward cell.
        cell_bw: The backward cell, which has its own parameters.
        in_features: As in `RNN`.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module; the
            default concatenates both outputs along the last axis.
        rngs: As in `RNN`, like all other options.
    """

    cell_fw: RNNCell
    cell_bw: RNNCell
    in_features: dataclasses.InitVar[int | PyTree]
    merge: Merge = dataclasses.field(default=modules.concatenate, kw_only=True)

    def _cells(self) -> Cells:
        cell_fw = check_rnn_cell("cell_fw", self.cell_fw)
        return cell_fw, check_rnn_cell("cell_bw", self.cell_bw)


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class StackBidirectional(Recurrent):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`. Each element of the pair holds one
    state for each layer, lowest layer first.

    Args:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
        in_features: As in `RNN`.
        rngs: As in `RNN`, like all other options.
    """

    cells_fw: Sequence[RNNCell]
    cells_bw: Sequence[RNNCell]
    in_features: dataclasses.InitVar[int | PyTree]

    def _cells(self) -> Cells:
        return modules.as_layers(self.cells_fw, self.cells_bw)


def make_params(
    cells: Cells,
    in_features: int | PyTree,
    rngs: nnx.Rngs,
    dtype: DType,
    axis_names: AxisNames | None = None,
) -> Params:
    """The `nnx.Param`s of a module's cells.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `axis_names` does not match the parameters, or if a size is below
            1.
    """
    fix = "For example, pass `nnx.Rngs(0)`."
    check_instance("rngs", rngs, nnx.Rngs, "nnx.Rngs", fix)
    step = _as_step(in_features)
    names = modules.named_cells(cells)
    keys = zip(names, jax.random.split(rngs.params(), len(names)), strict=True)
    params = {
        name: parameters.init_part(cells, name, key, step, dtype) for name, key in keys
    }
    boxed = parameters.name_axes(axis_names, params, _as_param)
    parameters.check_axis_names(axis_names, params)
    return nnx.data(boxed)


def _as_param(array: Array, names: tuple[str | None, ...]) -> nnx.Param:
    return nnx.Param(array, out_sharding=names) if names else nnx.Param(array)


def _as_step(in_features: int | PyTree) -> PyTree:
    """The types of one step of inputs, from a size or an example.

    Raises:
        TypeError: If `in_features` is neither a size nor an example.
        ValueError: If the size is below 1.
    """
    if isinstance(in_features, int | np.integer):
        size = as_count("in_features", in_features, fix="Pass the size of the inputs.")
        return jax.ShapeDtypeStruct((1, size), jnp.float32)
    check_shaped("in_features", in_features, "Pass the size of the inputs.")
    return in_features


def _check_fits(own: Params, params: Params) -> None:
    """Raises ValueError unless `params` have the names and shapes of `own`.

    Raises TypeError for complex parameters in place of real ones.
    """
    fix = "Bind each cell to parameters from its `init` or from a converter."
    check_structure("`params`", own, params, strict=False, fix=fix)
    given = jax.tree.leaves(params)
    for (name, old), new in zip(named_leaves("params", own), given, strict=True):
        must = f"have the shape of the module's parameter ({describe(old)})"
        fix = "Check that `in_features` is the size of the inputs."
        expect(old.shape == jnp.shape(new), name, must, new, fix)
        fits = jnp.iscomplexobj(old) or not jnp.iscomplexobj(new)
        must = f"be real like the module's parameter ({describe(old)})"
        fix = f"Create the module with `param_dtype=jnp.{jnp.result_type(new)}`."
        expect(fits, name, must, new, fix, error=TypeError)


def _in_place_of(old: Array, new: ArrayLike) -> Array:
    """The new array, with the dtype and the sharding of the old array."""
    array = jnp.asarray(new).astype(old.dtype)
    if is_traced(old) or not old.committed:
        return array
    return jax.device_put(array, old.sharding)


def draw_key(rngs: Rngs | None, stream: str) -> Key:
    """The next key of the stream, or `rngs` itself if it is a key."""
    source = check_instance("rngs", rngs, Rngs, "nnx.Rngs, a stream or a key")
    if isinstance(source, nnx.Rngs):
        return source[stream]()
    return source() if isinstance(source, nnx.RngStream) else source
