"""Programs whose collectives tests count: drivers, cells and layouts of parameters.

A program computes the value and the gradient of a loss over a driver's results. It is
compiled for devices of this process, or for TPUs or GPUs that need not be present.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import jaxrnn
import jaxrnn.decode

# The backward loop has several chunks of steps; one chunk would hide its collectives.
BATCH, TIME, DEPTH, UNITS, VOCABULARY = 512, 64, 16, 32, 8


def dynamic(bound: Any, x: Any, lengths: Any) -> Any:
    """`dynamic_rnn`."""
    return jaxrnn.dynamic_rnn(bound, x, lengths, dtype=x.dtype)[0]


def masked(bound: Any, x: Any, lengths: Any) -> Any:
    """`dynamic_rnn` with gaps in its mask, and with the states of all steps."""
    ts = jnp.arange(x.shape[1], dtype=lengths.dtype)
    mask = (ts[None, :] + lengths[:, None]) % 3 > 0
    run = jaxrnn.dynamic_rnn
    outputs, _, states = run(bound, x, mask=mask, dtype=x.dtype, return_states=True)
    return outputs + jax.tree.leaves(states)[-1]


def bidirectional(bound: Any, x: Any, lengths: Any) -> Any:
    """`bidirectional_dynamic_rnn` with one cell for both directions."""
    run = jaxrnn.bidirectional_dynamic_rnn
    return run(bound, bound, x, lengths, dtype=x.dtype)[0]


def raw(bound: Any, x: Any, lengths: Any) -> Any:
    """`raw_rnn` with inputs from a TensorArray."""
    steps = jaxrnn.TensorArray(x.dtype, TIME).unstack(jnp.swapaxes(x, 0, 1))

    def loop_fn(time: Any, output: Any, state: Any, loop_state: Any) -> tuple:
        if output is None:
            state = bound.zero_state(x.shape[0], x.dtype)
        inputs = steps.read(jnp.minimum(time, TIME - 1))
        return time >= lengths, inputs, state, output, None

    return jaxrnn.raw_rnn(bound, loop_fn, max_time=TIME)[0].stack()


def swapped(bound: Any, x: Any, lengths: Any) -> Any:
    """`dynamic_rnn` with `swap_memory=True`."""
    return jaxrnn.dynamic_rnn(bound, x, lengths, dtype=x.dtype, swap_memory=True)[0]


def beam_search(bound: Any, x: Any, lengths: Any) -> Any:
    """The scores of `beam_search`."""
    table = np.random.default_rng(1).normal(size=(VOCABULARY, DEPTH)).astype(x.dtype)
    states = bound.zero_state(x.shape[0], x.dtype)
    state = jax.tree.map(lambda s: s + x[:, 0, :1], states)
    rows = jax.typeof(lengths).sharding.spec[0]
    where = {} if rows is None else {"out_sharding": P(rows)}
    embed = lambda ids: jnp.asarray(table).at[ids].get(**where)
    project = lambda output: output[:, :DEPTH] @ table.T
    model = jaxrnn.decode.Model(bound, embed, project, state, lengths % VOCABULARY, 0)
    return jaxrnn.decode.beam_search(model, max_length=12, num_beams=3).scores


DRIVERS = {
    "dynamic_rnn": dynamic,
    "mask": masked,
    "bidirectional": bidirectional,
    "swap_memory": swapped,
    "raw_rnn": raw,
    "beam_search": beam_search,
}
CELLS = {
    "LSTM": jaxrnn.LSTMCell(UNITS),
    "LSTM, peepholes, projection": jaxrnn.LSTMCell(UNITS, True, num_proj=16),
    "GRU": jaxrnn.GRUCell(UNITS),
    "LSTM, GRU": jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(UNITS), jaxrnn.GRUCell(UNITS)]),
}
LAYOUTS = {
    "data": lambda leaf: P(),
    "FSDP": lambda leaf: P("data") if leaf.ndim == 2 else P(),
    "tensor": lambda leaf: P(*[None] * (leaf.ndim - 1), "model"),
}


def make_mesh(devices: Any, layout: str, axes: str) -> Mesh:
    """The mesh of a layout; `axes` is "auto", "explicit" or "shard_map"."""
    names = ("data", "model") if layout == "tensor" else ("data",)
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    count = len(devices)
    shape = (min(2, count), -1) if layout == "tensor" else (count,)
    grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, names, axis_types=(kind,) * len(names))


def types_of(cell: Any, mesh: Mesh, layout: str, dtype: Any = jnp.float32) -> tuple:
    """The types of `(params, x, lengths)`, laid out on the mesh."""

    def put(leaf: Any, spec: P) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    x = jax.ShapeDtypeStruct((BATCH, TIME, DEPTH), dtype)
    lengths = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    init = lambda x: cell.init(jax.random.key(0), x[:, 0])
    params = jax.tree.map(lambda p: put(p, LAYOUTS[layout](p)), jax.eval_shape(init, x))
    return params, put(x, P("data")), put(lengths, P("data"))


def gradient_of(driver: Callable, cell: Any, mesh: Mesh, axes: str) -> Callable:
    """`(params, x, lengths) -> (loss, gradient)`, wrapped in `jit`."""

    def loss(params: Any, x: Any, lengths: Any) -> Any:
        results = jax.tree.leaves(driver(cell.bind(params), x, lengths))
        value = sum(jnp.mean(jnp.square(leaf)) for leaf in results)
        return jax.lax.pmean(value, "data") if axes == "shard_map" else value

    gradient = jax.value_and_grad(loss)
    if axes == "shard_map":
        specs = P(), P("data"), P("data")
        gradient = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=P())
    return jax.jit(gradient)


def compiled(devices: Any, layout: str, axes: str, driver: str, cell: str) -> str:
    """The text of the compiled program for one row of the table."""
    mesh, cell = make_mesh(devices, layout, axes), CELLS[cell]
    with jax.set_mesh(mesh):
        gradient = gradient_of(DRIVERS[driver], cell, mesh, axes)
        return gradient.lower(*types_of(cell, mesh, layout)).compile().as_text()
