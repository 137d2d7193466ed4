"""An argument of `dynamic_rnn` means the same in two directions, layers and modules."""

import inspect

import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import assert_near, bound, draw

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx

from ..meshes.test_drivers import BATCH, CELLS, DEPTH, F64, SECOND, UNITS, values

TIME = 5
CELL, OTHER = bound(CELLS["affine"]), bound(SECOND)
VALUES = values(CELL.cell, TIME)
ARGUMENTS = sorted(VALUES.keys() & inspect.signature(jaxrnn.dynamic_rnn).parameters)


TWO_WAYS = sorted({*ARGUMENTS} - {"reset_state", "return_states"})


def given(name):
    """The inputs and the options of a run with the argument."""
    options = {name: VALUES[name]}
    if name == "reset_state":
        options["resets"] = VALUES["resets"]
    axes = (TIME, BATCH) if name == "time_major" else (BATCH, TIME)
    return draw(*axes, DEPTH), options


@pytest.mark.parametrize("name", TWO_WAYS)
def test_the_first_of_two_directions_runs_like_one(name):
    x, options = given(name)
    want = jaxrnn.dynamic_rnn(CELL, x, dtype=F64, **options)
    if "initial_state" in options:
        options = {"initial_state_fw": options["initial_state"]}
    run = jaxrnn.bidirectional_dynamic_rnn
    outputs, states = run(CELL, OTHER, x, dtype=F64, **options)
    assert_near((outputs[0], states[0]), want, tolerance=1e-12)


@pytest.mark.parametrize("name", TWO_WAYS)
def test_a_layer_of_two_directions_runs_like_them(name):
    """Two layers, because a layer's outputs are the inputs of the next one."""
    x, options = given(name)
    above = bound(SECOND, 2 * UNITS), bound(CELL.cell, 2 * UNITS)
    options.pop("initial_state", None)
    want, states = x, []
    for fw, bw in [(CELL, OTHER), above]:
        run = jaxrnn.bidirectional_dynamic_rnn
        outputs, state = run(fw, bw, want, dtype=F64, **options)
        want = jnp.concatenate(outputs, axis=2)
        states.append(state)
    run = jaxrnn.stack_bidirectional_dynamic_rnn
    got = run([CELL, above[0]], [OTHER, above[1]], x, dtype=F64, **options)
    assert_near(got, (want, *zip(*states, strict=True)), tolerance=1e-12)


def in_nnx(x, options, arguments):
    size = {"rngs": nnx.Rngs(0), "dtype": F64, "param_dtype": F64}
    module = jaxrnn.nnx.RNN(CELL.cell, DEPTH, **options, **size)
    module.set_cells(CELL)
    return module(x, **arguments)


def in_linen(x, options, arguments):
    module = jaxrnn.linen.RNN(CELL.cell, dtype=F64, param_dtype=F64, **options)
    return module.apply(module.variables_of(CELL), x, **arguments)


@pytest.mark.parametrize("run", [in_nnx, in_linen])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_module_runs_like_the_driver(name, run):
    x, options = given(name)
    want = jaxrnn.dynamic_rnn(CELL, x, dtype=F64, **options)
    of_call = inspect.signature(jaxrnn.nnx.RNN.__call__).parameters
    arguments = {n: options.pop(n) for n in [*options] if n in of_call}
    state, outputs, *states = run(x, options, arguments | {"return_carry": True})
    assert_near((outputs, state, *states), want, tolerance=1e-12)
