"""Parameters of Flax linen's cells give the cells that Flax runs."""

import functools

import jax
import numpy as np
import pytest
from convert_checks import (
    X,
    both_ways,
    hold_to,
    one_way,
    random_like,
)
from helpers import assert_same, usual_promotion

from jaxrnn.convert import linen

nn = pytest.importorskip("flax.linen")


def module(kind, units, **options):
    cell = getattr(nn, kind)(units, param_dtype=np.float64, **options)
    return nn.RNN(cell, return_carry=True)


def two(fw, bw):
    return nn.Bidirectional(*(module(kind, 2 + i) for i, kind in enumerate((fw, bw))))


def build(case):
    return {
        "lstm": lambda: module("LSTMCell", 4),
        "optimized": lambda: module("OptimizedLSTMCell", 4),
        "gru": lambda: module("GRUCell", 4),
        "simple_relu": lambda: module("SimpleCell", 4, activation_fn=nn.relu),
        "stack": lambda: nn.Sequential(
            [
                nn.RNN(getattr(nn, kind)(2 + i, param_dtype=np.float64))
                for i, kind in enumerate(("SimpleCell", "LSTMCell", "GRUCell"))
            ]
        ),
        "both": lambda: nn.Sequential(
            [two("GRUCell", "OptimizedLSTMCell"), two("SimpleCell", "SimpleCell")]
        ),
    }[case]()


RUN = ("lstm", "simple_relu", "stack", "both")  # All kinds are in these.
CASES = (*RUN, "optimized", "gru")


@functools.cache
def random_params(case):
    with usual_promotion():
        shapes = jax.eval_shape(build(case).init, jax.random.key(0), X)["params"]
    return random_like(shapes)


def read(case, params):
    if case == "both":
        return linen.load(params, bidirectional=True)
    return linen.load(params, "relu" if case == "simple_relu" else None)


def write(case):
    if case == "both":
        return lambda cells: linen.save(cells, bidirectional=True)
    wrap = (lambda tree: tree) if case == "stack" else (lambda tree: {"cell": tree})
    return lambda cell: wrap(linen.save(cell))


@pytest.mark.fast("both")
@pytest.mark.parametrize("case", RUN)
def test_same_as_flax(case):
    flax_module, params = build(case), random_params(case)

    def theirs(params, x):
        made = flax_module.apply({"params": params}, x)
        # Carry and outputs, of a `Sequential` the outputs alone.
        return (made[1], made[0]) if isinstance(made, tuple) else made

    ours = both_ways if case == "both" else one_way
    if case in ("stack", "both"):
        run, ours = ours, lambda cells, x: run(cells, x)[0]
    hold_to(theirs, ours, params, lambda params: read(case, params))


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_are_the_same_bits(case):
    params = random_params(case)
    assert_same(write(case)(read(case, params)), params)


def test_what_init_gives_boxes_and_all():
    """Whole variables; parameters with names for a mesh's axes."""
    kernel = nn.with_partitioning(nn.initializers.zeros, (None, "model"))
    cell = nn.RNN(nn.SimpleCell(4, kernel_init=kernel))
    with usual_promotion():
        shapes = jax.eval_shape(cell.init, jax.random.key(0), X.astype(np.float32))
    variables = random_like(shapes)
    boxed = variables["params"]["cell"]["i"]["kernel"]
    assert isinstance(boxed, nn.Partitioned)
    got = linen.load(variables)
    np.testing.assert_array_equal(got.params["kernel"][:3], boxed.value)
