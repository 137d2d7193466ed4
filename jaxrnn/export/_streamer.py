"""A cell frame by frame, as frames arrive."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_dtype, check_is_cell
from .._base.errors import Words, refusal
from .._base.inputs import as_state, zero_state
from .._base.trees import is_pytree_of_arrays, with_structure
from .._base.typing import DType, PyTree, RNNCellLike


class Streamer:
    """Runs a cell frame by frame and keeps its state between the calls.

    The outputs are those of `dynamic_rnn` over the sequence of all frames, up to
    rounding; of more than 8 rows on a CPU those of its `implementation="xla"` bit for
    bit. Of fewer it may compute the products of the inputs ahead.

    A step is compiled at the first call; equal cells share the program. Then a call
    takes the time of one step: its state is overwritten in place.

    Args:
        cell: A bound cell. Without a key, dropout does nothing.
        batch_size: The number of rows, each a stream of its own.
        dtype: That of the zero state. A cell whose state may be wider than its inputs
            has outputs of the dtype of the frames.

    Raises:
        TypeError: If `cell` is not a bound cell.
        ValueError: If `cell` has a random key, or `batch_size` is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell, frames = jaxrnn.GRUCell(4), jnp.ones((10, 1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), frames[0]))
        >>> stream = jaxrnn.export.Streamer(bound)
        >>> outputs = [stream(frame) for frame in frames]
        >>> outputs[-1].shape, bool((outputs[-1] == stream.state).all())
        ((1, 4), True)

    Source: ours.
    """

    def __init__(
        self, cell: RNNCellLike, batch_size: int = 1, dtype: DType = jnp.float32
    ) -> None:
        caller = "Streamer"
        check_cell_of_stream(caller, "cell", cell)
        batch_size = as_count(caller, "batch_size", batch_size)
        dtype = as_dtype(caller, dtype)
        self._cell = jax.device_put(cell)  # Once, if its parameters are NumPy's.
        self._zero = zero_state(caller, cell, batch_size, dtype)
        self.reset()

    def __call__(self, frame: PyTree) -> PyTree:
        """The output for the next frame.

        Args:
            frame: `[batch, depth]`, or what else the cell takes as one step.

        Returns:
            The output of the cell, `[batch, size]`.

        Raises:
            ValueError: If the frame does not fit the cell, or the batch; then the state
                is as before.
            TypeError: If its dtype does not.
        """
        # JAX may read NumPy's arrays after the call has returned, when the user has
        # already written the next frame into them.
        copy = lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf)
        frame = jax.tree.map(copy, frame)
        output, self._state = _step(self._cell, self._state, frame)
        return output

    @property
    def state(self) -> PyTree:
        """A copy of the state after the last frame, each leaf `[batch, ...]`."""
        return jax.tree.map(jnp.copy, self._state)

    def reset(self, state: PyTree = None) -> None:
        """Starts a new sequence.

        Args:
            state: Its initial state, such as the `state` of an earlier stream, each
                leaf `[batch, ...]`; None for zeros.
        """
        if state is None:
            state = self._zero
        # Each step destroys the state before it, which may be the user's.
        self._state = jax.tree.map(jnp.copy, as_state("Streamer", "state", state))


@functools.partial(jax.jit, donate_argnums=1)
def _step(cell: RNNCellLike, state: PyTree, frame: PyTree) -> tuple[PyTree, PyTree]:
    """`(output, new_state)`."""
    output, new_state = cell(frame, state)
    return output, with_structure(state, new_state)


def check_cell_of_stream(caller: str, name: str, cell: Any) -> None:
    """Raises unless `cell` can be an argument of a compiled step, and has no key."""
    check_is_cell(caller, name, cell)
    if getattr(cell, "key", None) is not None:
        must = "have no random key, as a stream has no number of steps to fold into it"
        fix = "Bind it without."
        raise ValueError(refusal(caller, name, must, Words("a cell with a key"), fix))
    if not is_pytree_of_arrays(cell):
        must = "be a pytree of its parameters, as bound cells are"
        fix = "`cell.bind(params)` makes one."
        raise TypeError(refusal(caller, name, must, cell, fix))
