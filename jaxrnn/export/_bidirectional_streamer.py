"""Streaming of bidirectional layers, with a bounded look-ahead."""

import functools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_count, as_dtype, check_both_lists
from .._base.expect import expect
from .._base.inputs import check_concrete, check_same_size, named_inputs
from .._base.like import check_structure
from .._base.trees import map_named, named_leaves
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._drivers.bidirectional import joined, run_backward
from .._drivers.dynamic_rnn import dynamic_rnn
from .._drivers.first_step import zero_state
from ._streamer import check_cell_of_stream, copied, program_of


class BidirectionalStreamer:
    """Runs bidirectional layers chunk by chunk, with a bounded look-ahead.

    The forward cells carry their states from chunk to chunk. For each chunk, the
    backward cells start from zero states, either `lookahead` steps after the end of the
    chunk or at the end of the sequence, whichever comes first. With one layer, the
    outputs of a chunk equal the outputs of `stack_bidirectional_dynamic_rnn` if the
    look-ahead of the chunk reaches the end of the sequence. With several layers, the
    look-ahead of all earlier chunks must also reach the end of the sequence, because a
    forward cell reads the backward outputs of the layer below.

    To produce the outputs of a chunk, the streamer runs the layers over
    `chunk + lookahead` steps. The first such run compiles the program. Shorter chunks
    reduce the delay, but they increase the work per step of output.

    A call that rejects its argument leaves the stream unchanged. An error while the
    program runs, such as an error of a host callback, loses the states; call `reset`
    then. All chunks must have the structure, the step shapes and the dtypes of the
    first chunk.

    Args:
        cells_fw: The bound forward cell of each layer, without a random key, so dropout
            is inactive.
        cells_bw: The bound backward cell of each layer, without a random key.
        chunk: The number of steps per chunk.
        lookahead: The number of steps after a chunk that affect the chunk's outputs.
        batch_size: The number of rows. All rows advance together.
        dtype: The dtype of the zero states and the outputs.

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
        check_both_lists(cells_fw, cells_bw)
        for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
            for i, cell in enumerate(cells):
                check_cell_of_stream(f"{name}[{i}]", cell)
        # Transfer NumPy parameters to the device once, instead of at every call.
        self._cells = jax.device_put((tuple(cells_fw), tuple(cells_bw)))
        self._chunk = as_count("chunk", chunk, fix="")
        self._lookahead = as_count("lookahead", lookahead, 0, fix="")
        self._batch = as_count("batch_size", batch_size)
        self._dtype = as_dtype(dtype)
        self._first: PyTree = None  # The first chunk, padded.
        self._ahead = -(-self._lookahead // self._chunk)  # Rounds up to full chunks.
        self.reset()

    @functools.cached_property
    def _program(self) -> Hashable:  # Of the first call, which compiles.
        cells_fw, cells_bw = self._cells
        return program_of(*cells_fw, *cells_bw)

    def __call__(self, chunk: PyTree) -> PyTree:
        """Adds a chunk; returns the outputs of the oldest chunk with a full look-ahead.

        Args:
            chunk: The next steps, `[batch, chunk, depth]` or a nest of such arrays.

        Returns:
            The outputs, `[batch, chunk, size]`, with both directions concatenated; None
            until the look-ahead of the first chunk has arrived.

        Raises:
            ValueError: If `chunk` has the wrong number of rows or steps, or does not
                match the cells or the first chunk.
            TypeError: If a leaf is traced or not an array, if the cells do not accept
                a dtype, or if a dtype differs from the first chunk.
        """
        self._append("chunk", chunk, least=self._chunk)
        if len(self._waiting) <= self._ahead:
            return None
        return self._oldest()

    def flush(self, last: PyTree = None) -> PyTree:
        """Ends the sequence and returns the remaining outputs.

        The next call starts a new sequence.

        Args:
            last: The last 1 to `chunk` steps, `[batch, steps, depth]` or a nest of such
                arrays; None if you have already passed all steps.

        Returns:
            The outputs, `[batch, remaining steps, size]`; None if no steps remain.

        Raises:
            ValueError: If `last` has the wrong number of rows, does not have 1 to
                `chunk` steps, or does not match the cells or earlier chunks.
            TypeError: As for a chunk.
        """
        if last is not None:
            self._append("last", last, least=1)
        outputs = []
        while self._waiting:
            steps = min(self._steps, self._chunk)
            each = self._oldest()
            outputs.append(_at_steps(each, slice(steps)))
        self.reset()
        if not outputs:
            return None
        return jax.tree.map(lambda *ys: jnp.concatenate(ys, axis=1), *outputs)

    @property
    def state(self) -> tuple[PyTree, ...]:
        """A copy of the forward states after the last returned output."""
        return jax.tree.map(jnp.copy, self._states)

    def reset(self) -> None:
        """Starts a new sequence and drops the remaining outputs."""
        cells_fw, _ = self._cells
        self._states = tuple(
            zero_state(cell, self._batch, self._dtype) for cell in cells_fw
        )
        # Padded chunks whose outputs have not been returned.
        self._waiting: list[PyTree] = []
        self._steps = 0  # The number of steps in `_waiting`, without padding.

    def _append(self, name: str, chunk: PyTree, least: int) -> None:
        """Adds a chunk of at least `least` steps, padded to a full chunk.

        Raises:
            ValueError: If a leaf has the wrong shape, or the leaves have different
                numbers of steps; if the structure differs from the first chunk.
            TypeError: If a leaf is traced or not an array, or if a dtype differs from
                the first chunk.
        """
        fix = "Under jit, call `stack_bidirectional_dynamic_rnn` instead of the stream."
        check_concrete(name, chunk, fix)
        chunk = map_named(name, copied, chunk)
        named = named_inputs(chunk, name=name)
        most = self._chunk
        for full, leaf in named:
            self._check_sizes(full, leaf, least)
        check_same_size(named, 1, "number of steps")
        steps = named[0][1].shape[1]

        def padded(leaf: ArrayLike) -> np.ndarray:
            widths = [(0, 0), (0, most - steps), *[(0, 0)] * (np.ndim(leaf) - 2)]
            array = np.pad(np.asarray(leaf), widths)
            return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

        chunk = jax.tree.map(padded, chunk)
        if self._first is None:
            # Find the cells' errors before the chunk is added.
            window = [chunk] * (self._ahead + 1)
            jax.eval_shape(self._run, self._states, window, np.int32(steps))
            self._first = chunk
        self._check_like_first(name, chunk)
        self._waiting.append(chunk)
        self._steps += steps

    def _check_sizes(self, name: str, leaf: Any, least: int) -> None:
        """Raises ValueError for a wrong number of rows, or of steps."""
        rows, most = self._batch, self._chunk
        wanted = f"{most}" if least == most else f"{least} to {most}"
        shape = leaf.shape
        fits = len(shape) > 2 and shape[0] == rows and least <= shape[1] <= most
        is_short = least == most and len(shape) > 2 and shape[1] < most
        fix = "Pass a shorter last chunk to `flush`." if is_short else ""
        must = f"have rank at least 3, [{rows}, {wanted}, ...]"
        expect(fits, name, must, leaf, fix)

    def _check_like_first(self, name: str, chunk: PyTree) -> None:
        """Raises unless a chunk has the structure and types of the first chunk."""
        fix = "For other inputs, create another stream."
        check_structure(f"`{name}`", self._first, chunk, strict=True, fix=fix)
        first = jax.tree.leaves(self._first)
        for (full, leaf), like in zip(named_leaves(name, chunk), first, strict=True):
            must = f"have steps of shape {like.shape[2:]} like the first chunk"
            expect(leaf.shape[2:] == like.shape[2:], full, must, leaf, fix)
            must = f"have the dtype of the first chunk, {like.dtype}"
            expect(leaf.dtype == like.dtype, full, must, leaf, fix, error=TypeError)

    def _run(self, states: tuple, window: list[PyTree], steps: Any) -> tuple:
        """Computes `(outputs, states)` for the first chunk of the window."""
        cells_fw, cells_bw = self._cells
        return _run_window(
            cells_fw,
            cells_bw,
            states,
            window,
            steps,
            lookahead=self._lookahead,
            dtype=self._dtype,
            program=self._program,
        )

    def _oldest(self) -> PyTree:
        """Computes the outputs of the oldest chunk, then removes the chunk."""
        window = self._waiting[: self._ahead + 1]
        absent = self._ahead + 1 - len(window)
        window += [jax.tree.map(np.zeros_like, window[0])] * absent
        steps = np.int32(self._steps)
        outputs, self._states = self._run(self._states, window, steps)
        self._waiting.pop(0)
        self._steps -= min(self._steps, self._chunk)
        return outputs


@functools.partial(
    jax.jit,
    static_argnames=("lookahead", "dtype", "program"),
    donate_argnames="states",
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
    program: Hashable,
) -> tuple[PyTree, tuple[PyTree, ...]]:
    """Computes `(outputs, states)` for the first chunk of the window.

    Args:
        cells_fw: The forward cell of each layer.
        cells_bw: The backward cell of each layer.
        states: The state of each forward cell before the window.
        window: The chunk, followed by the chunks that contain its look-ahead, each
            `[batch, chunk, ...]`.
        steps: The number of steps in all waiting chunks, an int32 scalar; later steps
            are padding.
        lookahead: The number of steps to look ahead.
        dtype: The dtype of the states and the outputs.
        program: The result of `program_of`.
    """
    del program
    batch, chunk = jax.tree.leaves(window)[0].shape[:2]
    size = chunk + lookahead
    xs = jax.tree.map(lambda *c: jnp.concatenate(c, 1)[:, :size], *window)
    lengths = jnp.full(batch, jnp.minimum(steps, size), jnp.int32)
    now = jnp.minimum(lengths, chunk)
    new_states = []
    for cell_fw, cell_bw, state in zip(cells_fw, cells_bw, states, strict=True):
        head = _at_steps(xs, slice(chunk))
        tail = _at_steps(xs, slice(chunk, None))
        outputs, state = dynamic_rnn(cell_fw, head, now, state, dtype)
        ahead, _ = dynamic_rnn(cell_fw, tail, lengths - now, state, dtype)
        forward = jax.tree.map(lambda *y: jnp.concatenate(y, 1), outputs, ahead)
        backward, _ = run_backward(cell_bw, xs, sequence_length=lengths, dtype=dtype)
        xs = joined(forward, backward, axis=2)
        new_states.append(state)
    return _at_steps(xs, slice(chunk)), tuple(new_states)


def _at_steps(tree: PyTree, steps: slice) -> PyTree:
    return jax.tree.map(lambda x: x[:, steps], tree)
