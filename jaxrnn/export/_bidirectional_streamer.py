"""Bidirectional layers chunk by chunk, with a bounded look-ahead."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_dtype, check_both_lists
from .._base.errors import describe
from .._base.trees import named_leaves
from .._base.typing import Array, DType, PyTree, RNNCellLike
from .._drivers.bidirectional import joined
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.initial_state import zero_state
from .._time import masking
from ._streamer import check_cell_of_stream

_CALLER = "BidirectionalStreamer"


class BidirectionalStreamer:
    """Runs bidirectional layers chunk by chunk, looking ahead by some steps.

    The forward cells carry their states from chunk to chunk. The backward cells start
    from zeros `lookahead` steps past the end of each chunk, or at the end of the
    sequence if that is earlier. So one layer gives the outputs of
    `stack_bidirectional_dynamic_rnn` wherever its look-ahead reaches the end; several
    layers do if all look-aheads reach it, since a forward cell reads the backward
    outputs below.

    Every call runs one program, which is compiled at the first output, over
    `chunk + lookahead` steps: a short chunk has little delay and much work.

    Args:
        cells_fw: A bound cell for each layer, as in `stack_bidirectional_dynamic_rnn`.
            Without a key, dropout does nothing.
        cells_bw: The same for the backward direction.
        chunk: The number of steps of a chunk.
        lookahead: The number of steps past a chunk that its outputs depend on.
        batch_size: The number of rows, all at the same step.
        dtype: That of the zero states and of the outputs.

    Raises:
        TypeError: If a cell is not a bound cell, or a number is not an integer.
        ValueError: If the lists are empty or differ in length, a cell has a random key,
            or a number is too small.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell, x = jaxrnn.GRUCell(4), jnp.ones((1, 10, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
        >>> stream = jaxrnn.export.BidirectionalStreamer([bound], [bound], 4, 3)
        >>> stream(x[:, :4])  # The look-ahead has not arrived.
        >>> stream(x[:, 4:8]).shape, stream.flush(x[:, 8:]).shape
        ((1, 4, 8), (1, 6, 8))

    Source: latency-controlled bidirectional LSTMs, arXiv:1510.08983.
    """

    def __init__(
        self,
        cells_fw: Sequence[RNNCellLike],
        cells_bw: Sequence[RNNCellLike],
        chunk: int,
        lookahead: int,
        batch_size: int = 1,
        dtype: DType = jnp.float32,
    ) -> None:
        check_both_lists(_CALLER, cells_fw, cells_bw)
        for i, pair in enumerate(zip(cells_fw, cells_bw, strict=True)):
            check_cell_of_stream(_CALLER, f"cells_fw[{i}]", pair[0])
            check_cell_of_stream(_CALLER, f"cells_bw[{i}]", pair[1])
        # Once, if the parameters are NumPy's.
        self._cells = jax.device_put((tuple(cells_fw), tuple(cells_bw)))
        self._chunk = as_count(_CALLER, "chunk", chunk, fix="")
        self._lookahead = as_count(_CALLER, "lookahead", lookahead, 0, fix="")
        self._batch = as_count(_CALLER, "batch_size", batch_size)
        self._dtype = as_dtype(_CALLER, dtype)
        self._ahead = -(-self._lookahead // self._chunk)  # Chunks, rounded up.
        self.reset()

    def __call__(self, chunk: PyTree) -> PyTree:
        """The outputs of the oldest chunk whose look-ahead has arrived.

        Args:
            chunk: The next steps, `[batch, chunk, depth]`.

        Returns:
            `[batch, chunk, size]`, both directions concatenated; None while the
            look-ahead of the first chunk has not arrived.

        Raises:
            ValueError: If `chunk` has another number of rows or steps.
        """
        self._append(chunk, exactly=True)
        if len(self._waiting) <= self._ahead:
            return None
        return self._oldest()

    def flush(self, last: PyTree = None) -> PyTree:
        """The outputs that are left at the end of the sequence; the next one may start.

        Args:
            last: The last steps, if they are no whole chunk, `[batch, steps, depth]`.

        Returns:
            `[batch, steps left, size]`; None if there are none.

        Raises:
            ValueError: If `last` has another number of rows, or is not 1 to `chunk`
                steps long.
        """
        if last is not None:
            self._append(last, exactly=False)
        outputs = []
        while self._waiting:
            steps = min(self._steps, self._chunk)
            each = self._oldest()
            outputs.append(jax.tree.map(lambda y, n=steps: y[:, :n], each))
        self.reset()
        if not outputs:
            return None
        return jax.tree.map(lambda *ys: jnp.concatenate(ys, axis=1), *outputs)

    @property
    def state(self) -> tuple[PyTree, ...]:
        """A copy of the forward states, after the last step that was returned."""
        return jax.tree.map(jnp.copy, self._states)

    def reset(self) -> None:
        """Starts a new sequence; outputs that are left are dropped."""
        zero = lambda cell: zero_state(_CALLER, cell, self._batch, self._dtype)
        self._states = tuple(map(zero, self._cells[0]))
        self._waiting: list[PyTree] = []  # Chunks without outputs, padded.
        self._steps = 0  # Theirs, without padding.

    def _append(self, chunk: PyTree, exactly: bool) -> None:
        steps = _checked_steps(chunk, self._batch, self._chunk, exactly)
        missing = self._chunk - steps

        def padded(leaf: Any) -> np.ndarray:  # A copy: the caller may reuse a buffer.
            widths = [(0, 0), (0, missing), *[(0, 0)] * (np.ndim(leaf) - 2)]
            return np.pad(np.asarray(leaf), widths)

        self._waiting.append(jax.tree.map(padded, chunk))
        self._steps += steps

    def _oldest(self) -> PyTree:
        """The outputs of the oldest chunk, which is then forgotten."""
        window = self._waiting[: self._ahead + 1]
        absent = self._ahead + 1 - len(window)
        window += [jax.tree.map(np.zeros_like, window[0])] * absent
        static = {"lookahead": self._lookahead, "dtype": self._dtype}
        arrays = *self._cells, self._states, window, np.int32(self._steps)
        outputs, self._states = _run_window(*arrays, **static)
        self._waiting.pop(0)
        self._steps -= min(self._steps, self._chunk)
        return outputs


@functools.partial(
    jax.jit, static_argnames=("lookahead", "dtype"), donate_argnames="states"
)
def _run_window(
    cells_fw: tuple[RNNCellLike, ...],
    cells_bw: tuple[RNNCellLike, ...],
    states: tuple[PyTree, ...],
    window: list[PyTree],
    steps: Array,
    *,
    lookahead: int,
    dtype: DType,
) -> tuple[PyTree, tuple[PyTree, ...]]:
    """`(outputs, states)` of the first chunk of the window.

    Args:
        cells_fw: The forward cell of each layer.
        cells_bw: The backward ones.
        states: The state of each forward cell before the window.
        window: The chunk and those that hold its look-ahead, `[batch, chunk, ...]`.
        steps: How many steps there are, an int32 scalar; the rest is padding.
        lookahead: The number of steps to look ahead.
        dtype: That of states and outputs.
    """
    batch, chunk = jax.tree.leaves(window)[0].shape[:2]
    size = chunk + lookahead
    xs = jax.tree.map(lambda *c: jnp.concatenate(c, 1)[:, :size], *window)
    lengths = jnp.full(batch, jnp.minimum(steps, size), jnp.int32)
    new_states = []
    for layer in zip(cells_fw, cells_bw, states, strict=True):
        xs, state = _run_layer(layer, xs, lengths, chunk, dtype)
        new_states.append(state)
    return jax.tree.map(lambda y: y[:, :chunk], xs), tuple(new_states)


def _run_layer(
    layer: tuple[Any, ...], xs: PyTree, lengths: Array, chunk: int, dtype: DType
) -> tuple[PyTree, PyTree]:
    """The outputs of the window, and the forward state after its first chunk.

    A layer is the forward cell, the backward cell and the forward state.
    """
    cell_fw, cell_bw, state = layer
    head = jax.tree.map(lambda x: x[:, :chunk], xs)
    tail = jax.tree.map(lambda x: x[:, chunk:], xs)
    now = jnp.minimum(lengths, chunk)
    outputs, state = dynamic_rnn(cell_fw, head, now, state, dtype)
    ahead, _ = dynamic_rnn(cell_fw, tail, lengths - now, state, dtype)
    forward = jax.tree.map(lambda *y: jnp.concatenate(y, 1), outputs, ahead)
    reverse = lambda tree: masking.reverse_sequence(tree, lengths, time_major=False)
    backward, _ = dynamic_rnn(cell_bw, reverse(xs), lengths, dtype=dtype)
    return joined(_CALLER, forward, reverse(backward), axis=2), state


def _checked_steps(chunk: PyTree, batch: int, steps: int, exactly: bool) -> int:
    """The number of steps of a chunk.

    Raises:
        ValueError: If it does not fit, or a leaf has too few axes.
    """
    name = "chunk" if exactly else "last"
    wanted = f"{steps}" if exactly else f"1 to {steps}"
    least = steps if exactly else 1
    found = set()
    for leaf_name, leaf in named_leaves(name, chunk):
        rows, count, *_ = (*np.shape(leaf), -1, -1)
        if np.ndim(leaf) < 3 or rows != batch or not least <= count <= steps:
            fix = "A shorter last one goes to `flush`." if exactly else ""
            raise ValueError(
                f"{_CALLER}: `{leaf_name}` must be [{batch}, {wanted}, ...], got "
                f"{describe(leaf)}. {fix}".rstrip()
            )
        found.add(count)
    if len(found) != 1:
        raise ValueError(
            f"{_CALLER}: `{name}` must have one number of steps, got {sorted(found)}."
        )
    return found.pop()
