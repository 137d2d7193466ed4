"""Complex inputs, states and parameters in modules and in cells of other libraries."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, differentiated, usual_promotion

import jaxrnn
import jaxrnn.initializers
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import FunctionCell, GRUCell, LSTMCell, dynamic_rnn

ROWS, TIME, UNITS = 3, 4, 2
LENGTHS = np.array([4, 0, 3], np.int32)
F32, C64 = jnp.float32, jnp.complex64
RESETS = np.arange(TIME) == np.arange(ROWS)[:, None] + 1
ARRAYS = ("u", "inputs", "initial_state", "reset_state")


@pytest.fixture(autouse=True)
def usual_jax():
    """The promotion that Flax's own modules rely on."""
    with usual_promotion():
        yield


def rotate(u, inputs, state):
    """A unitary step, which also accepts the two outputs of a bidirectional layer."""
    return u * (state + inputs[..., :UNITS] + 0.5 * inputs[..., -UNITS:])


def step(params, inputs, state, key=None):
    """A step whose real output depends on all imaginary parts."""
    new = rotate(params["u"], inputs, state)
    return new.real + 2 * new.imag, new if jnp.iscomplexobj(state) else new.real


def complex_step(params, inputs, state, key=None):
    new = rotate(params["u"], inputs, state)
    return new, new


def init(key, inputs, dtype):
    return {"u": unit(drawn(0, True, UNITS))}


def unit(x):
    return x / abs(x)


REAL = FunctionCell(step, UNITS, UNITS, init, is_random=False)
COMPLEX = FunctionCell(complex_step, UNITS, UNITS, init, is_random=False)


def drawn(seed, is_complex, *shape):
    rng = np.random.default_rng(seed)
    real, imag = rng.normal(size=(2, *shape)).astype(np.float32)
    return jax.device_put(real + 1j * imag if is_complex else real)


def arrays(*complex_ones):
    """`(u, inputs, initial_state, reset_state)`, of which some are complex."""
    shapes = {"u": (UNITS,), "inputs": (ROWS, TIME, UNITS)}
    u, *others = (
        drawn(seed, name in complex_ones, *shapes.get(name, (ROWS, UNITS)))
        for seed, name in enumerate(ARRAYS)
    )
    return [unit(u), *others]


def in_numpy(u, inputs, state, reset_state):
    """The outputs and the final state of `REAL`."""
    outputs = np.zeros((ROWS, TIME, UNITS), np.float32)
    state = np.array(state)
    for row, t in np.argwhere(np.arange(TIME) < LENGTHS[:, None]):
        old = reset_state[row] if RESETS[row, t] else state[row]
        new = rotate(np.asarray(u), inputs[row, t], np.asarray(old))
        outputs[row, t] = new.real + 2 * new.imag
        state[row] = new if np.iscomplexobj(state) else new.real
    return outputs, state


def of_driver(cell, dtype):
    def run(u, inputs, state, reset_state):
        options = {"resets": RESETS, "reset_state": reset_state, "dtype": dtype}
        return dynamic_rnn(cell.bind({"u": u}), inputs, LENGTHS, state, **options)

    return run


def of_two(cell, dtype, layers):
    """Both directions; both read the given states, and reset to zeros."""

    def run(u, inputs, state, reset_state):
        bound = [cell.bind({"u": u})] * layers
        states = [[state] * layers, [reset_state] * layers]
        outputs, *states = jaxrnn.stack_bidirectional_dynamic_rnn(
            bound, bound, inputs, *states, dtype, LENGTHS
        )
        return outputs, tuple(states)

    return run


def in_linen(kind, *cells, dtype):
    module = getattr(jaxrnn.linen, kind)(*cells, dtype=dtype, return_carry=True)

    def run(params, *args, **kwargs):
        # `init` must run too, and must keep complex parameters complex.
        made = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
        types = jax.tree.map(lambda x: x.dtype, made)
        assert set(jax.tree.leaves(types)) == {np.dtype("complex64")}
        return module.apply({"params": params}, *args, **kwargs)[::-1]

    return run


def in_nnx(kind, *cells, dtype):
    kind = getattr(jaxrnn.nnx, kind)
    module = kind(*cells, UNITS, dtype=dtype, return_carry=True, rngs=nnx.Rngs(0))

    def run(params, *args, **kwargs):
        graph, _, rest = nnx.split(module, nnx.Param, ...)
        copy = nnx.merge(graph, nnx.State({"params": params}), rest)
        return copy(*args, **kwargs)[::-1]

    return run


