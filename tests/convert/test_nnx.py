"""Parameters of Flax nnx's cells give the cells that Flax runs."""

import dataclasses

import jax
import numpy as np
import pytest
from convert_checks import (
    DEPTH,
    both_ways,
    hold_to,
    one_way,
    random_like,
)
from helpers import assert_same, usual_promotion

from jaxrnn.convert import nnx as converter

nnx = pytest.importorskip("flax.nnx")
RNGS = nnx.Rngs(0)


def module(kind, depth, units, **options):
    options |= dict.fromkeys(("dtype", "param_dtype"), np.float64)
    inits = "kernel_init", "recurrent_kernel_init"  # The usual ones are slow.
    options |= dict.fromkeys(inits, nnx.initializers.zeros)
    cell = getattr(nnx, kind)(depth, units, rngs=RNGS, **options)
    return nnx.RNN(cell, rngs=RNGS)


def two(depth, fw, bw):
    return nnx.Bidirectional(module(fw, depth, 2), module(bw, depth, 3), rngs=RNGS)


BUILD = {
    "lstm": lambda: module("LSTMCell", DEPTH, 4),
    "simple_relu": lambda: module("SimpleCell", DEPTH, 4, activation_fn=nnx.relu),
    "stack": lambda: nnx.Sequential(
        module("GRUCell", DEPTH, 3),
        module("OptimizedLSTMCell", 3, 4),
        module("SimpleCell", 4, 2),
    ),
    "both": lambda: nnx.Sequential(
        two(DEPTH, "GRUCell", "OptimizedLSTMCell"), two(5, "SimpleCell", "SimpleCell")
    ),
}


@pytest.fixture(scope="module")
def modules():
    with usual_promotion():
        return {case: build() for case, build in BUILD.items()}


def random_params(flax_module, seed=0):
    return random_like(nnx.to_pure_dict(nnx.state(flax_module, nnx.Param)), seed)


def read(case, params):
    if case == "both":
        return converter.load(params, bidirectional=True)
    return converter.load(params, "relu" if case == "simple_relu" else None)


def write(case, cells):
    if case == "both":
        return converter.save(
            tuple(map(without_bias, cells)), optimized=True, bidirectional=True
        )
    saved = converter.save(without_bias(cells), optimized=case == "stack")
    return saved if case == "stack" else {"cell": saved}


def without_bias(cells):
    """As it is, but zero the bias that nnx does not have: it has a gradient here."""
    zeroed = lambda path, x: x * 0 if "hidden_projection" in str(path[-2:]) else x

    def leaf(path, x):
        return zeroed(path, x) if path[-1].key == "bias" else x

    each = lambda cell: dataclasses.replace(
        cell, params=jax.tree_util.tree_map_with_path(leaf, cell.params)
    )
    return tuple(map(each, cells)) if isinstance(cells, tuple) else each(cells)


@pytest.mark.fast("lstm", "simple_relu")
@pytest.mark.parametrize("case", BUILD)
def test_same_as_flax(case, modules):
    graph, state, rest = nnx.split(modules[case], nnx.Param, ...)
    params = random_params(modules[case])
    alone = case not in ("stack", "both")  # A `Sequential` hands on outputs alone.

    def theirs(params, x):
        own, others = jax.tree.map(lambda leaf: leaf, (state, rest))
        nnx.replace_by_pure_dict(own, params)
        made = nnx.merge(graph, own, others)
        return made(x, return_carry=True)[::-1] if alone else made(x)

    run = both_ways if case == "both" else one_way
    ours = run if alone else lambda cells, x: run(cells, x)[0]
    hold_to(theirs, ours, params, lambda params: read(case, params))


@pytest.mark.parametrize("case", BUILD)
def test_there_and_back_are_the_same_bits(case, modules):
    params = random_params(modules[case])
    cells = read(case, params)
    assert_same(write(case, cells), params)
    nnx.update(modules[case], write(case, cells))
    state = nnx.state(modules[case], nnx.Param)
    assert_same(nnx.to_pure_dict(state), params)
    assert_same(write(case, read(case, state)), params)  # The boxes are opened.
