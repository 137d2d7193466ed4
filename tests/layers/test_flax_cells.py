"""Cells of Flax in the drivers, ours in Flax's and in `raw_rnn`, and complex arrays."""

import functools

import chex
import flax.linen as nn
import helpers
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
from jaxrnn import FunctionCell, GRUCell, LSTMCell, MultiRNNCell, dynamic_rnn

ROWS, TIME, DEPTH, UNITS = 3, 5, 2, 4
LENGTHS = jnp.asarray([5, 1, 3], jnp.int32)


@pytest.fixture(autouse=True)
def usual_jax():
    """The promotion that Flax's own modules rely on."""
    with usual_promotion():
        yield


draw = functools.partial(helpers.draw, dtype=np.float32)


def with_params(module, params):
    """A copy of an nnx module with other parameters."""
    graph, _, rest = nnx.split(module, nnx.Param, ...)
    return nnx.merge(graph, nnx.State(params), rest)


X = draw(ROWS, TIME, DEPTH)


same = functools.partial(assert_near, tolerance=1e-5)


def alive(outputs):
    """Outputs of Flax, zeros past the lengths."""
    return jnp.where((jnp.arange(TIME) < LENGTHS[:, None])[..., None], outputs, 0)


def of_linen():
    """A cell with its parameters, and what linen's own RNN makes with them."""
    module = nn.OptimizedLSTMCell(UNITS)
    cell = jaxrnn.linen.as_cell(module)
    params = cell.init(jax.random.key(0), X[:, 0])
    rnn = nn.RNN(module, return_carry=True)
    run = lambda params: rnn.apply({"params": {"cell": params}}, X, seq_lengths=LENGTHS)
    return cell.bind(params), run


def of_nnx():
    module = nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0))

    def run(params):
        rnn = nnx.RNN(with_params(module, params), return_carry=True)
        return rnn(X, seq_lengths=LENGTHS)

    return jaxrnn.nnx.as_cell(module, DEPTH), run


@pytest.mark.fast("of_nnx")
@pytest.mark.parametrize("make", [of_linen, of_nnx])
def test_a_cell_of_flax_in_a_driver(make):
    cell, run = make()

    def theirs(params):
        state, outputs = run(params)
        return alive(outputs), state

    def ours(params):
        bound = cell.cell.bind(params)
        return dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)

    same(differentiated(ours, cell.params), differentiated(theirs, cell.params))


def test_a_cell_of_linen_made_within_a_module():
    class Tagger(nn.Module):
        @nn.compact
        def __call__(self, x):
            cell = jaxrnn.linen.as_cell(nn.GRUCell(UNITS))
            return jaxrnn.linen.RNN(cell, param_dtype=jnp.bfloat16, name="rnn")(x)

    with jax.numpy_dtype_promotion("strict"):
        outputs, variables = Tagger().init_with_output(jax.random.key(0), X)
    assert outputs.shape == (ROWS, TIME, UNITS)
    assert list(variables["params"]) == ["rnn"]
    leaves = jax.tree.leaves(variables)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


class Noisy(nnx.RNNCellBase):
    """A cell of nnx that draws random numbers from its own stream."""

    def __init__(self, rngs):
        self.gru = nnx.GRUCell(DEPTH, UNITS, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, carry, inputs):
        carry, output = self.gru(carry, inputs)
        return carry, self.dropout(output)

    def initialize_carry(self, input_shape, rngs):
        return self.gru.initialize_carry(input_shape, rngs)


def test_a_cell_of_nnx_draws_from_the_key_that_is_bound():
    module = Noisy(nnx.Rngs(0))
    noisy = jaxrnn.nnx.as_cell(module, np.int64(DEPTH))
    run = jax.jit(lambda cell: dynamic_rnn(cell, X, dtype=X.dtype)[0])
    with pytest.raises(ValueError, match="`key` must be bound if the module draws"):
        run(noisy)
    outputs = run(noisy.cell.bind(noisy.params, jax.random.key(1)))
    masks = np.asarray(outputs == 0)
    assert 0.2 < masks.mean() < 0.8
    assert (masks[:, 1:] != masks[:, :-1]).any()
    module.eval()
    quiet = jaxrnn.nnx.as_cell(module, DEPTH)
    same(outputs, jnp.where(masks, 0, 2 * run(quiet)))


