"""Cells of Flax in the drivers, ours in Flax's, and `raw_rnn` as a module."""

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
from jaxrnn import DropoutWrapper, GRUCell, LSTMCell, MultiRNNCell

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


@pytest.mark.slow
def test_a_convolutional_cell_of_linen():
    module, x = nn.ConvLSTMCell(2, (3, 3)), draw(ROWS, TIME, 4, 5, 1)
    cell = jaxrnn.linen.as_cell(module, (4, 5, 1))
    params = cell.init(jax.random.key(0), x[:, 0])
    outputs, state = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
    rnn = nn.RNN(module, return_carry=True)
    same((state, outputs), rnn.apply({"params": {"cell": params}}, x))


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
    with pytest.raises(ValueError, match="the module draws random numbers, but no key"):
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
@pytest.mark.parametrize("shape", [(2, ROWS, TIME, DEPTH), (TIME, DEPTH)])
def test_any_number_of_batch_axes_of_a_cell_of_linen(shape):
    x, module = draw(*shape), nn.OptimizedLSTMCell(UNITS)
    rnn = jaxrnn.linen.RNN(jaxrnn.linen.as_cell(module), return_carry=True)
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


# `raw_rnn` as a module: a decoder that is fed its own choice.

VOCABULARY, STEPS = 7, 6


def choose(embed, logits, state):
    def loop_fn(time, output, cell_state, loop_state):
        if output is None:
            ids, cell_state = jnp.zeros(ROWS, jnp.int32), state
            emit, finished = jnp.zeros(VOCABULARY, state.dtype), jnp.zeros(ROWS, bool)
        else:
            emit = logits(output)
            ids = jnp.argmax(emit, -1).astype(jnp.int32)
            finished = ids == 1
        return finished | (time >= STEPS), embed(ids), cell_state, emit, None

    return loop_fn


class LinenDecoder(nn.Module):
    cell: jaxrnn.RNNCell

    @nn.compact
    def __call__(self, state):
        embed = nn.Embed(VOCABULARY, DEPTH, name="embed")
        logits = nn.Dense(VOCABULARY, name="logits")
        rnn = jaxrnn.linen.RawRNN(self.cell, max_time=STEPS, name="rnn")
        emit_ta, state, _ = rnn(choose(embed, logits, state))
        return emit_ta.stack(), state


class NnxDecoder(nnx.Module):
    def __init__(self, cell, rngs):
        self.embed = nnx.Embed(VOCABULARY, DEPTH, rngs=rngs)
        self.logits = nnx.Linear(UNITS, VOCABULARY, rngs=rngs)
        self.rnn = jaxrnn.nnx.RawRNN(cell, DEPTH, max_time=STEPS, rngs=rngs)

    def __call__(self, state):
        emit_ta, state, _ = self.rnn(choose(self.embed, self.logits, state))
        return emit_ta.stack(), state


def plain(cell, params, state):
    """The decoder without modules."""
    embed, logits, rnn = (params[name] for name in ("embed", "logits", "rnn"))
    loop_fn = choose(
        lambda ids: embed["embedding"][ids],
        lambda x: x @ logits["kernel"] + logits["bias"],
        state,
    )
    bound = cell.bind(rnn.get("params", rnn)["gru_cell"])
    emit_ta, state, _ = jaxrnn.raw_rnn(bound, loop_fn, max_time=STEPS)
    return emit_ta.stack(), state


@pytest.mark.slow
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_decoder_with_modules(library):
    cell, state = GRUCell(UNITS), draw(ROWS, UNITS)
    if library == "linen":
        decoder = LinenDecoder(cell)
        out, variables = decoder.init_with_output(jax.random.key(0), state)
        params = variables["params"]
        same(out, plain(cell, params, state))
        run = lambda params: decoder.apply({"params": params}, state)
    else:
        graph, params, rest = nnx.split(NnxDecoder(cell, nnx.Rngs(0)), nnx.Param, ...)
        params = nnx.to_pure_dict(params)
        run = lambda params: nnx.merge(graph, nnx.State(params), rest)(state)
    want = differentiated(lambda params: plain(cell, params, state), params)
    assert_near(differentiated(run, params), want, tolerance=1e-5)


