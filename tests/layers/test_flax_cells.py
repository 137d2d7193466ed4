"""Cells of Flax in the drivers, ours in Flax's, and cells of modules in `raw_rnn`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, differentiated, usual_promotion

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell

ROWS, TIME, DEPTH, UNITS = 3, 5, 2, 4
LENGTHS = jnp.asarray([5, 1, 3], jnp.int32)


@pytest.fixture(autouse=True)
def usual_jax():
    """The promotion that Flax's own modules rely on."""
    with usual_promotion():
        yield


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X = draw(ROWS, TIME, DEPTH)


def same(got, want, rtol=1e-5):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=rtol, atol=1e-6)


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
    graph, _, rest = nnx.split(module, nnx.Param, ...)

    def run(params):
        cell = nnx.merge(graph, nnx.State(params), rest)
        return nnx.RNN(cell, return_carry=True)(X, seq_lengths=LENGTHS)

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
        return jaxrnn.dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)

    got = differentiated(ours, cell.params)
    assert_near(got, differentiated(theirs, cell.params), tolerance=1e-5)


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
    run = jax.jit(lambda cell: jaxrnn.dynamic_rnn(cell, X, dtype=X.dtype)[0])
    with pytest.raises(
        ValueError, match="`key` must be bound if the module draws random"
    ):
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
    if library == "linen":
        cell, params = jaxrnn.linen.as_cell(Summing(), DEPTH, broadcast), {}
    else:
        bound = jaxrnn.nnx.as_cell(SummingNnx(), DEPTH, broadcast)
        cell, params = bound.cell, bound.params

    @jax.jit
    def run(key):
        bound = MultiRNNCell([cell]).bind({"cell_0": params}, key)
        return jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)[0]

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
        (nn.OptimizedLSTMCell(UNITS), (DEPTH,), (2, ROWS)),
        (nn.OptimizedLSTMCell(UNITS), (DEPTH,), ()),
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


@pytest.mark.fast("nnx")
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_integers_are_cast_to_the_dtype_of_a_cell(library):
    ids, cell = jnp.ones((ROWS, TIME, DEPTH), jnp.int32), GRUCell(UNITS)
    if library == "linen":
        module = nn.RNN(jaxrnn.linen.Cell(cell, dtype=X.dtype))
        rnn = functools.partial(module.apply, module.init(jax.random.key(0), ids))
    else:
        rngs = nnx.Rngs(0)
        rnn = nnx.RNN(jaxrnn.nnx.Cell(cell, DEPTH, dtype=X.dtype, rngs=rngs))
    same(rnn(ids), rnn(ids.astype(X.dtype)))


STACK = MultiRNNCell([GRUCell(3), LSTMCell(UNITS)])


@pytest.mark.fast("nnx-*")
@pytest.mark.parametrize(
    ("library", "cell"), [("linen", STACK), ("nnx", LSTMCell(UNITS, num_proj=3))]
)
def test_a_cell_of_jaxrnn_in_the_rnn_of_flax(library, cell):
    if library == "linen":
        module = nn.RNN(jaxrnn.linen.Cell(cell), return_carry=True)
        variables = module.init(jax.random.key(0), X)
        params = variables["params"]["cell"]
        rnn = functools.partial(module.apply, variables)
    else:
        module = jaxrnn.nnx.Cell(cell, DEPTH, rngs=nnx.Rngs(0))
        rnn = nnx.RNN(module, return_carry=True)
        params = nnx.to_pure_dict(nnx.state(module))["params"]
    state, outputs = rnn(X, seq_lengths=LENGTHS)
    bound = cell.bind(*params.values())
    want = jaxrnn.dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    same((alive(outputs), state), want)
    _, outputs = rnn(X[None])
    same(outputs[0], jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)[0])


# The cell of a module in `raw_rnn`: a decoder that is fed its own output.

STATE = draw(ROWS, UNITS)


def feeding(feed):
    """A loop function whose inputs are `feed` of the output."""

    def loop_fn(time, output, cell_state, loop_state):
        cell_state = STATE if output is None else cell_state
        return time >= LENGTHS, feed(cell_state), cell_state, output, None

    return loop_fn


class LinenDecoder(nn.Module):
    cell: jaxrnn.RNNCell

    @nn.compact
    def __call__(self):
        feed = nn.Dense(DEPTH, name="feed")
        rnn = jaxrnn.linen.RNN(self.cell, name="rnn")
        if self.is_initializing():
            rnn(feed(STATE)[:, None])
        cell = rnn.cells_of(rnn.variables)
        emit_ta, state, _ = jaxrnn.raw_rnn(cell, feeding(feed), max_time=TIME)
        return emit_ta.stack(), state


class NnxDecoder(nnx.Module):
    def __init__(self, cell, rngs):
        self.feed = nnx.Linear(UNITS, DEPTH, rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(cell, DEPTH, rngs=rngs)

    def __call__(self):
        cell = self.rnn.get_cells()
        emit_ta, state, _ = jaxrnn.raw_rnn(cell, feeding(self.feed), max_time=TIME)
        return emit_ta.stack(), state


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_decoder_with_modules(library):
    cell = GRUCell(UNITS)
    if library == "linen":
        decoder = LinenDecoder(cell)
        params = decoder.init(jax.random.key(0))["params"]
        run = lambda params: decoder.apply({"params": params})
    else:
        graph, params, rest = nnx.split(NnxDecoder(cell, nnx.Rngs(0)), nnx.Param, ...)
        params = nnx.to_pure_dict(params)
        run = lambda params: nnx.merge(graph, nnx.State(params), rest)()

    def plain(params):
        feed, rnn = params["feed"], params["rnn"]
        loop_fn = feeding(lambda h: h @ feed["kernel"] + feed["bias"])
        bound = cell.bind(rnn.get("params", rnn)["gru_cell"])
        emit_ta, state, _ = jaxrnn.raw_rnn(bound, loop_fn, max_time=TIME)
        return emit_ta.stack(), state

    want = differentiated(plain, params)
    assert_near(differentiated(run, params), want, tolerance=1e-5)