class Summing(nn.RNNCellBase):
    """A cell of linen without parameters that draws from a stream of its own name."""

    @nn.compact
    def __call__(self, carry, inputs):
        noise = jax.random.normal(self.make_rng("lstm"), inputs.shape, inputs.dtype)
        return carry + noise, noise

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(input_shape, jnp.float32)


class SummingNnx(nnx.Module):
    """The same as a module of nnx that is not derived from its class of cells."""

    def __init__(self):
        self.lstm = nnx.Rngs(lstm=0).lstm

    def __call__(self, carry, inputs):
        noise = jax.random.normal(self.lstm(), inputs.shape, inputs.dtype)
        return carry + noise, noise

    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(input_shape, jnp.float32)


@pytest.mark.fast("nnx-broadcast2")
@pytest.mark.parametrize("broadcast", [(), "lstm", ["lstm", "dropout"]])
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_streams_of_any_name_and_those_that_all_steps_share(library, broadcast):
    cell, params = jaxrnn.linen.as_cell(Summing(), DEPTH, broadcast), {}
    if library == "nnx":
        bound = jaxrnn.nnx.as_cell(SummingNnx(), DEPTH, broadcast)
        cell, params = bound.cell, bound.params

    @jax.jit
    def run(key):
        bound = MultiRNNCell([cell]).bind({"cell_0": params}, key)
        return dynamic_rnn(bound, X, dtype=X.dtype)[0]

    outputs, other = (np.asarray(run(jax.random.key(seed))) for seed in (0, 1))
    assert (other != outputs).all()
    assert (outputs[1:] != outputs[:-1]).all()
    assert (outputs[:, 1:] == outputs[:, :-1]).all() == bool(broadcast)


def test_a_stream_of_linen_of_another_name():
    cell = jaxrnn.linen.as_cell(Summing(), DEPTH)
    rnn = jaxrnn.linen.RNN(cell, rng_collection="lstm")
    variables = rnn.init(jax.random.key(0), X)
    run = lambda seed: rnn.apply(variables, X, rngs={"lstm": jax.random.key(seed)})
    assert (run(0) != run(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "features", "batch"),
    [
        *[(nn.OptimizedLSTMCell(UNITS), (DEPTH,), batch) for batch in ((2, ROWS), ())],
        (nn.ConvLSTMCell(2, (3, 3)), (4, 5, 1), (ROWS,)),
    ],
)
def test_any_axes_of_rows_and_features(module, features, batch):
    x = draw(*batch, TIME, *features)
    cell = jaxrnn.linen.as_cell(module, features)
    rnn = jaxrnn.linen.RNN(cell, return_carry=True)
    got, variables = rnn.init_with_output(jax.random.key(0), x)
    (params,) = variables["params"].values()
    theirs = nn.RNN(module, return_carry=True)
    same(got, theirs.apply({"params": {"cell": params}}, x))


@pytest.mark.parametrize("rngs", [nnx.Rngs(0), nnx.Rngs(0).carry, jax.random.key(0)])
def test_another_first_state(rngs):
    cell = jaxrnn.nnx.Cell(LSTMCell(UNITS), DEPTH, rngs=nnx.Rngs(0))
    draw_it = nn.initializers.normal()
    state = cell.initialize_carry((5, 2, DEPTH), rngs, carry_init=draw_it)
    assert state.c.shape == state.h.shape == (5, 2, UNITS)
    assert (state.c != state.h).all()
    assert not jnp.any(cell.initialize_carry((2, DEPTH)).c)


def in_rnn_of_flax(library, cell, x, **options):
    """Flax's RNN around a cell of jaxrnn, and the parameters of the cell."""
    if library == "linen":
        module = nn.RNN(jaxrnn.linen.Cell(cell, **options), return_carry=True)
        variables = module.init(jax.random.key(0), x)
        run, params = functools.partial(module.apply, variables), variables["params"]
        return run, params["cell"]
    module = jaxrnn.nnx.Cell(cell, DEPTH, rngs=nnx.Rngs(0), **options)
    params = nnx.to_pure_dict(nnx.state(module))["params"]
    return nnx.RNN(module, return_carry=True), params


