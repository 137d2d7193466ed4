"""`raw_rnn` as a linen module."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from .._base.arguments import check_functions
from .._base.errors import InvalidValue, describe
from .._base.typing import Array, PyTree
from .._drivers.raw_rnn import raw_rnn
from .._layers.cells import HoldsCell
from .._tensor_array.tensor_array import TensorArray
from ..memory import Strategy
from ._modules import HoldsParams


class RawRNN(HoldsParams, HoldsCell):
    """`jaxrnn.raw_rnn` with a cell whose parameters belong to this module.

    A loop function may call other modules, such as an embedding or an output layer.
    Construct such modules outside the loop function. Such modules must not change their
    variables, and must not draw from random streams, because every step would get the
    same numbers.

    Attributes:
        cell: The cell.
        max_time: The bound on the number of steps; required under `jit`.
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
        self, loop_fn: Callable, *, deterministic: bool | None = None
    ) -> tuple[TensorArray, PyTree, PyTree]:
        """Returns `(emit_ta, final_state, final_loop_state)`, as `jaxrnn.raw_rnn` does.

        Args:
            loop_fn: The loop function of `jaxrnn.raw_rnn`.
            deterministic: Whether to run without random numbers; None to use the
                attribute of the same name.

        Raises:
            TypeError: If `deterministic` is not a bool; also as in `jaxrnn.raw_rnn`.
            ValueError: If `loop_fn` constructs modules, or if a module that it calls
                draws random numbers from a stream; also as in `jaxrnn.raw_rnn`.
            flax.errors.InvalidRngError: If the cell draws random numbers but the stream
                `rng_collection` is missing, as in `nn.Dropout`.
        """
        check_functions(loop_fn=loop_fn)
        time = jnp.zeros((), jnp.int32)
        _, step, state, _, loop_state = loop_fn(time, None, None, None)
        params = self._params(step)
        if self.is_initializing():
            # The modules that `loop_fn` calls must create their parameters outside the
            # compiled loop.
            output, state = self._bind(params)(step, state)
            loop_fn(time + 1, output, state, loop_state)
            self._check_makes_no_modules()
        else:
            loop_fn = _without_draws(loop_fn, self)
        cell = self._bind(params, self._draw_key(deterministic))
        return raw_rnn(
            cell, loop_fn, swap_memory=self.swap_memory, max_time=self.max_time
        )

    def _check_makes_no_modules(self) -> None:
        """Raises ValueError if the loop function constructed modules."""
        made = [name for name in self.variables["params"] if name not in self._cells()]
        if made:
            raise InvalidValue(
                "`loop_fn` must not construct modules, but it constructed "
                f"{', '.join(made)}. Construct them in the module that calls RawRNN."
            )


def _without_draws(loop_fn: Callable, module: nn.Module) -> Callable:
    """The loop function; raises ValueError if a module draws random numbers in it."""

    def hold(module: nn.Module, call: Callable, *args: Any, **kwargs: Any) -> Any:
        before = dict(getattr(module.scope, "rng_counters", {}))
        result = call(*args, **kwargs)
        if dict(getattr(module.scope, "rng_counters", {})) != before:
            raise InvalidValue(
                "`loop_fn` must not draw random numbers from streams, but "
                f"{describe(module)} does. Keep a key in the loop state, and pass it: "
                "`nn.Dropout(rate)(x, rng=key)`."
            )
        return result

    def watch(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        return hold(context.module, call, *args, **kwargs)

    def watched(time: Array, output: PyTree, *states: PyTree) -> Any:
        if output is None:  # This call runs once, before the loop.
            return loop_fn(time, output, *states)
        with nn.intercept_methods(watch):
            call = loop_fn
            # The loop function may call `make_rng` of an enclosing module.
            for outer in _with_parents(module):
                call = functools.partial(hold, outer, call)
            return call(time, output, *states)

    return watched


def _with_parents(module: Any) -> Iterator[nn.Module]:
    while isinstance(module, nn.Module):
        yield module
        module = module.parent
