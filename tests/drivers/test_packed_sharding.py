"""A pack on each device: values, gradients, and one sum of gradients over devices.

With these sizes, the backward pass runs several chunks of steps.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.testing._oracle import close

DTYPE = np.dtype("float64")
RNG = np.random.default_rng(0)
RECORDS = [RNG.normal(size=(n, 3)) for n in RNG.integers(0, 64, 2400)]


def add(params, inputs, state, key=None):
    state = jnp.tanh(state + inputs * params["w"])
    return state, state


CELLS = {
    "lstm": LSTMCell(5, num_proj=3),
    "stack": MultiRNNCell([LSTMCell(5), GRUCell(4)]),
    "function": FunctionCell(add, 3, 3, lambda k, x, dtype: {"w": jnp.ones((), dtype)}),
}


@functools.cache
def stacked():
    batches = jaxrnn.packed_batches(RECORDS, 150, 64)
    return jaxrnn.stack_packed([next(batches) for _ in range(4)])


def loss(cell, params, packed):
    outputs, state = jaxrnn.packed_rnn(cell.bind(params), packed, dtype=DTYPE)
    is_used = jnp.asarray(packed.sequence_length) > 0
    last = jax.tree.leaves(state)[-1]
    of_sequences = jnp.sum(last**2, where=is_used[:, None])
    return jnp.sum(packed.unpack(outputs) ** 3) + of_sequences


def total(cell, params, stack):
    return jnp.sum(jax.vmap(functools.partial(loss, cell, params))(stack))


def params_of(cell):
    return drawn(cell, np.zeros((1, 3)), DTYPE)


@functools.cache
def on_one_device(name):
    """The sum over packs, run one after the other."""
    cell = CELLS[name]
    value_and_grad = jax.jit(jax.value_and_grad(functools.partial(loss, cell)))
    packs = [jax.tree.map(lambda x, i=i: x[i], stacked()) for i in range(4)]
    results = [value_and_grad(params_of(cell), packed) for packed in packs]
    return jax.tree.map(lambda *leaves: sum(leaves), *results)


COLLECTIVE = r" (all-gather|all-to-all|all-reduce|collective-permute)[\w\-]*\("


def check_program(program, name):
    """Devices exchange only sums; with the fast path, none in a loop."""
    assert set(re.findall(COLLECTIVE, program)) == {"all-reduce"}
    loops = set(re.findall(r"body=%?([\w.\-]+)", program))
    blocks = [re.match(r"%?([\w.\-]+)", b) for b in re.split(r"\n(?=%)", program)]
    bodies = [b.string for b in blocks if b and b[1] in loops]
    assert len(bodies) == len(loops) > 0
    assert name == "function" or not any(re.search(COLLECTIVE, b) for b in bodies)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_pack_for_each_device(axis_type, name):
    cell = CELLS[name]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        stack = jax.device_put(stacked(), NamedSharding(mesh, P("data")))
        params = jax.device_put(params_of(cell), NamedSharding(mesh, P()))
        gradient = jax.jit(jax.value_and_grad(functools.partial(total, cell)))
        compiled = gradient.lower(params, stack).compile()
        close(compiled(params, stack), on_one_device(name), DTYPE)
    check_program(compiled.as_text(), name)


@pytest.mark.fast("lstm")
@pytest.mark.parametrize("name", CELLS)
def test_a_pack_for_each_device_inside_of_shard_map(name):
    cell = CELLS[name]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def of_one_device(params, stack):
        packed = jax.tree.map(lambda leaf: leaf[0], stack)
        summed = lambda params: jax.lax.psum(loss(cell, params, packed), "data")
        return jax.value_and_grad(summed)(params)

    specs = P(), P("data")
    sharded = jax.shard_map(of_one_device, mesh=mesh, in_specs=specs, out_specs=P())
    compiled = jax.jit(sharded).lower(params_of(cell), stacked()).compile()
    close(compiled(params_of(cell), stacked()), on_one_device(name), DTYPE)
    check_program(compiled.as_text(), name)


@pytest.mark.fast("AxisType.Explicit-True")
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_one_pack_whose_rows_are_divided(axis_type, time_major):
    """The results are right, but sequences are read over the network."""
    cell = CELLS["lstm"]
    batches = jaxrnn.packed_batches(RECORDS[:300], 4, 64, time_major=time_major)
    packed = jaxrnn.concat_packed(batches)
    gradient = jax.jit(jax.value_and_grad(functools.partial(loss, cell)))
    want = gradient(params_of(cell), packed)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    everywhere = NamedSharding(mesh, P())
    by_row = NamedSharding(mesh, P(None, "data") if time_major else P("data"))
    lengths = NamedSharding(mesh, P("data"))
    shardings = dataclasses.replace(
        jax.tree.map(lambda _: everywhere, packed),
        inputs=by_row,
        starts=by_row,
        lengths=lengths,
    )
    with jax.set_mesh(mesh):
        params = jax.device_put(params_of(cell), everywhere)
        got = gradient(params, jax.device_put(packed, shardings))
    close(got, want, DTYPE)


@pytest.mark.slow
@pytest.mark.parametrize("with_lengths", [False, True])
def test_batches_over_an_explicit_mesh(with_lengths):
    """`vmap` of `dynamic_rnn` over a sharded axis."""
    cell, params = CELLS["stack"], params_of(CELLS["stack"])
    x = RNG.normal(size=(4, 2, 6, 3))
    lengths = np.array([[6, 1], [0, 3], [2, 2], [5, 4]]) if with_lengths else None

    def summed(params, x, lengths):
        run = lambda x, n: jaxrnn.dynamic_rnn(cell.bind(params), x, n, dtype=DTYPE)[0]
        return jnp.sum(jax.vmap(run)(x, lengths) ** 2)

    gradient = jax.jit(jax.value_and_grad(summed, (0, 1)))
    want = gradient(params, x, lengths)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(params, NamedSharding(mesh, P()))
        x, lengths = jax.device_put((x, lengths), NamedSharding(mesh, P("data")))
        close(gradient(params, x, lengths), want, DTYPE)


def test_the_parts_of_processes_are_put_together():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    from_local = functools.partial(jax.make_array_from_process_local_data, rows)
    stack = jax.tree.map(from_local, stacked())
    assert repr(stack) == repr(stacked())
    assert all(leaf.sharding == rows for leaf in jax.tree.leaves(stack))
