"""`raw_rnn` as an nnx module."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from .._base.typing import PyTree
from .._cells.base import RNNCell
from .._drivers.raw_rnn import raw_rnn
from .._layers.directions import make_one_direction
from .._tensor_array.tensor_array import TensorArray
from ._parameters import HoldsLayer, Rngs, as_pure


class RawRNN(HoldsLayer):
    """`jaxrnn.raw_rnn` with a cell whose parameters belong to this module.

    A loop function may call other modules, such as an embedding or an output layer, if
    the calls do not change these modules.

    Args:
        cell: The cell.
        in_features: The size of the inputs, or an example of one step of inputs:
            `[batch, ...]` or a nest, as arrays or `jax.ShapeDtypeStruct`s.
        max_time: The bound on the number of steps; required under `jit`.
        swap_memory: As in `jaxrnn.raw_rnn`.
        rngs: The streams for parameters and for random numbers.
        **kwargs: `param_dtype`, `axis_names`, `deterministic` and `rng_collection`, as
            in `RNN`.

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

    def __init__(
        self,
        cell: RNNCell,
        in_features: int | PyTree,
        *,
        max_time: int | None = None,
        swap_memory: Any = False,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ) -> None:
        layer = make_one_direction(cell)
        super().__init__(layer, in_features, rngs=rngs, **kwargs)
        self.max_time, self.swap_memory = max_time, swap_memory

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
            TypeError: If `rngs` is neither a stream nor a key; also as in
                `jaxrnn.raw_rnn`.
            ValueError: As in `jaxrnn.raw_rnn`.
        """
        key = self._draw_key(deterministic, rngs)
        cell = self.layer.bind(as_pure(self.params), key)
        options = {"swap_memory": self.swap_memory, "max_time": self.max_time}
        return raw_rnn(cell, loop_fn, **options)
