"""Cells that are given their last inputs: recurrentgemma's numbers, and the scan's."""

import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, drawn, with_prefix

import jaxrnn
import jaxrnn.linen
from jaxrnn import (
    FunctionCell,
    GRUCell,
    LSTMCell,
    PastInputsState,
    PastInputsWrapper,
    TemporalConvWrapper,
    contrib,
)
from jaxrnn.testing._oracle import Setup, unrolled

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "recurrentgemma.npz"
KEY, F64, DEPTH = jax.random.key(0), jnp.float64, 3
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

    def apply_sequence(self, params, run):
        return run.steps.zero_dead(run.inputs), run.state


def test_convolves_as_recurrentgemma():
    arrays = with_prefix("conv1d/", dict(np.load(GOLDEN)))
    cell = TemporalConvWrapper(Echo(DEPTH), DEPTH)
    named = lambda name: {"kernel": arrays[f"{name}/w"], "bias": arrays[f"{name}/b"]}

    def run(params, x):
        bound = cell.bind(params | {"echo": {}})
        return jaxrnn.dynamic_rnn(bound, x, dtype=F64)

    params = named("params")
    outputs, state = run(params, arrays["x"])
    near((outputs, state.past_inputs), (arrays["outputs"], arrays["cache"]))
    loss = lambda params, x: jnp.sum(run(params, x)[0] ** 2)
    got = jax.grad(loss, (0, 1))(params, arrays["x"])
    near(got, (named("grads"), arrays["grads/x"]))
    params = params | {"echo": {}}
    output, state = cell.apply(params, arrays["next_x"][:, 0], state)
    want = arrays["next_outputs"][:, 0], arrays["next_cache"]
    near((output, state.past_inputs), want)


def test_initial_values_are_those_of_recurrentgemma():
    cell = TemporalConvWrapper(GRUCell(2), 500)
    params = cell.init(KEY, jax.ShapeDtypeStruct((1, 500), jnp.float32))
    assert params.keys() == {"kernel", "bias", "gru_cell"}
    assert abs(params["kernel"].std() - 0.05) < 0.005
    assert not params["bias"].any()


def test_concatenates_the_oldest_first():
    cell, x = PastInputsWrapper(Echo(9), DEPTH, 3), jnp.arange(12.0).reshape(1, 4, 3)
    outputs, state = jaxrnn.dynamic_rnn(cell.bind({}), x, dtype=F64)
    padded = np.concatenate([np.zeros((2, 3)), x[0]])
    want = np.stack([padded[t : t + 3].ravel() for t in range(4)])
    np.testing.assert_array_equal(outputs[0], want)
    np.testing.assert_array_equal(state.past_inputs, x[:, 2:])


CELLS = {
    "conv": TemporalConvWrapper(GRUCell(4), DEPTH),
    "past": PastInputsWrapper(LSTMCell(4), DEPTH, 3),
}


def data(cell, rows, time):
    rng = np.random.default_rng(0)
    draw = lambda shape: jax.device_put(rng.normal(size=shape) * 0.7)
    x = draw((rows, time, DEPTH))
    state = jax.eval_shape(lambda: cell.zero_state(rows, F64))
    state = jax.tree.map(lambda leaf: draw(leaf.shape), state)
    return drawn(cell, x[:, 0]), state, x


def step_by_step(cell):
    """The same cell without its `apply_sequence`."""
    apply = lambda params, x, state, key=None: cell.apply(params, x, state)
    return FunctionCell(apply, cell.state_size, cell.output_size)


@pytest.mark.fast("conv")
@pytest.mark.parametrize("name", CELLS)
def test_packs_give_what_rows_give_and_sequences_stay_apart(name):
    cell, lengths = CELLS[name], np.asarray([3, 0, 6, 1, 2, 2])
    params, state, x = data(cell, 6, 6)
    x = jnp.where((np.arange(6) < lengths[:, None])[..., None], x, jnp.nan)
    packed = jaxrnn.pack_sequences(x, lengths)

    def of_packs(params, state, inputs):
        given = dataclasses.replace(packed, inputs=inputs)
        outputs, last = jaxrnn.packed_rnn(cell.bind(params), given, state)
        return packed.unpack(outputs), last

    @jax.jit
    def by_sequence(inputs):
        """Results and gradients; the gradients of the inputs are unpacked."""
        pair = differentiated(of_packs, params, state, inputs)
        results, (d_params, d_state, d_inputs) = pair
        return results, (d_params, d_state, packed.unpack(d_inputs))

    def of_rows(params, state, x):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state)

    results, gradients = differentiated(of_rows, params, state, x)
    near(by_sequence(packed.inputs), (results, gradients))
    # NaN in the sequence before others of its row changes only that one.
    row = next(i for i, r in enumerate(packed.starts) if (r >= 0).sum() > 1)
    number = packed.starts[row][0]
    inputs = packed.inputs.copy()
    inputs[row, : lengths[number]] = np.nan
    spoiled, (_, *spoiled_gradients) = by_sequence(inputs)
    pick = lambda tree: jax.tree.map(lambda leaf: np.delete(leaf, number, 0), tree)
    assert np.isnan(spoiled[0][number, 0]).all()
    near(pick((spoiled, spoiled_gradients)), pick((results, list(gradients[1:]))))


