"""The collectives of compiled programs, in loops and outside of them.

The sizes give the backward loop several chunks of steps.
"""

import contextlib
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
from jaxrnn.testing._oracle import close

RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, TIME, DEPTH))
LENGTHS = RNG.integers(0, TIME + 1, BATCH).astype(np.int32)
# Their programs have no collectives in loops, on any mesh.
ONCE = ["dynamic_rnn", "bidirectional", "static_rnn"]
AXES = ["auto", "explicit", "shard_map"]
# The layouts of parameters: whole, divided by rows, divided by columns.
LAYOUTS = [
    *itertools.product(["data"], AXES),
    *itertools.product(["FSDP", "tensor"], AXES[:2]),
]


def found(layout, axes, driver, cell):
    return collectives(compiled(jax.devices(), layout, axes, driver, cell))


@pytest.mark.fast(
    "LSTM, peepholes, projection-data-shard_map",
    "LSTM, GRU-data-auto",
    "GRU-FSDP-auto",
    "LSTM-tensor-explicit",
)
@pytest.mark.parametrize(("layout", "axes"), LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_no_collective_in_a_loop(cell, layout, axes):
    inside, outside = found(layout, axes, "dynamic_rnn", cell)
    assert inside == []
    types, _, _ = types_of(CELLS[cell], make_mesh(jax.devices(), layout, axes), layout)
    params = jax.tree.leaves(types)
    if layout == "data":
        # The compiler may combine sums: the loss, and at most one for each leaf.
        assert set(outside) == {"all-reduce"}
        assert len(outside) <= 1 + len(params)
    elif layout == "FSDP":
        kernels = [leaf for leaf in params if leaf.ndim == 2]
        assert outside.count("all-gather") == len(kernels)
    else:
        assert "all-gather" in outside


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


@pytest.mark.parametrize("told", ["context", "inputs"])
def test_fsdp_of_parameters_whose_types_tell_no_mesh(told):
    """`in_shardings` shards the parameters. The mesh is set, or the inputs have it."""
    cell, mesh = CELLS["LSTM"], make_mesh(jax.devices(), "FSDP", "auto")
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


# Every layout with every cell, and every driver on one kind of mesh.
VALUES = [(*layout, "dynamic_rnn", cell) for layout in LAYOUTS for cell in CELLS]

VALUES += [
    ("data", axes, name, "LSTM") for axes, name in zip(AXES * 3, DRIVERS, strict=False)
]


@functools.cache
def on_one_device(driver, cell):
    """The arguments, the loss and the gradient."""
    cell = CELLS[cell]
    given = cell.init(jax.random.key(0), X[:, 0]), X, LENGTHS
    return given, gradient_of(DRIVERS[driver], cell, None, "auto")(*given)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "axes", "driver", "cell"), VALUES)
def test_values_and_gradients(layout, axes, driver, cell):
    given, want = on_one_device(driver, cell)
    cell, mesh = CELLS[cell], make_mesh(jax.devices(), layout, axes)
    put = lambda value, like: jax.device_put(value, like.sharding)
    types = types_of(cell, mesh, layout, jnp.float64)
    with jax.set_mesh(mesh):
        run = gradient_of(DRIVERS[driver], cell, mesh, axes)
        got = run(*jax.tree.map(put, given, types))
    close(got, want, "float64")
