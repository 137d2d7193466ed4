"""Stacks, devices, and cells that are given their last inputs."""

import dataclasses
import functools
import pathlib
import re

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, differentiated, drawn, scanned
from jax.sharding import NamedSharding
from native_cases import data

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, PastInputsWrapper
from jaxrnn.extend import ParamsWrapper, fields
from jaxrnn.testing._oracle import Setup, unrolled

KEY, F64 = jax.random.key(0), jnp.float64
X = np.random.default_rng(0).normal(size=(4, 5, 3))
NAMES = ["cell_0", "cell_1"]


def run(cell, params):
    return jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=F64)


def test_the_same_object_twice_shares_its_parameters():
    cell = GRUCell(3)
    shared, apart = MultiRNNCell([cell, cell]), MultiRNNCell([cell, GRUCell(3)])
    assert shared != apart
    with pytest.warns(UserWarning, match=r"layers of .*owners=\(0, 0\)\) are the same"):
        assert list(shared.init(KEY, X[:, 0])) == ["cell_0"]
    apart.init(KEY, X[:, 0])
    params = drawn(shared, X[:, 0])
    assert (list(params), list(drawn(apart, X[:, 0]))) == (["cell_0"], NAMES)
    same = run(apart, dict.fromkeys(NAMES, params["cell_0"]))
    assert_same(run(shared, params), same)


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
    wrapped = jaxrnn.DeviceWrapper(cell, PLACES[kind])
    want = differentiated(lambda params: run(cell, params), params)
    with jax.set_mesh(MESH):
        got = differentiated(lambda params: run(wrapped, params), params)
    if kind in ("sharding", "spec"):
        (outputs, _), _ = got
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


@dataclasses.dataclass(frozen=True, eq=False)
class Echo(jaxrnn.RNNCell):
    """Returns what it is given, to see that; the state stays as it is."""

    output_size: int
    state_size = 1

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state

    def choose_loop(self, params, run):
        loop = lambda params, run: (run.steps.zero_finished(run.inputs), run.state)
        return jaxrnn.extend.Choice("echo", loop)


def test_convolves_as_recurrentgemma():
    arrays = helpers.with_prefix("conv1d/", dict(np.load(GOLDEN)))
    cell = jaxrnn.TemporalConvWrapper(Echo(DEPTH), DEPTH)
    named = lambda name: {"kernel": arrays[f"{name}/w"], "bias": arrays[f"{name}/b"]}

    def run(params, x):
        bound = cell.bind(params | {"echo": {}})
        return jaxrnn.dynamic_rnn(bound, x, dtype=F64)

    params = named("params")
    outputs, state = run(params, arrays["x"])
    near((outputs, state.past_inputs), (arrays["outputs"], arrays["cache"]))
    _, got = helpers.squared(lambda *given: run(*given)[0], params, arrays["x"])
    near(got, (named("grads"), arrays["grads/x"]))
    params = params | {"echo": {}}
    output, state = cell.apply(params, arrays["next_x"][:, 0], state)
    want = arrays["next_outputs"][:, 0], arrays["next_cache"]
    near((output, state.past_inputs), want)


def test_initial_values_are_those_of_recurrentgemma():
    cell = jaxrnn.TemporalConvWrapper(GRUCell(2), 500)
    params = cell.init(KEY, jax.ShapeDtypeStruct((1, 500), jnp.float32))
    assert params.keys() == {"kernel", "bias", "gru_cell"}
    assert abs(params["kernel"].std() - 0.05) < 0.005
    assert not params["bias"].any()


@fields.dataclass
class Gaps(PastInputsWrapper, ParamsWrapper):
    """Passes on the scaled inputs of now and of before, as a nest."""

    def own_specs(self, depth):
        return {"scale": jaxrnn.ParamSpec((depth,), jax.nn.initializers.ones)}

    def combine(self, own, taps):
        return {"old": own["scale"][None] * taps[0], "new": taps[-1][:, :1]}


def test_init_of_a_subclass_passes_on_the_shapes_that_it_combines():
    step = lambda params, x, state, key=None: (params * x["new"] + x["old"], state)
    shapes = lambda key, x, dtype: jnp.zeros((x["old"].shape[1] + x["new"].shape[1],))
    cell = Gaps(jaxrnn.FunctionCell(step, 1, DEPTH, shapes), DEPTH)
    params = cell.init(KEY, jax.ShapeDtypeStruct((2, DEPTH), jnp.float32))
    got = jax.tree.map(jnp.shape, params)
    assert got == {"scale": (DEPTH,), "function_cell": (DEPTH + 1,)}


