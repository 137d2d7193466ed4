"""The programs of jaxrnn and of peers to compare."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxrnn

from ..peers import chunks
from ..peers.recurrences import in_order

Fn = Callable[..., Any]


class Sizes(NamedTuple):
    """Rows, steps, inputs and units, and whether time is the first axis."""

    batch: int
    time: int
    depth: int
    units: int
    time_major: bool = False

    def __str__(self) -> str:
        layout = ", time-major" if self.time_major else ""
        return f"B{self.batch} T{self.time} D{self.depth} H{self.units}{layout}"

    @property
    def inputs(self) -> jax.ShapeDtypeStruct:
        """The type of the inputs, float32."""
        first = (self.time, self.batch) if self.time_major else (self.batch, self.time)
        return jax.ShapeDtypeStruct((*first, self.depth), jnp.float32)


class Row(NamedTuple):
    """A row of the table: a program of jaxrnn and the same program of a peer.

    Attributes:
        name: The name of the computation.
        sizes: The sizes of its arrays.
        ours: jaxrnn's function, and the types of its parameters.
        peer: The peer's function, and the types of its parameters.
        types: The types of the other arguments.
    """

    name: str
    sizes: Sizes
    ours: tuple[Fn, Any]
    peer: tuple[Fn, Any]
    types: tuple


LOOPS = [
    Sizes(64, 256, 256, 512),
    Sizes(64, 256, 256, 512, time_major=True),
    Sizes(16, 512, 128, 1024),
    Sizes(128, 64, 512, 256),
]
RECURRENCES = [Sizes(8, 1024, 512, 512), Sizes(4, 8192, 512, 512)]
CELLS = {
    "LSTM": (jaxrnn.LSTMCell, nn.OptimizedLSTMCell),
    "GRU": (jaxrnn.CudnnCompatibleGRUCell, nn.GRUCell),
}
MATRICES = Sizes(8, 1024, 512, 512, time_major=True)
MATRIX_CELLS = [jaxrnn.MLSTMCell, jaxrnn.DeltaNetCell, jaxrnn.GatedDeltaNetCell]
BY_KEY = {"key_decay": True}
MEMORIES = [
    (jaxrnn.LinearAttentionMemoryCell, {}),
    (jaxrnn.LinearAttentionMemoryCell, BY_KEY),
    (jaxrnn.DeltaMemoryCell, {}),
    (jaxrnn.DeltaMemoryCell, BY_KEY),
    (jaxrnn.DPLRMemoryCell, {}),
]
LINEAR_CELLS = [jaxrnn.MinGRUCell, jaxrnn.RGLRUCell, jaxrnn.LRUCell]


def loops() -> Iterator[Row]:
    """LSTMs and GRUs against Flax linen: the forward pass and the gradient."""
    for sizes in LOOPS:
        for name, (cell, peer) in CELLS.items():
            nets = _jaxrnn(cell(sizes.units), sizes), _linen(peer(sizes.units), sizes)
            for lengths in (False, True):
                types = (jax.ShapeDtypeStruct((sizes.batch,), jnp.int32),) * lengths
                types = sizes.inputs, *types
                what = f"{name}, lengths" if lengths else name
                yield Row(what, sizes, *nets, types)
                nets_of_gradient = [(gradient(fn), params) for fn, params in nets]
                yield Row(f"{what}, gradient", sizes, *nets_of_gradient, types)


def recurrences() -> Iterator[Row]:
    """Gradients of linear recurrences, against `jax.lax.associative_scan`."""
    for sizes in RECURRENCES:
        for kind in LINEAR_CELLS:
            cell = kind(sizes.units)
            ours, params = _jaxrnn(cell, sizes)
            nets = [(gradient(fn), params) for fn in (ours, _by_tree(cell))]
            yield Row(f"{kind.__name__}, gradient", sizes, *nets, (sizes.inputs,))


def matrix_memories() -> Iterator[Row]:
    """Gradients of cells whose state is a matrix, against plain chunks of steps."""
    sizes = MATRICES
    for kind in MATRIX_CELLS:
        cell = kind(sizes.units, num_heads=4)
        peer = functools.partial(_in_chunks, cell)
        for resets in (False, True):
            ours, params = _jaxrnn(cell, sizes, "resets")
            mask = jax.ShapeDtypeStruct(sizes.inputs.shape[:2], bool)
            types = sizes.inputs, *(mask,) * resets
            name = f"{kind.__name__}, {'resets, ' * resets}gradient"
            nets = [(gradient(fn), params) for fn in (ours, peer)]
            yield Row(name, sizes, *nets, types)


def bare_memories() -> Iterator[Row]:
    """Gradients of memories without projections, 4 heads, against scans of steps."""
    sizes = MATRICES._replace(time_major=False)
    for kind, by_key in MEMORIES:
        cell = kind(4, sizes.depth // 4, sizes.units // 4, **by_key)
        step = cell.apply, cell.state_size, cell.output_size, cell.init
        shape = lambda size: jax.ShapeDtypeStruct(
            (sizes.batch, sizes.time, *size), jnp.float32
        )
        inputs = type(cell.input_sizes)(*map(shape, cell.input_sizes))
        cells = cell, jaxrnn.FunctionCell(*step)
        nets = [(gradient(functools.partial(_run_bare, each)), {}) for each in cells]
        name = f"{kind.__name__}, {'key_decay, ' * bool(by_key)}gradient"
        yield Row(name, sizes, *nets, (inputs,))


def _run_bare(cell: Any, params: Any, inputs: Any) -> tuple:
    return jaxrnn.dynamic_rnn(cell.bind(params), inputs, dtype=jnp.float32)


def gradient(fn: Fn) -> Fn:
    """Gradients of the sum of squared outputs by parameters and inputs."""
    loss = lambda *args: jnp.sum(fn(*args)[0] ** 2)
    return jax.grad(loss, (0, 1))


def _jaxrnn(
    cell: Any, sizes: Sizes, argument: str = "sequence_length"
) -> tuple[Fn, Any]:
    """`argument` names what follows the inputs, which may be left out."""

    def run(params: Any, xs: Any, given: Any = None) -> tuple:
        options = {"time_major": sizes.time_major, "implementation": "xla"}
        options |= {"dtype": xs.dtype, argument: given}
        return jaxrnn.dynamic_rnn(cell.bind(params), xs, **options)

    step = jax.ShapeDtypeStruct((sizes.batch, sizes.depth), jnp.float32)
    return run, jax.eval_shape(lambda x: cell.init(jax.random.key(0), x), step)


def _linen(cell: nn.RNNCellBase, sizes: Sizes) -> tuple[Fn, Any]:
    rnn = nn.RNN(cell, time_major=sizes.time_major, return_carry=True)

    def run(params: Any, xs: Any, lengths: Any = None) -> tuple:
        return rnn.apply(params, xs, seq_lengths=lengths)[::-1]

    init = lambda xs: rnn.init(jax.random.key(0), xs)
    return run, jax.eval_shape(init, sizes.inputs)


def _in_chunks(cell: Any, params: Any, xs: Any, resets: Any = None) -> tuple:
    """Plain chunks of steps, always without resets."""
    del resets
    return chunks.run(cell, params, xs, cell.zero_state(xs.shape[1], xs.dtype))


def _by_tree(cell: Any) -> Fn:
    """A linear recurrence from a zero state, with all steps in parallel."""

    def run(params: Any, xs: Any) -> tuple:
        state = cell.zero_state(xs.shape[0], xs.dtype)
        of_step = lambda x: cell.terms(params, x, state)
        a, b, _, rest = jax.vmap(of_step, in_axes=1)(xs)
        _, states = jax.lax.associative_scan(in_order, (a, b))
        output = lambda h, rest: cell.output(params, h, rest).astype(xs.dtype)
        return jax.vmap(output, out_axes=1)(states, rest), None

    return run
