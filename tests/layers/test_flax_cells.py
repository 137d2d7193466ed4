"""Cells of Flax in the drivers, ours in Flax's, and `raw_rnn` as a module."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import usual_promotion

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
    variables = {"params": {"cell": params}}
    return cell.bind(params), rnn.apply(variables, X, seq_lengths=LENGTHS)


def of_nnx():
    module = nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0))
    rnn = nnx.RNN(module, return_carry=True)
    cell = jaxrnn.nnx.as_cell(module, DEPTH)
    return cell, rnn(X, seq_lengths=LENGTHS)


@pytest.mark.fast("of_nnx")
@pytest.mark.parametrize("make", [of_linen, of_nnx])
def test_a_cell_of_flax_in_the_drivers(make):
    cell, (state, outputs) = make()
    want = alive(outputs), state
    steps = [X[:, t] for t in range(TIME)]
    row = X[:1, :3]  # Backwards over three steps, as row 2 of length 3 has.

    def loop_fn(time, output, cell_state, loop_state):
        first = cell.zero_state(ROWS, X.dtype)
        at = X[:, jnp.minimum(time, TIME - 1)]
        return (
            time >= LENGTHS,
            at,
            first if output is None else cell_state,
            output,
            None,
        )

    def loss(params):
        bound = cell.cell.bind(params)
        results = jaxrnn.dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
        return jnp.sum(results[0]), results

    @jax.jit
    def by_drivers():
        gradient, dynamic = jax.grad(loss, has_aux=True)(cell.params)
        listed, last = jaxrnn.static_rnn(
            cell, steps, dtype=X.dtype, sequence_length=LENGTHS
        )
        emit_ta, end, _ = jaxrnn.raw_rnn(cell, loop_fn, max_time=TIME)
        both = functools.partial(jaxrnn.bidirectional_dynamic_rnn, cell, cell)
        return {
            "gradient": gradient,
            "dynamic": dynamic,
            "static": (jnp.stack(listed, 1), last),
            "raw": (jnp.moveaxis(emit_ta.stack(), 0, 1), end),
            "forwards": both(X, LENGTHS, dtype=X.dtype)[0][0],
            "backwards": both(row, dtype=X.dtype)[0][1][:, ::-1],
            "reversed": jaxrnn.dynamic_rnn(cell, row[:, ::-1], dtype=X.dtype)[0],
        }

    got = by_drivers()
    for driver in ("dynamic", "static", "raw"):
        same(got[driver], want)
    same(got["forwards"], want[0])
    same(got["backwards"], got["reversed"])
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(got["gradient"]))


@pytest.mark.slow
def test_a_cell_of_flax_within_wrappers():
    cells = [jaxrnn.linen.as_cell(nn.GRUCell(UNITS)), LSTMCell(3)]
    stack = MultiRNNCell([DropoutWrapper(cells[0], 0.5), cells[1]])
    params = stack.init(jax.random.key(0), X[:, 0])
    bound = stack.bind(params, jax.random.key(1))
    outputs, _ = jax.jit(lambda: jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype))()
    assert outputs.shape == (ROWS, TIME, 3)


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
    same_step = jnp.broadcast_to(X[:, :1], X.shape)
    run = jax.jit(lambda cell: jaxrnn.dynamic_rnn(cell, same_step, dtype=X.dtype)[0])
    with pytest.raises(ValueError, match="the module draws random numbers, but no key"):
        run(noisy)
    keyed = lambda seed: noisy.cell.bind(noisy.params, jax.random.key(seed))
    once, again, other = run(keyed(1)), run(keyed(1)), run(keyed(2))
    same(once, again, rtol=0)
    masks = np.asarray(once == 0)
    assert 0.2 < masks.mean() < 0.8
    assert (masks != np.asarray(other == 0)).any()
    assert (masks[:, 1:] != masks[:, :-1]).any()
    module.eval()
    quiet = jaxrnn.nnx.as_cell(module, DEPTH)
    plain = jaxrnn.nnx.as_cell(module.gru, DEPTH)
    same(run(quiet), run(plain))
    same(once, jnp.where(masks, 0, 2 * run(quiet)))


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
    run = lambda seed: jaxrnn.dynamic_rnn(
        MultiRNNCell([cell]).bind({"cell_0": params}, jax.random.key(seed)),
        X,
        dtype=X.dtype,
    )[0]
    outputs = np.asarray(run(0))
    same(run(0), outputs, rtol=0)
    assert (run(1) != outputs).all()
    assert (outputs[1:] != outputs[:-1]).all()
    assert (outputs[:, 1:] == outputs[:, :-1]).all() == bool(broadcast)


def test_a_stream_of_linen_of_another_name():
    rnn = jaxrnn.linen.RNN(
        jaxrnn.linen.as_cell(Summing(), DEPTH), rng_collection="lstm"
    )
    variables = rnn.init(jax.random.key(0), X)
    run = lambda seed: rnn.apply(variables, X, rngs={"lstm": jax.random.key(seed)})
    assert (run(0) != run(1)).all()


@pytest.mark.fast("shape1")
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


def test_integers_are_cast_to_the_dtype_of_a_cell():
    ids = jnp.ones((ROWS, TIME, DEPTH), jnp.int32)
    rnn = nn.RNN(jaxrnn.linen.Cell(GRUCell(UNITS), dtype=X.dtype))
    outputs, variables = rnn.init_with_output(jax.random.key(0), ids)
    same(outputs, rnn.apply(variables, ids.astype(X.dtype)))
    cell = jaxrnn.nnx.Cell(GRUCell(UNITS), DEPTH, dtype=X.dtype, rngs=nnx.Rngs(0))
    same(nnx.RNN(cell)(ids), nnx.RNN(cell)(ids.astype(X.dtype)))


class NoCarry(nn.RNNCellBase):
    def __call__(self, carry, inputs):
        return carry, inputs


class NoCarryNnx(nnx.Module):
    def __call__(self, carry, inputs):
        return carry, inputs


class NoModule:
    initialize_carry = __call__ = None


def test_trained_parameters_go_back_to_nnx():
    module = nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0))
    cell = jaxrnn.nnx.as_cell(module, DEPTH)
    nnx.update(module, jax.tree.map(lambda leaf: 2 * leaf, cell.params))
    carry = jnp.zeros((ROWS, UNITS))
    twice = jax.tree.map(lambda leaf: 2 * leaf, cell.params)
    same(module(carry, X[:, 0])[1], cell.cell.bind(twice)(X[:, 0], carry)[0])


STACK = MultiRNNCell([GRUCell(3), LSTMCell(UNITS)])


@pytest.mark.fast("nnx-*")
@pytest.mark.parametrize(
    ("library", "cell"), [("linen", STACK), ("nnx", LSTMCell(UNITS, num_proj=3))]
)
def test_a_cell_of_jaxrnn_in_the_rnn_of_flax(library, cell):
    if library == "linen":
        rnn = nn.RNN(jaxrnn.linen.Cell(cell), return_carry=True)
        variables = rnn.init(jax.random.key(0), X)
        params = variables["params"]["cell"]
        got = rnn.apply(variables, X, seq_lengths=LENGTHS)
        stack = rnn.apply(variables, X[None])[1]
    else:
        module = jaxrnn.nnx.Cell(cell, DEPTH, rngs=nnx.Rngs(0))
        rnn = nnx.RNN(module, return_carry=True)
        params = nnx.to_pure_dict(nnx.state(module))["params"]
        got = rnn(X, seq_lengths=LENGTHS)
        stack = rnn(X[None])[1]
    bound = cell.bind(*params.values())
    outputs, state = jaxrnn.dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    same((got[0], alive(got[1])), (state, outputs))
    same(stack[0], jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)[0])


@pytest.mark.slow
def test_both_ways_in_linen():
    cells = nn.RNN(jaxrnn.linen.Cell(GRUCell(3))), nn.RNN(jaxrnn.linen.Cell(GRUCell(4)))
    rnn = nn.Bidirectional(*cells)
    assert rnn.init_with_output(jax.random.key(0), X)[0].shape == (ROWS, TIME, 7)


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


def plain(cell, embed, logits, params, state):
    """The decoder without modules."""
    loop_fn = choose(
        lambda ids: embed[ids], lambda x: x @ logits["kernel"] + logits["bias"], state
    )
    emit_ta, state, _ = jaxrnn.raw_rnn(cell.bind(params), loop_fn, max_time=STEPS)
    return emit_ta.stack(), state


def weigh(outs):
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(outs)]
    return sum(
        jnp.sum(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in leaves
    )


@pytest.mark.slow
def test_a_decoder_of_linen():
    cell, state = GRUCell(UNITS), draw(ROWS, UNITS)
    decoder = LinenDecoder(cell)
    variables = decoder.init(jax.random.key(0), state)
    assert sorted(variables["params"]) == ["embed", "logits", "rnn"]

    def by_hand(variables, state):
        params = variables["params"]
        embed = params["embed"]["embedding"]
        rnn = params["rnn"]["gru_cell"]
        return plain(cell, embed, params["logits"], rnn, state)

    gradient = lambda f: jax.jit(jax.value_and_grad(lambda v: weigh(f(v, state))))
    same(gradient(decoder.apply)(variables), gradient(by_hand)(variables))
    same(decoder.apply(variables, state), by_hand(variables, state))
    out, again = decoder.init_with_output(jax.random.key(0), state)
    same(out, by_hand(again, state))


@pytest.mark.slow
def test_a_decoder_of_nnx():
    cell, state = GRUCell(UNITS), draw(ROWS, UNITS)
    decoder = NnxDecoder(cell, nnx.Rngs(0))

    def by_hand(decoder, state):
        logits = {
            "kernel": decoder.logits.kernel.get_value(),
            "bias": decoder.logits.bias.get_value(),
        }
        embed = decoder.embed.embedding.get_value()
        rnn = nnx.to_pure_dict(nnx.state(decoder.rnn))["params"]["gru_cell"]
        return plain(cell, embed, logits, rnn, state)

    gradient = lambda f: nnx.jit(nnx.value_and_grad(lambda d: weigh(f(d, state))))
    value, gradients = gradient(lambda d, state: d(state))(decoder)
    want, want_gradients = gradient(by_hand)(decoder)
    same(value, want)
    same(nnx.to_pure_dict(gradients), nnx.to_pure_dict(want_gradients))


def test_noise_in_a_decoder():
    cell, state = DropoutWrapper(GRUCell(UNITS), 0.5), draw(ROWS, UNITS)
    decoder = NnxDecoder(cell, nnx.Rngs(0))
    assert not jnp.allclose(decoder(state)[0], decoder(state)[0])
    decoder.eval()
    same(decoder(state), decoder(state))
    of_linen = LinenDecoder(cell)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = of_linen.init(keys, state)
    run = lambda k: of_linen.apply(variables, state, rngs={"dropout": k})[0]
    assert not jnp.allclose(run(jax.random.key(0)), run(jax.random.key(1)))


class MakesItsOwn(nn.Module):
    @nn.compact
    def __call__(self, state):
        def loop_fn(time, output, cell_state, loop_state):
            cell_state = state if output is None else cell_state
            emit = nn.Dense(2)(cell_state)
            emit = emit[0] if output is None else emit
            return time >= jnp.full(ROWS, 2), X[:, 0], cell_state, emit, None

        return jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=2)(loop_fn)[1]


class DropsOut(nn.Module):
    """A decoder whose last layer is random, with a key in the loop state or not."""

    has_key: bool

    @nn.compact
    def __call__(self, state):
        dropout = nn.Dropout(0.5, deterministic=False)

        def loop_fn(time, output, cell_state, key):
            if output is None:
                first = self.make_rng("dropout") if self.has_key else None
                return time >= jnp.full(ROWS, 3), X[:, 0], state, state[0], first
            if self.has_key:
                key, part = jax.random.split(key)
                emit = dropout(jnp.ones_like(state), rng=part)
            else:
                emit = dropout(jnp.ones_like(state))
            return time >= jnp.full(ROWS, 3), X[:, 0], cell_state, emit, key

        return jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=3)(loop_fn)[0].stack()


class DrawsItself(nn.Module):
    """A decoder that draws in its loop by its own `make_rng`."""

    @nn.compact
    def __call__(self, state):
        def loop_fn(time, output, cell_state, loop_state):
            if output is None:
                return time >= jnp.full(ROWS, 3), X[:, 0], state, state[0], None
            noise = jax.random.normal(self.make_rng("dropout"), state.shape, X.dtype)
            return time >= jnp.full(ROWS, 3), X[:, 0], cell_state, noise, None

        return jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=3)(loop_fn)[0].stack()


def drop_out(has_key, wrap=jax.jit):
    module = DropsOut(has_key)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, draw(ROWS, UNITS))
    return wrap(module.apply)(variables, draw(ROWS, UNITS), rngs=keys)


def test_noise_from_a_key_in_the_loop_state():
    masks = drop_out(True)
    assert jnp.any(masks[1:] != masks[:-1])


REFUSED = {
    "noise_in_a_compiled_loop": (
        ValueError,
        r"RawRNN: `loop_fn` must not draw random numbers from streams, but Dropout d",
        lambda: drop_out(False),
    ),
    "noise_in_a_loop": (
        ValueError,
        r"RawRNN: `loop_fn` must not draw random numbers from streams, but Dropout d",
        lambda: drop_out(False, wrap=lambda f: f),
    ),
    "noise_of_the_module_around": (
        ValueError,
        r"RawRNN: `loop_fn` must not draw random numbers from streams, but DrawsIt",
        lambda: jax.jit(DrawsItself().apply)(
            DrawsItself().init(jax.random.key(0), draw(ROWS, UNITS)),
            draw(ROWS, UNITS),
            rngs={"dropout": jax.random.key(1)},
        ),
    ),
    "modules_made_in_a_loop": (
        ValueError,
        "RawRNN: `loop_fn` must not construct modules, but it constructed Dense_0, D",
        lambda: jax.jit(MakesItsOwn().init)(jax.random.key(0), draw(ROWS, UNITS)),
    ),
    "no_loop_fn": (
        TypeError,
        "RawRNN: `loop_fn` must be a function, got",
        lambda: jaxrnn.linen.RawRNN(GRUCell(3)).init(jax.random.key(0), None),
    ),
    "a_class_for_a_cell": (
        TypeError,
        r"`cell` must be an RNNCell, such as .*, got the",
        lambda: nn.RNN(jaxrnn.linen.Cell(GRUCell)).init(jax.random.key(0), X),
    ),
    "noise_in_the_rnn_of_linen": (
        ValueError,
        "Cell: `cell` must not draw random numbers, because Flax's RNN gives it no "
        "keys, got DropoutWrapper.*. Use the RNN of jaxrnn",
        lambda: nn.RNN(jaxrnn.linen.Cell(DropoutWrapper(GRUCell(3), 0.5))).init(
            jax.random.key(0), X
        ),
    ),
    "noise_in_the_rnn_of_nnx": (
        ValueError,
        "`cell` must not draw random numbers, because Flax's RNN gives",
        lambda: jaxrnn.nnx.Cell(
            DropoutWrapper(GRUCell(3), 0.5), DEPTH, rngs=nnx.Rngs(0)
        ),
    ),
    "no_dtype_in_linen": (
        TypeError,
        "Cell: `dtype` must name a dtype, got 'zz'",
        lambda: nn.RNN(jaxrnn.linen.Cell(GRUCell(3), dtype="zz")).init(
            jax.random.key(0), X
        ),
    ),
    "no_dtype_in_nnx": (
        TypeError,
        "Cell: `dtype` must name a dtype, got 'zz'",
        lambda: nnx.RNN(jaxrnn.nnx.Cell(GRUCell(3), 2, dtype="zz", rngs=nnx.Rngs(0)))(
            X
        ),
    ),
    "no_cell_of_linen": (
        TypeError,
        "as_cell: `module` must be a cell of linen, such as nn.LSTMCell",
        lambda: jaxrnn.linen.as_cell(nn.Dense(3)),
    ),
    "no_features": (
        TypeError,
        "as_cell: `in_features` must be an integer, got 2.0. It is the size of the in",
        lambda: jaxrnn.linen.as_cell(nn.GRUCell(3), 2.0),
    ),
    "a_truth_value_for_features": (
        TypeError,
        "as_cell: `in_features` must be an integer, got True",
        lambda: jaxrnn.nnx.as_cell(nnx.GRUCell(1, 3, rngs=nnx.Rngs(0)), (True,)),
    ),
    "no_cell_of_nnx": (
        TypeError,
        "as_cell: `module` must be a cell of nnx, such as nnx.LSTMCell",
        lambda: jaxrnn.nnx.as_cell(nn.GRUCell(3), 2),
    ),
    "no_streams_to_broadcast": (
        TypeError,
        "as_cell: `broadcast_rngs` must be the name of a stream, or a list of names, "
        "got 3",
        lambda: jaxrnn.linen.as_cell(nn.GRUCell(3), 1, 3),
    ),
    "no_first_state_in_linen": (
        TypeError,
        r"`module` must be a cell of linen, such as nn.LSTMCell\(8\),",
        lambda: jaxrnn.linen.as_cell(NoCarry()),
    ),
    "no_first_state_in_nnx": (
        TypeError,
        r"`module` must be a cell of nnx, such as nnx.LSTMCell\(3, 8,",
        lambda: jaxrnn.nnx.as_cell(NoCarryNnx(), 3),
    ),
    "no_module_of_nnx": (
        TypeError,
        "as_cell: `module` must be a cell of nnx, such as .*, got NoModule",
        lambda: jaxrnn.nnx.as_cell(NoModule(), 3),
    ),
    "no_keys_for_a_first_state": (
        TypeError,
        "Cell: `rngs` must be nnx.Rngs, a stream or a key, got None",
        lambda: jaxrnn.nnx.Cell(GRUCell(3), 2, rngs=nnx.Rngs(0)).initialize_carry(
            (1, 2), carry_init=nn.initializers.ones
        ),
    ),
    "init_of_nnx": (
        ValueError,
        "this cell already has its parameters, which `as_cell` bound",
        lambda: of_nnx()[0].cell.init(jax.random.key(0), X[:, 0]),
    ),
    "no_rngs": (
        TypeError,
        "RNN: `rngs` must be nnx.Rngs, a stream or a key, got 3",
        lambda: jaxrnn.nnx.RNN(DropoutWrapper(GRUCell(3), 0.5), 2, rngs=nnx.Rngs(0))(
            X, rngs=3
        ),
    ),
}


def cell_of_two_inputs():
    return jaxrnn.nnx.as_cell(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), 5)


def cell_over_images():
    return jaxrnn.linen.as_cell(nn.ConvLSTMCell(2, (3, 3)))


@pytest.mark.parametrize("make", [cell_of_two_inputs, cell_over_images])
def test_other_features_than_the_module_has_are_noted(make):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    notes = "\n".join(caught.value.__notes__)
    note = r"as_cell: in a step with inputs \[1, \d\], as set by `in_features`"
    assert re.search(note, notes)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments(name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