def test_concatenates_the_oldest_first():
    cell, x = PastInputsWrapper(Echo(9), DEPTH, 3), jnp.arange(12.0).reshape(1, 4, 3)
    outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), x, dtype=F64)
    padded = np.concatenate([np.zeros((2, 3)), x[0]])
    want = np.stack([padded[t : t + 3].ravel() for t in range(4)])
    np.testing.assert_array_equal(outputs[0], want)
    np.testing.assert_array_equal(state.past_inputs, x[:, 2:])


CONV = jaxrnn.TemporalConvWrapper(GRUCell(4), DEPTH)


def test_what_a_row_without_steps_starts_from_reaches_no_gradient():
    params, x, state = data(CONV, 2, F64, 3)
    state = state._replace(past_inputs=state.past_inputs.at[1].set(jnp.nan))
    run = lambda params, state: jaxrnn.dynamic_rnn(CONV.bind(params), x, [3, 0], state)
    _, gradients = differentiated(lambda *given: run(*given)[0], params, state)
    chex.assert_tree_all_finite(gradients)


@pytest.mark.fast("False")
@pytest.mark.parametrize("past_too", [False, True])
def test_few_bits_beside_a_cell_state_in_float32(past_too):
    cell = jaxrnn.TemporalConvWrapper(LSTMCell(4), DEPTH)
    params, x, state = data(cell, 2, jnp.bfloat16, 5)
    wide = jax.tree.map(jnp.float32, state)
    past = wide.past_inputs if past_too else state.past_inputs
    state = jaxrnn.PastInputsState(past, state.cell_state._replace(c=wide.cell_state.c))
    run = lambda cell: jaxrnn.dynamic_rnn(cell.bind(params), x, [5, 2], state, x.dtype)
    got = run(cell)
    assert_near(got, run(scanned(cell)), tolerance=0.03)
    chex.assert_trees_all_equal_dtypes(got, (x, state))


def test_the_wrapped_cell_may_read_a_memory():
    luong = jaxrnn.contrib.LuongAttention(4, 2)
    attention = jaxrnn.contrib.AttentionWrapper(GRUCell(4), luong, 4)
    cell = jaxrnn.TemporalConvWrapper(attention, DEPTH)
    memory = attention.initial_state(np.ones((2, 5, 2)), [5, 2])
    x, past = np.random.default_rng(0).normal(size=(2, 2, 3, DEPTH))
    params, state = drawn(cell, x[:, 0]), jaxrnn.PastInputsState(past, memory)
    setup = Setup(cell, params, x, None, state, F64)
    of = lambda run: jax.jit(functools.partial(run, setup))(params, x, state, None)
    near(of(Setup.run), of(unrolled))


STEP, FEW = np.ones((2, DEPTH), np.float32), np.ones((2, 4), np.float32)
PAST = np.zeros((2, 3, DEPTH), np.float32)


def apply(inputs=STEP, past=PAST):
    state = jaxrnn.PastInputsState(past, FEW)
    return CONV.apply(CONV.init(KEY, STEP), inputs, state)


NARROW = PastInputsWrapper(GRUCell(4), 2)
REFUSED = {
    "`cell` must be an": lambda: PastInputsWrapper(3, 2),
    "`depth` must be at least 1, got 0": lambda: PastInputsWrapper(GRUCell(4), 0),
    "`inputs` must be [batch, 3] to fit `depth`, got": lambda: apply(np.ones((2, 5))),
    "`inputs` must be [batch, 2] to fit `depth`, got": lambda: NARROW.init(KEY, STEP),
    "`state.past_inputs` must have shape [2, 3, 3]": lambda: apply(past=PAST[:, :1]),
    "`state.past_inputs` must have dtype": lambda: apply(past=np.float16(PAST)),
}


test_refuses = helpers.refusals(REFUSED.items(), "message call", re.escape)


@pytest.mark.slow
def test_divided_parameters_on_an_explicit_mesh():
    """The convolution's columns are divided; the taps and the cell's inputs are not."""
    cell = jaxrnn.TemporalConvWrapper(jaxrnn.RGLRUCell(4, 2), 4)
    xs = jnp.ones((2, 5, 4))
    params = cell.init(KEY, xs[:, 0])
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), xs, dtype=xs.dtype)[0]
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Explicit,))
    last_axis = lambda x: jax.NamedSharding(mesh, jax.P(*[None] * (x.ndim - 1), "m"))
    divided = jax.device_put(params, jax.tree.map(last_axis, params))
    near(*jax.device_get((jax.jit(run)(divided), run(params))))
