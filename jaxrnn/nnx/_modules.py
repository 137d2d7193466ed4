"""`dynamic_rnn`, its bidirectional variants and `raw_rnn` as nnx modules."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from .._base.errors import error_note
from .._base.hints import with_hints
from .._base.trees import with_structure
from .._base.typing import DType, Key, Params, PyTree
from .._drivers.raw_rnn import raw_rnn
from .._layers import modules
from .._layers.cells import AxisNames, BoundCells, HoldsCell, HoldsCells
from .._tensor_array.tensor_array import TensorArray
from ..memory import Strategy
from ._parameters import (
    FieldsModule,
    Rngs,
    as_pure,
    check_fits,
    draw_key,
    in_place_of,
    make_params,
)


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class HoldsParams(FieldsModule, HoldsCells):
    """An nnx module that holds the parameters of its cells, and a random stream.

    The constructor of a subclass has the argument `in_features` after the cells.
    """

    rngs: dataclasses.InitVar[nnx.Rngs]
    param_dtype: DType = jnp.float32
    axis_names: dataclasses.InitVar[AxisNames | None] = None
    rng_collection: str = "dropout"
    deterministic: bool | None = False

    def __post_init__(  # pyright: ignore[reportGeneralTypeIssues]
        self, rngs: nnx.Rngs, axis_names: AxisNames | None, in_features: int | PyTree
    ) -> None:
        stream = self.rng_collection
        self.params = make_params(self, in_features, rngs, self.param_dtype, axis_names)
        is_random = self._declared_random()
        if is_random is None:  # `rngs[stream]` falls back to the stream "default".
            is_random = stream in rngs or "default" in rngs
        forked = None
        if is_random:
            with error_note(
                f"The cell draws random numbers from the stream {stream!r}."
            ):
                forked = rngs[stream].fork()
        self.rngs = nnx.data(forked)  # pyright: ignore[reportAttributeAccessIssue]

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets whether calls are deterministic by default; called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic

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
        own = self._params()
        params = self._params_of(*cells)
        check_fits(own, params)
        arrays = jax.tree.map(in_place_of, own, params)
        # `nnx.update` expects dicts instead of lists. The conversion keeps the order of
        # the leaves.
        names = nnx.to_pure_dict(nnx.state(self.params))
        nnx.update(self.params, with_structure(names, arrays))

    def get_cells(self) -> BoundCells:
        """The module's bound cells, in the form that `set_cells` accepts."""
        return self._bind(self._params())

    def _params(self, step: PyTree = None) -> Params:
        return as_pure(self.params)

    def _next_key(self, rngs: Rngs | None) -> Key | None:
        if rngs is not None:
            return draw_key(rngs, self.rng_collection)
        note = (
            "Raised by the module's random stream. Pass `rngs=key`. If the cell draws "
            "no random numbers, declare `is_random=False`."
        )
        stream = vars(self)["rngs"]
        with error_note(note):
            return None if stream is None else stream()


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RNN(modules.OneDirection, HoldsParams):
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

    in_features: dataclasses.InitVar[int | PyTree]


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class Bidirectional(modules.TwoDirections, HoldsParams):
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

    in_features: dataclasses.InitVar[int | PyTree]


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class StackBidirectional(modules.Stack, HoldsParams):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`. Each element of the pair holds one
    state for each layer, lowest layer first.

    Args:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
        in_features: As in `RNN`.
        rngs: As in `RNN`, like all other options.
    """

    in_features: dataclasses.InitVar[int | PyTree]


@with_hints
@dataclasses.dataclass(eq=False, repr=False)
class RawRNN(HoldsCell, HoldsParams):
    """`jaxrnn.raw_rnn` with a cell whose parameters belong to this module.

    A loop function may call other modules, such as an embedding or an output layer, if
    the calls do not change these modules.

    Args:
        cell: The cell.
        in_features: The size of the inputs, or an example of one step of inputs:
            `[batch, ...]` or a nest, as arrays or `jax.ShapeDtypeStruct`s.
        max_time: The maximum number of steps, as in `jaxrnn.raw_rnn`; required under
            `jit` unless nothing is emitted and no reverse-mode derivative is taken.
        swap_memory: As in `jaxrnn.raw_rnn`.
        rngs: The streams for parameters and for random numbers.
        param_dtype: As in `RNN`.
        axis_names: As in `RNN`.
        rng_collection: As in `RNN`.
        deterministic: As in `RNN`.

    Example:
        >>> import jax.numpy as jnp, jaxrnn, jaxrnn.nnx
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> rnn = jaxrnn.nnx.RawRNN(jaxrnn.GRUCell(8), 4, max_time=6, rngs=rngs)
        >>> embed, logits = nnx.Embed(10, 4, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)
        >>> def loop_fn(time, output, cell_state, loop_state):
        ...     if output is None:  # Before the first step.
        ...         ids, state = jnp.zeros(2, jnp.int32), jnp.ones((2, 8), jnp.float32)
        ...         return jnp.zeros(2, bool), embed(ids), state, ids[0], None
        ...     ids = jnp.argmax(logits(output), -1).astype(jnp.int32)
        ...     return ids == 1, embed(ids), cell_state, ids, None
        >>> emit_ta, _, _ = rnn(loop_fn)
        >>> emit_ta.stack().shape
        (6, 2)
    """

    in_features: dataclasses.InitVar[int | PyTree]
    max_time: int | None = dataclasses.field(default=None, kw_only=True)
    swap_memory: bool | Strategy = dataclasses.field(default=False, kw_only=True)

    def __call__(
        self,
        loop_fn: Callable,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | None = None,
    ) -> tuple[TensorArray, PyTree, PyTree]:
        """Returns `(emit_ta, final_state, final_loop_state)`, as `jaxrnn.raw_rnn` does.

        Args:
            loop_fn: The loop function of `jaxrnn.raw_rnn`.
            deterministic: Whether to run without random numbers; None to use the value
                set by the constructor, `train()` or `eval()`.
            rngs: A stream or a key for random numbers, instead of the module's stream.

        Raises:
            TypeError: If `rngs` is neither a stream nor a key; see also
                `jaxrnn.raw_rnn`.
            ValueError: As in `jaxrnn.raw_rnn`.
        """
        key = self._draw_key(deterministic, rngs)
        cell = self._bind(self._params(), key)
        return raw_rnn(
            cell, loop_fn, swap_memory=self.swap_memory, max_time=self.max_time
        )