def test_noise_in_a_decoder_of_nnx():
    decoder = NnxDecoder(DropoutWrapper(GRUCell(UNITS), 0.5), nnx.Rngs(0))
    state = draw(ROWS, UNITS)
    assert not jnp.allclose(decoder(state)[0], decoder(state)[0])
    decoder.eval()
    same(decoder(state), decoder(state))


@pytest.mark.slow
def test_noise_in_a_decoder_of_linen():
    decoder = LinenDecoder(DropoutWrapper(GRUCell(UNITS), 0.5))
    state, keys = draw(ROWS, UNITS), jax.random.split(jax.random.key(1))
    variables = decoder.init({"params": keys[0], "dropout": keys[1]}, state)
    one, other = (decoder.apply(variables, state, rngs={"dropout": k}) for k in keys)
    assert not jnp.allclose(one[0], other[0])


def test_a_cell_of_linen_draws_while_a_loop_is_initialized():
    rnn = jaxrnn.linen.RawRNN(jaxrnn.linen.as_cell(Summing(), DEPTH), max_time=2)
    start = jnp.zeros((ROWS, DEPTH))

    def loop_fn(time, output, state, loop_state):
        finished = jnp.broadcast_to(time >= 2, ROWS)
        if output is None:
            return finished, start, start, start[0], None
        return finished, start, state, output, None

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    (_, state, _), _ = rnn.init_with_output(keys, loop_fn)
    assert state.all()


class MakesItsOwn(nn.Module):
    @nn.compact
    def __call__(self, state):
        def loop_fn(time, output, cell_state, loop_state):
            cell_state = state if output is None else cell_state
            emit = nn.Dense(2)(cell_state)
            emit = emit[0] if output is None else emit
            return time >= jnp.full(ROWS, 2), X[:, 0], cell_state, emit, None

        return jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=2)(loop_fn)[1]


class Draws(nn.Module):
    """A decoder that draws random numbers at each step, in one of several ways."""

    how: str

    @nn.compact
    def __call__(self, state):
        dropout = nn.Dropout(0.5, deterministic=False)
        ones = jnp.ones_like(state)

        def loop_fn(time, output, cell_state, key):
            finished = time >= jnp.full(ROWS, 3)
            if output is None:
                key = self.make_rng("dropout") if self.how == "key" else None
                return finished, X[:, 0], state, state[0], key
            if self.how == "key":
                key, part = jax.random.split(key)
                emit = dropout(ones, rng=part)
            elif self.how == "module":
                emit = dropout(ones)
            else:
                emit = jax.random.normal(self.make_rng("dropout"), ones.shape, X.dtype)
            return finished, X[:, 0], cell_state, emit, key

        return jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=3)(loop_fn)[0].stack()


def drawn_by(how, wrap=jax.jit):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    state = draw(ROWS, UNITS)
    variables = Draws(how).init(keys, state)
    return wrap(Draws(how).apply)(variables, state, rngs=keys)


def test_noise_from_streams_would_be_the_same_at_all_steps():
    masks = drawn_by("key")
    assert jnp.any(masks[1:] != masks[:-1])
    refused = "RawRNN: `loop_fn` must not draw random numbers from streams, but "
    for how, name in (("module", "Dropout d"), ("itself", "Draws d")):
        for wrap in (jax.jit, lambda run: run):
            with pytest.raises(ValueError, match=refused + name):
                drawn_by(how, wrap)


def test_modules_made_in_a_loop():
    message = "RawRNN: `loop_fn` must not construct modules, but it constructed Dense_0"
    with pytest.raises(ValueError, match=message):
        MakesItsOwn().init(jax.random.key(0), draw(ROWS, UNITS))
