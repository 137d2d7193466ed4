"""Stacks, devices, and convolutions in stacks."""

import functools
import pathlib

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, drawn

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell

F64 = jnp.float64
X = np.random.default_rng(0).normal(size=(4, 5, 3))
NAMES = ["cell_0", "cell_1"]


def run(cell, params):
    return jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=F64)


def test_the_same_object_twice_shares_its_parameters():
    cell = GRUCell(3)
    shared, apart = MultiRNNCell([cell, cell]), MultiRNNCell([cell, GRUCell(3)])
    assert shared != apart
    with pytest.warns(UserWarning, match=r"layers of .*owners=\(0, 0\)\) are the same"):
        params = drawn(shared, X[:, 0])
    assert (list(params), list(drawn(apart, X[:, 0]))) == (["cell_0"], NAMES)
    same = run(apart, dict.fromkeys(NAMES, params["cell_0"]))
    assert_same(run(shared, params), same)
    for wrong, depth in ((cell, 4), (GRUCell(3, project_inputs=False), 9)):
        with pytest.raises(ValueError, match=r"(?s)must .*`cells\[1\]`"):
            drawn(MultiRNNCell([wrong] * 2), np.ones((4, depth)))


MESH = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
PLACES = {
    "name": "/device:CPU:0",
    "spec": jax.P("data"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_placement_changes_no_value(kind):
    cell = LSTMCell(4)
    params = drawn(cell, X[:, 0])
    wrapped = jaxrnn.DeviceWrapper(cell, PLACES[kind])
    want = run(cell, params)
    with jax.set_mesh(MESH):
        got = jax.jit(functools.partial(run, wrapped))(params)
    if kind == "spec":
        outputs, _ = got
        assert len(outputs.sharding.device_set) == 4
    assert_near(got, want, tolerance=1e-12)


def test_placement_of_the_zero_state():
    device = jax.devices()[2]
    state = jaxrnn.DeviceWrapper(GRUCell(3), device).zero_state(4, F64)
    assert state.devices() == {device}


# Past inputs: recurrentgemma's numbers, and the scan's.

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "recurrentgemma.npz"
DEPTH = 3
near = functools.partial(assert_near, tolerance=1e-12)


def test_convolves_as_recurrentgemma():
    arrays = helpers.with_prefix("conv1d/", dict(np.load(GOLDEN)))
    cell = jaxrnn.ShortConvCell(DEPTH)
    named = lambda name: {"kernel": arrays[f"{name}/w"], "bias": arrays[f"{name}/b"]}

    def run(params, x):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=F64)

    params = named("params")
    outputs, state = run(params, arrays["x"])
    near((outputs, state), (arrays["outputs"], arrays["cache"]))
    _, got = helpers.squared(lambda *given: run(*given)[0], params, arrays["x"])
    near(got, (named("grads"), arrays["grads/x"]))
    got = cell.apply(params, arrays["next_x"][:, 0], state)
    near(got, (arrays["next_outputs"][:, 0], arrays["next_cache"]))