def of_modules(make, cell, dtype):
    """Runs of three modules, each with the same run of a driver."""
    one = make("RNN", cell, dtype=dtype)
    two = make("Bidirectional", cell, cell, dtype=dtype)
    stack = make("StackBidirectional", [cell] * 2, [cell] * 2, dtype=dtype)

    def run_one(u, inputs, state, reset_state):
        options = {"resets": RESETS, "reset_state": reset_state}
        params = {"function_cell": {"u": u}}
        return one(params, inputs, LENGTHS, initial_state=state, **options)

    def run_two(u, inputs, *states):
        params = {"function_cell": {"u": u}}
        params = {"fw": params, "bw": params}
        outputs, states = two(params, inputs, LENGTHS, initial_state=states)
        return outputs, tuple((state,) for state in states)

    def run_stack(u, inputs, *states):
        params = {"function_cell": {"u": u}}
        params = {f"cell_{i}": {"fw": params, "bw": params} for i in range(2)}
        states = tuple((state,) * 2 for state in states)
        return stack(params, inputs, LENGTHS, initial_state=states)

    yield run_one, of_driver(cell, dtype)
    yield run_two, of_two(cell, dtype, 1)
    yield run_stack, of_two(cell, dtype, 2)


def compare(run, want, given):
    got, want = (differentiated(each, *given) for each in (run, want))
    leaves = [jax.tree.leaves(each) for each in (got, want)]
    assert [x.dtype for x in leaves[0]] == [x.dtype for x in leaves[1]]
    parts = [[[x.real, x.imag] for x in each] for each in leaves]
    assert_near(*parts, tolerance=1e-5)


ONE_OR_ALL = [*((name,) for name in ARRAYS), ARRAYS]


@pytest.mark.parametrize("names", ONE_OR_ALL, ids="-".join)
def test_dynamic_rnn_keeps_complex_arrays(names):
    given = arrays(*names)
    if "initial_state" in names or "reset_state" in names:
        given = arrays(*names, "initial_state", "reset_state")  # They share a dtype.
    outputs, state = of_driver(REAL, F32)(*given)
    want, want_state = in_numpy(*map(np.asarray, given))
    np.testing.assert_allclose(outputs, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(state, want_state, rtol=0, atol=1e-5)
    assert (state.dtype, outputs.dtype) == (given[2].dtype, F32)


@pytest.mark.fast("u-inputs-*")
@pytest.mark.parametrize("make", [in_linen, in_nnx])
@pytest.mark.parametrize(
    "names", [("u",), ("inputs",), ARRAYS[2:], ARRAYS], ids="-".join
)
def test_modules_keep_complex_arrays_with_a_real_dtype(make, names):
    given = arrays(*names)
    for run, want in of_modules(make, REAL, F32):
        compare(run, want, given)


@pytest.mark.fast("None-*")
@pytest.mark.parametrize("make", [in_linen, in_nnx])
@pytest.mark.parametrize("dtype", [None, C64])
def test_modules_with_complex_outputs(make, dtype):
    given = arrays(*ARRAYS)
    for run, want in of_modules(make, COMPLEX, dtype):
        compare(run, want, given)


def raw(cell, steps):
    """Runs `cell`, which takes a loop function, over all steps."""

    def loop_fn(time, output, cell_state, loop_state):
        next_input = steps[0][:, jnp.minimum(time, TIME - 1)]
        state = steps[1] if output is None else cell_state
        emit = jax.ShapeDtypeStruct((UNITS,), F32) if output is None else output
        return time >= TIME, next_input, state, emit, None

    emit_ta, state, _ = cell(loop_fn)
    return jnp.swapaxes(emit_ta.stack(), 0, 1), state


def in_raw_rnn(u, inputs, state):
    cell = REAL.bind({"u": u})
    run = functools.partial(jaxrnn.raw_rnn, cell, max_time=TIME)
    return raw(run, (inputs, state))


def with_params(module, params):
    """A copy of an nnx module with other parameters."""
    graph, _, rest = nnx.split(module, nnx.Param, ...)
    return nnx.merge(graph, nnx.State(params), rest)


def in_rnn_of_linen(u, inputs, state):
    rnn = nn.RNN(jaxrnn.linen.Cell(REAL, dtype=F32), return_carry=True)
    variables = {"params": {"cell": {"function_cell": {"u": u}}}}
    return rnn.apply(variables, inputs, initial_carry=state)[::-1]


def in_rnn_of_nnx(u, inputs, state):
    cell = jaxrnn.nnx.Cell(REAL, UNITS, dtype=F32, rngs=nnx.Rngs(0))
    cell = with_params(cell, {"params": {"function_cell": {"u": u}}})
    return nnx.RNN(cell, return_carry=True)(inputs, initial_carry=state)[::-1]


class OfLinen(nn.RNNCellBase):
    """`REAL` as a cell of linen."""

    @nn.compact
    def __call__(self, carry, inputs):
        params = {"u": self.param("u", lambda key: drawn(0, True, UNITS))}
        return step(params, inputs, carry)[::-1]

    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], UNITS), F32)

    num_feature_axes = 1


class OfNnx(nnx.RNNCellBase):
    """`REAL` as a cell of nnx."""

    def __init__(self, u):
        self.u = nnx.Param(u)

    def __call__(self, carry, inputs):
        return step({"u": self.u[...]}, inputs, carry)[::-1]

    def initialize_carry(self, input_shape, rngs=None):
        return jnp.zeros((*input_shape[:-1], UNITS), F32)


