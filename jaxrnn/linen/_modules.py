"""`dynamic_rnn`, its bidirectional variants and `raw_rnn` as linen modules."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.arguments import check_function
from .._base.errors import describe
from .._base.hints import with_hints
from .._base.typing import Array, DType, Key, Params, PyTree
from .._drivers.raw_rnn import raw_rnn
from .._layers import modules
from .._layers.cells import (
    AxisNames,
    BoundCells,
    HoldsCell,
    HoldsCells,
    check_axis_names,
    name_axes,
)
from .._tensor_array.tensor_array import TensorArray
from ..memory import Strategy

if TYPE_CHECKING:
    # Linen turns modules into dataclasses at run time, which editors do not see. With
    # this decorator, editors list the fields that linen and nnx modules share.
    from dataclasses import dataclass
else:

    def dataclass(cls: type) -> type:
        return cls


def _partitioned(array: Array, names: tuple[str | None, ...]) -> PyTree:
    return nn.LogicallyPartitioned(array, names) if names else array


@dataclass
class HoldsParams(nn.Module, HoldsCells, kw_only=True):
    """A linen module that holds the parameters of its cells."""

    param_dtype: DType = jnp.float32
    axis_names: AxisNames | None = None
    rng_collection: str = "dropout"
    deterministic: bool | None = None

    @nn.nowrap
    def variables_of(self, *cells: BoundCells) -> Params:
        """The module's variables, containing the parameters of bound cells.

        Args:
            *cells: A bound cell. For two directions, the forward cells and the backward
                cells, as two arguments or as one pair; converters and `cells_of`
                return such a pair.

        Returns:
            `{"params": ...}`, for `apply`. As in the result of `init`, parameters with
            `axis_names` are in boxes.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this module's cells, or if
                `axis_names` does not match the parameters.
        """
        params = self._params_of(*cells)
        boxed = name_axes(self.axis_names, params, _partitioned)
        check_axis_names(self.axis_names, params)
        return {"params": boxed}

    @nn.nowrap
    def cells_of(self, variables: Params) -> BoundCells:
        """Bound cells with the parameters in `variables`; inverts `variables_of`.

        Raises:
            ValueError: If `variables` lacks a parameter of the module.
        """
        params = variables.get("params", {})
        names = self._cells()
        if not names.keys() <= set(params):
            got = ", ".join(map(str, params)) or "none"
            must = f"hold the module's parameters {', '.join(names)}"
            fix = "Pass the variables that `init` or `variables_of` returned."
            raise ValueError(f"`variables` must {must}, got {got}. {fix}")
        return self._bind(nn.meta.unbox(params))

    @nn.nowrap
    def _params(self, step: PyTree = None) -> Params:
        """The parameters, which `init` creates for one step of inputs."""

        def init(key: Key, name: str) -> PyTree:
            params = self._init_part(name, key, step, self.param_dtype)
            return name_axes(self.axis_names, params, _partitioned)

        def get(name: str) -> PyTree:
            # `param` would trace `init` on each call to compare shapes. The cell also
            # compares the shapes, and its error message is clearer.
            if self.has_variable("params", name):
                return nn.meta.unbox(self.get_variable("params", name))
            return self.param(name, init, name)

        params = {name: get(name) for name in self._cells()}
        check_axis_names(self.axis_names, params)
        return params

    @nn.nowrap
    def _next_key(self, rngs: Key | None) -> Key | None:
        if rngs is not None:
            return rngs
        # `make_rng` falls back to the stream "params".
        streams = (self.rng_collection, "params")
        if self._declared_random() or any(map(self.has_rng, streams)):
            return self.make_rng(self.rng_collection)
        return None


class Recurrent(modules.Recurrent, HoldsParams):
    """The base class of `RNN` and its bidirectional variants; see `RNN`."""

    __call__ = nn.compact(modules.Recurrent.__call__)

    @nn.nowrap
    def _implementation(self) -> str | None:
        # `init` must also run on devices that the implementation does not support.
        return None if self.is_initializing() else self.implementation


@with_hints
@dataclass
class RNN(Recurrent, modules.OneDirection):
    """A jaxrnn cell that runs over sequences: `jaxrnn.dynamic_rnn` as a module.

    Attributes:
        cell: The cell, or a `MultiRNNCell` for several layers.
        reverse: Whether each row is read from its last valid step to its first.
        keep_order: Whether a reversed run returns its outputs in the order of the
            inputs. False, which is also Flax's default, returns the outputs in the
            order of computation: the output of a row's last step comes first.
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
        rng_collection: The name of the stream for random numbers.
        deterministic: Whether calls draw no random numbers; None means False. The
            argument of a call overrides the attribute. The attribute is static under
            `nn.jit` and `nn.remat`; the argument is not.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> rnn = jaxrnn.linen.RNN(jaxrnn.LSTMCell(8))
        >>> x = jnp.ones((2, 5, 3), jnp.float32)
        >>> variables = rnn.init(jax.random.key(0), x)
        >>> rnn.apply(variables, x, [5, 3]).shape
        (2, 5, 8)
    """


@with_hints
@dataclass
class Bidirectional(Recurrent, modules.TwoDirections):
    """A forward and a backward cell: `jaxrnn.bidirectional_dynamic_rnn` as a module.

    The state is a pair `(state_fw, state_bw)`. For the other attributes, see `RNN`.

    Attributes:
        cell_fw: The forward cell.
        cell_bw: The backward cell, which has its own parameters.
        merge: `merge(outputs_fw, outputs_bw)` returns the outputs of the module; the
            default concatenates both outputs along the last axis.
    """


@with_hints
@dataclass
class StackBidirectional(Recurrent, modules.Stack):
    """Bidirectional layers: `jaxrnn.stack_bidirectional_dynamic_rnn` as a module.

    The state is a pair `(states_fw, states_bw)`. Each element of the pair holds one
    state for each layer, lowest layer first. For the other attributes, see `RNN`.

    Attributes:
        cells_fw: The forward cells, one for each layer, lowest layer first.
        cells_bw: The backward cells, in the same order.
    """


@with_hints
@dataclass
class RawRNN(HoldsParams, HoldsCell):
    """`jaxrnn.raw_rnn` with a cell whose parameters belong to this module.

    A loop function may call other modules, such as an embedding or an output layer.
    Construct such modules outside the loop function. Such modules must not change their
    variables, and must not draw from random streams, because every step would get the
    same numbers.

    Attributes:
        cell: The cell.
        max_time: The maximum number of steps, as in `jaxrnn.raw_rnn`; required under
            `jit` unless nothing is emitted and no reverse-mode derivative is taken.
        swap_memory: As in `jaxrnn.raw_rnn`.
        param_dtype: As in `RNN`.
        axis_names: As in `RNN`.
        rng_collection: As in `RNN`.
        deterministic: As in `RNN`.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, jaxrnn, jaxrnn.linen
        >>> class Decoder(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, state):
        ...         embed = nn.Embed(10, 4)
        ...         logits = nn.Dense(10)
        ...         def loop_fn(time, output, cell_state, loop_state):
        ...             if output is None:  # Before the first step.
        ...                 ids = jnp.zeros(2, jnp.int32)
        ...                 return jnp.zeros(2, bool), embed(ids), state, ids[0], None
        ...             ids = jnp.argmax(logits(output), -1).astype(jnp.int32)
        ...             return ids == 1, embed(ids), cell_state, ids, None
        ...         rnn = jaxrnn.linen.RawRNN(jaxrnn.GRUCell(8), max_time=6)
        ...         emit_ta, _, _ = rnn(loop_fn)
        ...         return emit_ta.stack()
        >>> decoder, state = Decoder(), jnp.ones((2, 8), jnp.float32)
        >>> variables = decoder.init(jax.random.key(0), state)
        >>> decoder.apply(variables, state).shape
        (6, 2)
    """

    max_time: int | None = None
    swap_memory: bool | Strategy = False

    @nn.compact
    def __call__(
        self,
        loop_fn: Callable,
        *,
        deterministic: bool | None = None,
        rngs: Key | None = None,
    ) -> tuple[TensorArray, PyTree, PyTree]:
        """Returns `(emit_ta, final_state, final_loop_state)`, as `jaxrnn.raw_rnn` does.

        Args:
            loop_fn: The loop function of `jaxrnn.raw_rnn`.
            deterministic: Whether to run without random numbers; None to use the
                attribute of the same name.
            rngs: A key for random numbers, instead of the module's stream.

        Raises:
            TypeError: If `deterministic` is not a bool; see also `jaxrnn.raw_rnn`.
            ValueError: If `loop_fn` constructs modules, or if a module that it calls
                draws random numbers from a stream; see also `jaxrnn.raw_rnn`.
            flax.errors.InvalidRngError: If the cell draws random numbers but the stream
                `rng_collection` is missing, as in `nn.Dropout`.
        """
        check_function("loop_fn", loop_fn)
        time = jnp.zeros((), jnp.int32)
        _, step, state, _, loop_state = loop_fn(time, None, None, None)
        cell = self._bind(self._params(step), self._draw_key(deterministic, rngs))
        if self.is_initializing():
            # The modules that `loop_fn` calls must create their parameters outside the
            # compiled loop.
            output, state = cell(step, state)
            loop_fn(time + 1, output, state, loop_state)
            self._check_makes_no_modules()
        else:
            loop_fn = _without_draws(loop_fn, self)
        return raw_rnn(
            cell, loop_fn, swap_memory=self.swap_memory, max_time=self.max_time
        )

    def _check_makes_no_modules(self) -> None:
        """Raises ValueError if the loop function constructed modules."""
        made = [name for name in self.variables["params"] if name not in self._cells()]
        if made:
            raise ValueError(
                f"`loop_fn` must not construct modules, got {', '.join(made)}. "
                "Construct modules in the module that calls RawRNN."
            )


def _without_draws(loop_fn: Callable, module: nn.Module) -> Callable:
    """The loop function; raises ValueError if a module draws random numbers in it."""

    def watched(time: Array, output: PyTree, *states: PyTree) -> tuple:
        if output is None:  # This call runs once, before the loop.
            return loop_fn(time, output, *states)
        # Also watch enclosing modules: `loop_fn` could call `make_rng` on one of them.
        seen = [(outer, _count_draws(outer)) for outer in _with_parents(module)]

        def watch(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            seen.append((context.module, _count_draws(context.module)))
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            results = loop_fn(time, output, *states)
        for each, count in seen:
            if _count_draws(each) != count:
                raise ValueError(
                    "`loop_fn` must not draw random numbers from streams, got a draw "
                    f"by {describe(each)}. Keep a key in the loop state, and pass the "
                    "key to the module, as in `nn.Dropout(rate)(x, rng=key)`."
                )
        return results

    return watched


def _count_draws(module: nn.Module) -> dict[str, int]:
    """The number of draws from each stream of a module."""
    return dict(getattr(module.scope, "rng_counters", {}))


def _with_parents(module: Any) -> Iterator[nn.Module]:
    while isinstance(module, nn.Module):
        yield module
        module = module.parent
