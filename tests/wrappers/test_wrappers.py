"""Stacks, wrappers, devices: sharing, notes of errors, placement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, differentiated, drawn
from jax.sharding import NamedSharding

import jaxrnn
from jaxrnn import DeviceWrapper, GRUCell, LSTMCell, MultiRNNCell

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 5, 3))
F64 = jnp.float64
NAMES = ["cell_0", "cell_1"]


def run(cell, params):
    return jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=F64)


def test_the_same_object_twice_shares_its_parameters():
    cell = GRUCell(3)
    shared, apart = MultiRNNCell([cell, cell]), MultiRNNCell([cell, GRUCell(3)])
    assert shared != apart
    params = drawn(shared, X[:, 0])
    assert (list(params), list(drawn(apart, X[:, 0]))) == (["cell_0"], NAMES)
    same = run(apart, dict.fromkeys(NAMES, params["cell_0"]))
    assert_same(run(shared, params), same)


def test_sharing_needs_equal_depths():
    cell = GRUCell(2)
    stack = MultiRNNCell([cell, cell])
    params = drawn(MultiRNNCell([cell]), X[:, 0])
    with pytest.raises(ValueError, match="for inputs of depth 2") as caught:
        run(stack, params)
    assert "`cells[1]` with `params['cell_0']`" in "".join(caught.value.__notes__)


def test_an_error_says_which_layer_and_which_direction():
    stack = MultiRNNCell([GRUCell(2), GRUCell(3)])
    params = drawn(stack, X[:, 0])
    good, bad = map(stack.bind, (params, dict.fromkeys(NAMES, params["cell_0"])))
    with pytest.raises(ValueError, match="must have shape") as caught:
        jaxrnn.bidirectional_dynamic_rnn(good, bad, X, dtype=F64)
    notes = "".join(caught.value.__notes__)
    assert "`cells[1]` with `params['cell_1']`" in notes
    assert "Here, `cell` is `cell_bw`" in notes


def test_parameters_of_another_dtype_than_the_inputs():
    stack = MultiRNNCell([GRUCell(2), LSTMCell(3)])
    params = stack.init(KEY, X[:, 0], jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_wrappers_show_what_they_wrap():
    inner = LSTMCell(3)
    wrapper = jaxrnn.ResidualWrapper(inner)
    assert wrapper.wrapped_cell is inner
    assert wrapper.state_size == jaxrnn.LSTMStateTuple(3, 3)
    assert "LSTMCell(num_units=3" in repr(wrapper)


MESH = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
PLACES = {
    "name": "/device:CPU:0",
    "device": jax.devices()[0],
    "sharding": NamedSharding(MESH, jax.P("data")),
    "spec": jax.P("data"),
}


@pytest.mark.fast("name", "spec")
@pytest.mark.parametrize("kind", PLACES)
def test_placement_changes_no_value(kind):
    cell = LSTMCell(4)
    params = drawn(cell, X[:, 0])
    wrapped = DeviceWrapper(cell, PLACES[kind])
    want = differentiated(lambda params: run(cell, params), params)
    with jax.set_mesh(MESH):
        got = differentiated(lambda params: run(wrapped, params), params)
    if kind in ("sharding", "spec"):
        (outputs, _), _ = got
        assert len(outputs.sharding.device_set) == 4
    assert_near(got, want, tolerance=1e-12)


def test_placement_of_the_zero_state():
    device = jax.devices()[2]
    state = DeviceWrapper(GRUCell(3), device).zero_state(4, F64)
    assert state.devices() == {device}