def run_bound(cell):
    """Runs a bound cell whose output has the dtype float32."""
    return lambda inputs, state: dynamic_rnn(cell, inputs, None, state, F32)


def from_linen(u, inputs, state):
    cell = jaxrnn.linen.as_cell(OfLinen())
    params = cell.init(jax.random.key(0), inputs[:, 0], F32)
    assert params["u"].dtype == C64
    return run_bound(cell.bind({"u": u}))(inputs, state)


def from_linen_in_module(u, inputs, state):
    module = jaxrnn.linen.RNN(jaxrnn.linen.as_cell(OfLinen()), dtype=F32)
    variables = {"params": {"linen_cell": {"u": u}}}
    options = {"initial_state": state, "return_carry": True}
    return module.apply(variables, inputs, **options)[::-1]


def from_nnx(u, inputs, state):
    return run_bound(jaxrnn.nnx.as_cell(OfNnx(u), UNITS))(inputs, state)


OTHERS = [
    *(in_raw_rnn, in_rnn_of_linen, in_rnn_of_nnx, from_linen),
    *(from_linen_in_module, from_nnx),
]


@pytest.mark.fast("initial_state-*")
@pytest.mark.parametrize("run", OTHERS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("name", ARRAYS[:3])
def test_cells_of_flax_keep_complex_arrays(run, name):
    given = arrays(name)[:3]
    want = lambda u, *arrays: run_bound(REAL.bind({"u": u}))(*arrays)
    compare(run, want, given)


@pytest.mark.parametrize(
    ("dtype", "want"),
    [
        (F32, C64),
        (jnp.bfloat16, C64),
        (jnp.float64, jnp.complex128),
        (C64, C64),
        (jnp.int32, jnp.complex128),
    ],
)
def test_dtype_sets_the_precision_of_complex_arrays(dtype, want):
    zeros = lambda params, inputs, state, key=None: (jnp.zeros((ROWS, 1), dtype), state)
    cell = FunctionCell(zeros, UNITS, 1)
    options = {"dtype": dtype, "return_carry": True}
    (_, inputs, state, _) = (x.astype(jnp.complex128) for x in arrays(*ARRAYS))
    state, outputs = jaxrnn.linen.RNN(cell, **options).apply(
        {"params": {"function_cell": {"unused": inputs}}}, inputs, initial_state=state
    )
    assert (state.dtype, outputs.dtype) == (want, dtype)


def test_complex_parameters_need_a_complex_module():
    bound = GRUCell(UNITS).bind(
        GRUCell(UNITS, kernel_initializer=jax.nn.initializers.normal()).init(
            jax.random.key(0), jax.ShapeDtypeStruct((1, UNITS), C64)
        )
    )
    make = lambda cell, dtype: jaxrnn.nnx.RNN(
        cell, UNITS, param_dtype=dtype, rngs=nnx.Rngs(0)
    )
    with pytest.raises(TypeError, match=r"must be real .* `param_dtype=jnp.complex64`"):
        make(GRUCell(UNITS), F32).set_cells(bound)
    with pytest.raises(ValueError, match="float dtype, got complex64"):
        make(GRUCell(UNITS), C64)
    normal = jax.nn.initializers.normal()
    module = make(GRUCell(UNITS, kernel_initializer=normal), C64)
    module.set_cells(bound)
    inputs = drawn(1, False, ROWS, TIME, UNITS)
    want, _ = dynamic_rnn(bound, inputs.astype(C64), dtype=C64)
    np.testing.assert_allclose(module(inputs), want, rtol=1e-5)


def test_initializers_of_complex_parameters():
    by_part, chrono = jaxrnn.initializers.by_part, jaxrnn.initializers.chrono
    normal = jax.nn.initializers.normal()
    cell = LSTMCell(UNITS, initializer=by_part(normal, normal, bias=chrono(9)))
    step = jax.ShapeDtypeStruct((1, UNITS), F32)
    params = cell.init(jax.random.key(0), step, C64)
    assert {x.dtype for x in params.values()} == {np.dtype(C64)}
    i, _, f, _ = np.split(np.asarray(params["bias"]), 4)
    assert ((f.imag == 0) & (f.real > 0) & (i == -f)).all()
    spiral = lambda key, shape, dtype: jnp.full(shape, 1j, C64)
    with pytest.raises(
        TypeError, match=r"a real array .* pass `dtype=jnp.complex64` to"
    ):
        LSTMCell(UNITS, initializer=spiral).init(jax.random.key(0), step)


def test_a_real_state_with_a_complex_zero_state_resets_without_a_warning():
    cell = FunctionCell(lambda p, x, s, key=None: (x + 1j, s + 1), 2, 2).bind({})
    zeros = np.zeros((ROWS, UNITS), np.float32)
    inputs = arrays()[1]
    _, state = dynamic_rnn(cell, inputs, None, zeros, C64, resets=RESETS)
    want = TIME - RESETS.argmax(1) * RESETS.any(1)
    np.testing.assert_array_equal(state, np.stack([want, want], -1))