def test_what_a_row_without_steps_starts_from_reaches_no_gradient():
    cell = CELLS["conv"]
    params, state, x = data(cell, 2, 3)
    state = state._replace(past_inputs=state.past_inputs.at[1].set(jnp.nan))

    def outputs(params, state):
        return jaxrnn.dynamic_rnn(cell.bind(params), x, [3, 0], state)[0]

    _, gradients = differentiated(outputs, params, state)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.fast("False")
@pytest.mark.parametrize("past_too", [False, True])
def test_few_bits_beside_a_cell_state_in_float32(past_too):
    cell = TemporalConvWrapper(LSTMCell(4), DEPTH)
    params, state, x = data(cell, 2, 5)
    cast = lambda tree, dtype: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
    params, x, narrow = cast((params, x, state), jnp.bfloat16)
    wide = cast(state, jnp.float32)
    past = wide.past_inputs if past_too else narrow.past_inputs
    c = wide.cell_state.c
    state = PastInputsState(past, narrow.cell_state._replace(c=c))
    got, want = (
        jaxrnn.dynamic_rnn(one.bind(params), x, [5, 2], state, jnp.bfloat16)
        for one in (cell, step_by_step(cell))
    )
    assert_near(got, want, tolerance=0.03)
    outputs, last = got
    assert outputs.dtype == jnp.bfloat16
    dtype_of = lambda leaf: leaf.dtype
    assert jax.tree.map(dtype_of, last) == jax.tree.map(dtype_of, state)


def test_the_wrapped_cell_may_read_a_memory():
    attention = contrib.AttentionWrapper(GRUCell(4), contrib.LuongAttention(4, 2), 4)
    cell = TemporalConvWrapper(attention, DEPTH)
    memory = attention.initial_state(np.ones((2, 5, 2)), [5, 2])
    x = np.random.default_rng(0).normal(size=(2, 3, DEPTH))
    params, state = (
        drawn(cell, x[:, 0]),
        PastInputsState(jnp.ones((2, 3, DEPTH)), memory),
    )
    setup = Setup(cell, params, x, None, state, F64)
    got, want = (
        jax.jit(functools.partial(run, setup))(params, x, state, None)
        for run in (Setup.run, unrolled)
    )
    near(got, want)


def test_declines_where_the_wrapped_cell_does():
    cell = PastInputsWrapper(step_by_step(Echo(6)), DEPTH)
    x = jnp.ones((2, 3, DEPTH))
    with pytest.raises(ValueError, match="FunctionCell has no `apply_sequence`"):
        jaxrnn.dynamic_rnn(cell.bind({}), x, dtype=F64, implementation="cudnn")


def test_modules_take_several_axes_of_rows():
    axes = (2, 4, 5, DEPTH)
    module = jaxrnn.linen.RNN(TemporalConvWrapper(GRUCell(4), DEPTH))
    outputs, _ = jax.eval_shape(module.init_with_output, KEY, jnp.ones(axes))
    assert jax.tree.leaves(outputs)[0].shape == (2, 4, 5, 4)


STEP = np.ones((2, DEPTH), np.float32)
PAST = np.zeros((2, 3, DEPTH), np.float32)


def apply(inputs=STEP, past=PAST):
    cell = CELLS["conv"]
    state = PastInputsState(past, np.zeros((2, 4), np.float32))
    return cell.apply(cell.init(KEY, STEP), inputs, state)


def refused(error, message):
    return pytest.raises(error, match=re.escape(message))


def test_refuses():
    cell, conv = GRUCell(4), CELLS["conv"]
    with refused(TypeError, "`cell` must be an"):
        PastInputsWrapper(3, 2)
    with refused(ValueError, "`depth` must be at least 1, got 0"):
        PastInputsWrapper(cell, 0)
    with refused(
        ValueError, "`width` must be at least 2, got 1. To use only the newest"
    ):
        TemporalConvWrapper(cell, 3, 1)
    depth = "`inputs` must be [batch, {}] to fit `depth`, got float32[2, {}]. Create "
    with refused(ValueError, depth.format(3, 5) + "the wrapper with the depth of the"):
        apply(np.ones((2, 5), np.float32))
    with refused(ValueError, depth.format(2, 3)):
        PastInputsWrapper(cell, 2).init(KEY, STEP)
    with refused(ValueError, "must be (past inputs, cell state), got float32[2, 4]"):
        conv.apply(conv.init(KEY, STEP), STEP, np.ones((2, 4), np.float32))
    with refused(ValueError, "`state.past_inputs` must have shape [2, 3, 3], got floa"):
        apply(past=PAST[:, :1])
    with refused(
        TypeError, "`state.past_inputs` must have dtype float32 or a wider one"
    ):
        apply(past=np.float16(PAST))
    params = {"kernel": np.ones((4, 3), np.float32), "gru_cell": {}}
    with refused(ValueError, "got {'kernel': *}"):
        conv.apply(params, STEP, conv.zero_state(2, jnp.float32))


@pytest.mark.slow
def test_divided_parameters_on_an_explicit_mesh():
    """The convolution's columns are divided; the taps and the cell's inputs are not."""
    cell = TemporalConvWrapper(jaxrnn.RGLRUCell(4, 2), 4)
    xs = jnp.ones((2, 5, 4))
    params = cell.init(KEY, xs[:, 0])
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), xs, dtype=xs.dtype)[0]
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Explicit,))

    def divide(x):
        spec = jax.P(*[None] * (x.ndim - 1), "m")
        return jax.device_put(x, jax.NamedSharding(mesh, spec))

    got = np.asarray(jax.jit(run)(jax.tree.map(divide, params)))
    near(got, np.asarray(run(params)))