@pytest.mark.fast("nnx")
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_integers_are_cast_to_the_dtype_of_a_cell(library):
    ids = jnp.ones((ROWS, TIME, DEPTH), jnp.int32)
    rnn, _ = in_rnn_of_flax(library, GRUCell(UNITS), ids, dtype=X.dtype)
    same(rnn(ids), rnn(ids.astype(X.dtype)))


STACK = MultiRNNCell([GRUCell(3), LSTMCell(UNITS)])
PROJECTED = LSTMCell(UNITS, num_proj=3)


@pytest.mark.fast("nnx-*")
@pytest.mark.parametrize(("library", "cell"), [("linen", STACK), ("nnx", PROJECTED)])
def test_a_cell_of_jaxrnn_in_the_rnn_of_flax(library, cell):
    rnn, params = in_rnn_of_flax(library, cell, X)
    state, outputs = rnn(X, seq_lengths=LENGTHS)
    bound = cell.bind(*params.values())
    want = dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    same((alive(outputs), state), want)
    _, outputs = rnn(X[None])
    same(outputs[0], dynamic_rnn(bound, X, dtype=X.dtype)[0])


# The cell of a module in `raw_rnn`: a decoder that is fed its own output.

STATE = draw(ROWS, UNITS)


def decoded(cell, feed):
    """Outputs and final state of a cell whose inputs are `feed` of its output."""

    def loop_fn(time, output, cell_state, loop_state):
        cell_state = STATE if output is None else cell_state
        return time >= LENGTHS, feed(cell_state), cell_state, output, None

    emit_ta, state, _ = jaxrnn.raw_rnn(cell, loop_fn, max_time=TIME)
    return emit_ta.stack(), state


class LinenDecoder(nn.Module):
    cell: jaxrnn.RNNCell

    @nn.compact
    def __call__(self):
        feed = nn.Dense(DEPTH, name="feed")
        rnn = jaxrnn.linen.RNN(self.cell, name="rnn")
        if self.is_initializing():
            rnn(feed(STATE)[:, None])
        return decoded(rnn.cells_of(rnn.variables), feed)


