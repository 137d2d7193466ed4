"""The collectives of compiled programs, in loops and outside of them.

The sizes give the backward loop several chunks of steps.
"""

import contextlib
from itertools import cycle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from benchmarks.collectives import (
    BATCH,
    CELLS,
    DEPTH,
    DRIVERS,
    TIME,
    compiled,
    gradient_of,
    make_mesh,
    types_of,
)
from benchmarks.compilers.hlo import collectives

RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, TIME, DEPTH))
LENGTHS = RNG.integers(0, TIME + 1, BATCH).astype(np.int32)
# Their programs have no collectives in loops, on any mesh.
ONCE = ["dynamic_rnn", "bidirectional", "static_rnn"]
AXES = ["auto", "explicit", "shard_map"]


@pytest.mark.fast("auto-LSTM, GRU", "shard_map-LSTM, peepholes, projection")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("axes", AXES)
def test_data_parallel_sums_gradients_once(axes, cell):
    inside, outside = found("data", axes, "dynamic_rnn", cell)
    assert inside == []
    # The compiler may combine sums: one for the loss, and at most one for each leaf.
    most = 1 + len(
        jax.tree.leaves(types_of(CELLS[cell], mesh_of("data", axes), "data"))
    )
    assert set(outside) == {"all-reduce"}
    assert len(outside) <= most


@pytest.mark.fast("shard_map-raw_rnn", "auto-static_rnn")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("axes", AXES)
def test_data_parallel_by_driver(axes, driver):
    inside, outside = found("data", axes, driver, "LSTM")
    if driver in ONCE or axes == "shard_map":
        assert inside == []
    if driver == "beam_search" and axes != "shard_map":
        # On CPUs, `top_k` is compiled to read the scores of all rows.
        assert set(inside) == {"all-reduce", "all-gather"}
    else:
        assert set(inside + outside) == {"all-reduce"}


@pytest.mark.fast("auto-GRU")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("axes", ["auto", "explicit"])
def test_fsdp_gathers_each_kernel_once_before_the_loop(axes, cell):
    inside, outside = found("FSDP", axes, "dynamic_rnn", cell)
    assert inside == []
    types, _, _ = types_of(CELLS[cell], mesh_of("FSDP", axes), "FSDP")
    kernels = [leaf for leaf in jax.tree.leaves(types) if leaf.ndim == 2]
    assert outside.count("all-gather") == len(kernels)


@pytest.mark.parametrize("told", ["context", "inputs"])
def test_fsdp_of_parameters_whose_types_tell_no_mesh(told):
    """`in_shardings` shards the parameters. The mesh is set, or the inputs have it."""
    cell, mesh = CELLS["LSTM"], mesh_of("FSDP", "auto")
    types = types_of(cell, mesh, "FSDP")
    shardings = jax.tree.map(lambda x: x.sharding, types)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), types)
    if told == "inputs":
        bare = bare[0], *types[1:]
    gradient = gradient_of(DRIVERS["dynamic_rnn"], cell, mesh, "auto")
    gradient = jax.jit(gradient, in_shardings=shardings)
    set_mesh = jax.set_mesh(mesh) if told == "context" else contextlib.nullcontext()
    with set_mesh:
        inside, outside = collectives(gradient.lower(*bare).compile().as_text())
    assert inside == []
    assert outside.count("all-gather") == 1


@pytest.mark.fast("explicit-LSTM")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("axes", ["auto", "explicit"])
def test_kernels_divided_by_columns_are_gathered_before_the_loop(axes, cell):
    inside, outside = found("tensor", axes, "dynamic_rnn", cell)
    assert inside == []
    assert "all-gather" in outside


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["data", "FSDP", "tensor"])
@pytest.mark.parametrize("axes", ["auto", "explicit"])
def test_values_and_gradients(axes, layout, cell):
    want = on_one_device(cell)
    mesh = mesh_of(layout, axes)
    params, x, lengths = types_of(CELLS[cell], mesh, layout, jnp.float64)
    put = lambda value, like: jax.device_put(value, like.sharding)
    values = jax.tree.map(put, (params_of(cell), X, LENGTHS), (params, x, lengths))
    with jax.set_mesh(mesh):
        run = gradient_of(DRIVERS["dynamic_rnn"], CELLS[cell], mesh, axes)
        got = run(*values)
    close = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, got, want)


# Test each driver on one kind of mesh, and the first driver on all.
TRAINED = {(axes, "dynamic_rnn") for axes in AXES} | set(
    zip(cycle(AXES), DRIVERS, strict=False)
)


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "driver"), sorted(TRAINED))
def test_a_hundred_steps_of_training(axes, driver):
    x, lengths = X[:16], LENGTHS[:16]
    want = trained("auto", driver, x, lengths, lambda tree, spec: tree)
    mesh = mesh_of("data", axes)
    put = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    got = trained(axes, driver, x, lengths, put)
    close = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)
    jax.tree.map(close, got, want)


def trained(axes, driver, x, lengths, put):
    """The losses and the final parameters of gradient descent."""
    mesh = mesh_of("data", axes)
    params, losses = put(params_of("LSTM"), P()), []
    update = jax.jit(lambda p, g: jax.tree.map(lambda p, g: p - 0.01 * g, p, g))
    with jax.set_mesh(mesh):
        run = gradient_of(DRIVERS[driver], CELLS["LSTM"], mesh, axes)
        x, lengths = put((x, lengths), P("data"))
        for _ in range(100):
            loss, gradient = run(params, x, lengths)
            params = update(params, gradient)
            losses.append(loss.item())
    return losses, params


def found(layout, axes, driver, cell):
    return collectives(compiled(jax.devices(), layout, axes, driver, cell))


def mesh_of(layout, axes):
    return make_mesh(jax.devices(), layout, axes)


def params_of(cell):
    return CELLS[cell].init(jax.random.key(0), X[:, 0])


def on_one_device(cell):
    mesh = make_mesh(jax.devices(), "data", "auto")
    run = gradient_of(DRIVERS["dynamic_rnn"], CELLS[cell], mesh, "auto")
    return run(params_of(cell), X, LENGTHS)