class NnxDecoder(nnx.Module):
    def __init__(self, cell, rngs):
        self.feed = nnx.Linear(UNITS, DEPTH, rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(cell, DEPTH, rngs=rngs)

    def __call__(self):
        return decoded(self.rnn.get_cells(), self.feed)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_decoder_with_modules(library):
    cell = GRUCell(UNITS)
    if library == "linen":
        decoder = LinenDecoder(cell)
        params = decoder.init(jax.random.key(0))["params"]
        run = lambda params: decoder.apply({"params": params})
    else:
        decoder = NnxDecoder(cell, nnx.Rngs(0))
        params = nnx.to_pure_dict(nnx.state(decoder, nnx.Param))
        run = lambda params: with_params(decoder, params)()

    def plain(params):
        feed, rnn = params["feed"], params["rnn"]
        bound = cell.bind(rnn.get("params", rnn)["gru_cell"])
        return decoded(bound, lambda h: h @ feed["kernel"] + feed["bias"])

    same(differentiated(run, params), differentiated(plain, params))


# Complex inputs, states and parameters, in modules and in cells of other libraries.

SOME_STEPS = np.array([4, 0, 3], np.int32)
F32, C64 = jnp.float32, jnp.complex64
RESETS = np.arange(TIME) == np.arange(ROWS)[:, None] + 1
ARRAYS = ("u", "inputs", "initial_state", "reset_state")


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
    return {"u": arrays("u")[0]}


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
    return [u / abs(u), *others]


def in_numpy(u, inputs, state, reset_state):
    """The outputs and the final state of `REAL`."""
    outputs = np.zeros((ROWS, TIME, UNITS), np.float32)
    state = np.array(state)
    for row, t in np.argwhere(np.arange(TIME) < SOME_STEPS[:, None]):
        old = reset_state[row] if RESETS[row, t] else state[row]
        new = rotate(np.asarray(u), inputs[row, t], np.asarray(old))
        outputs[row, t] = new.real + 2 * new.imag
        state[row] = new if np.iscomplexobj(state) else new.real
    return outputs, state


def of_driver(cell, dtype):
    def run(u, inputs, state, reset_state):
        options = {"resets": RESETS, "reset_state": reset_state, "dtype": dtype}
        return dynamic_rnn(cell.bind({"u": u}), inputs, SOME_STEPS, state, **options)

    return run


def of_stack(cell, dtype):
    """Two layers of two directions; these read the given states, and reset to zeros."""

    def run(u, inputs, state, reset_state):
        cells, states = [cell.bind({"u": u})] * 2, [[state] * 2, [reset_state] * 2]
        outputs, *states = jaxrnn.stack_bidirectional_dynamic_rnn(
            cells, cells, inputs, *states, dtype, SOME_STEPS
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
    options = {"dtype": dtype, "return_carry": True, "rngs": nnx.Rngs(0)}
    module = getattr(jaxrnn.nnx, kind)(*cells, UNITS, **options)

    def run(params, *args, **kwargs):
        return with_params(module, {"params": params})(*args, **kwargs)[::-1]

    return run


def of_modules(make, cell, dtype):
    """Runs of two modules, each with the same run of a driver."""
    one = make("RNN", cell, dtype=dtype)
    stack = make("StackBidirectional", [cell] * 2, [cell] * 2, dtype=dtype)

    of_cell = lambda u: {"function_cell": {"u": u}}
    of_pair = lambda u: {"fw": of_cell(u), "bw": of_cell(u)}

    def run_one(u, inputs, state, reset_state):
        options = {"resets": RESETS, "reset_state": reset_state}
        return one(of_cell(u), inputs, SOME_STEPS, initial_state=state, **options)

    def run_stack(u, inputs, *states):
        params = {"cell_0": of_pair(u), "cell_1": of_pair(u)}
        states = tuple((state,) * 2 for state in states)
        return stack(params, inputs, SOME_STEPS, initial_state=states)

    yield run_one, of_driver(cell, dtype)
    yield run_stack, of_stack(cell, dtype)


def compare(run, want, given):
    got, want = (jax.tree.leaves(differentiated(f, *given)) for f in (run, want))
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)


ONE_OR_ALL = [*((name,) for name in ARRAYS), ARRAYS]


@pytest.mark.parametrize("names", ONE_OR_ALL, ids="-".join)
def test_dynamic_rnn_keeps_complex_arrays(names):
    if names[0] in ARRAYS[2:]:
        names = ARRAYS[2:]  # They share a dtype.
    given = arrays(*names)
    got = of_driver(REAL, F32)(*given)
    want = in_numpy(*map(np.asarray, given))
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_close(got, want, rtol=0, atol=1e-5)


SETTINGS = {
    "u": (REAL, F32, ("u",)),
    "inputs": (REAL, F32, ("inputs",)),
    "states": (REAL, F32, ARRAYS[2:]),
    "all": (REAL, F32, ARRAYS),
    "complex_outputs": (COMPLEX, None, ARRAYS),
    "complex_dtype": (COMPLEX, C64, ARRAYS),
}


@pytest.mark.fast("all-*", "complex_outputs-*")
@pytest.mark.parametrize("make", [in_linen, in_nnx])
@pytest.mark.parametrize(("cell", "dtype", "names"), SETTINGS.values(), ids=SETTINGS)
def test_modules_keep_complex_arrays(make, cell, dtype, names):
    given = arrays(*names)
    for run, want in of_modules(make, cell, dtype):
        compare(run, want, given)


def in_raw_rnn(u, inputs, state):
    def loop_fn(time, output, cell_state, loop_state):
        next_input = inputs[:, jnp.minimum(time, TIME - 1)]
        if output is None:
            cell_state, output = state, jax.ShapeDtypeStruct((UNITS,), F32)
        return time >= TIME, next_input, cell_state, output, None

    emit_ta, state, _ = jaxrnn.raw_rnn(REAL.bind({"u": u}), loop_fn, max_time=TIME)
    return jnp.swapaxes(emit_ta.stack(), 0, 1), state


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


def run_bound(cell):
    """Runs a bound cell whose output has the dtype float32."""
    return lambda inputs, state: dynamic_rnn(cell, inputs, None, state, F32)


def from_linen(u, inputs, state):
    cell = jaxrnn.linen.as_cell(OfLinen())
    assert cell.init(jax.random.key(0), inputs[:, 0], F32)["u"].dtype == C64
    module = jaxrnn.linen.RNN(cell, dtype=F32, return_carry=True)
    variables = {"params": {"linen_cell": {"u": u}}}
    return module.apply(variables, inputs, initial_state=state)[::-1]


OTHERS = [in_raw_rnn, in_rnn_of_linen, in_rnn_of_nnx, from_linen]


@pytest.mark.fast("initial_state-*")
@pytest.mark.parametrize("run", OTHERS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("name", ARRAYS[:3])
def test_cells_of_flax_keep_complex_arrays(run, name):
    given = arrays(name)[:3]
    want = lambda u, *arrays: run_bound(REAL.bind({"u": u}))(*arrays)
    compare(run, want, given)


OF_COMPLEX = [(F32, C64), (jnp.bfloat16, C64), (jnp.float64, jnp.complex128)]
OF_COMPLEX += [(C64, C64), (jnp.int32, jnp.complex128)]


@pytest.mark.parametrize(("dtype", "want"), OF_COMPLEX)
def test_dtype_sets_the_precision_of_complex_arrays(dtype, want):
    zeros = lambda params, inputs, state, key=None: (jnp.zeros((ROWS, 1), dtype), state)
    cell = FunctionCell(zeros, UNITS, 1)
    rnn = jaxrnn.linen.RNN(cell, dtype=dtype, return_carry=True)
    _, inputs, state, _ = (x.astype(jnp.complex128) for x in arrays(*ARRAYS))
    variables = {"params": {"function_cell": {"unused": inputs}}}
    state, outputs = rnn.apply(variables, inputs, initial_state=state)
    assert (state.dtype, outputs.dtype) == (want, dtype)


NORMAL = jax.nn.initializers.normal()
STEP = jax.ShapeDtypeStruct((1, UNITS), F32)


def test_complex_parameters_need_a_complex_module():
    cell = GRUCell(UNITS, kernel_initializer=NORMAL)
    bound = GRUCell(UNITS).bind(cell.init(jax.random.key(0), STEP, C64))
    make = lambda cell, dtype: jaxrnn.nnx.RNN(
        cell, UNITS, param_dtype=dtype, rngs=nnx.Rngs(0)
    )
    with pytest.raises(TypeError, match=r"must be real .* `param_dtype=jnp.complex64`"):
        make(GRUCell(UNITS), F32).set_cells(bound)
    with pytest.raises(ValueError, match="float dtype, got complex64"):
        make(GRUCell(UNITS), C64)
    module = make(cell, C64)
    module.set_cells(bound)
    inputs = drawn(1, False, ROWS, TIME, UNITS)
    want, _ = dynamic_rnn(bound, inputs.astype(C64), dtype=C64)
    np.testing.assert_allclose(module(inputs), want, rtol=1e-5)


def test_initializers_of_complex_parameters():
    by_part, chrono = jaxrnn.initializers.by_part, jaxrnn.initializers.chrono
    cell = LSTMCell(UNITS, initializer=by_part(NORMAL, NORMAL, bias=chrono(9)))
    params = cell.init(jax.random.key(0), STEP, C64)
    assert {x.dtype for x in params.values()} == {np.dtype(C64)}
    i, _, f, _ = np.split(np.asarray(params["bias"]), 4)
    assert ((f.imag == 0) & (f.real > 0) & (i == -f)).all()
    spiral = lambda key, shape, dtype: jnp.full(shape, 1j, C64)
    with pytest.raises(TypeError, match=r"a real array .* pass `dtype=jnp.complex64`"):
        LSTMCell(UNITS, initializer=spiral).init(jax.random.key(0), STEP)


def test_a_real_state_with_a_complex_zero_state_resets_without_a_warning():
    count = lambda params, x, state, key=None: (x + 1j, state + 1)
    cell = FunctionCell(count, UNITS, UNITS).bind({})
    zeros = np.zeros((ROWS, UNITS), np.float32)
    _, state = dynamic_rnn(cell, arrays()[1], None, zeros, C64, resets=RESETS)
    want = TIME - RESETS.argmax(1) * RESETS.any(1)
    np.testing.assert_array_equal(state, np.stack([want] * UNITS, -1))
