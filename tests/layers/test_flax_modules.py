"""Recurrent modules of linen and nnx behave like the drivers."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from cases import CASES
from flax import nnx
from flax.errors import InvalidRngError, TraceContextError
from flax.training.train_state import TrainState
from helpers import drawn, usual_promotion

import jaxrnn
import jaxrnn.convert
import jaxrnn.initializers
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import (
    CudnnCompatibleGRUCell,
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    TensorShape,
)

ROWS, TIME, DEPTH, UNITS = 3, 5, 2, 4
LENGTHS = jnp.asarray([5, 0, 3])
NOISY = DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X = draw(ROWS, TIME, DEPTH)


class InLinen:
    """A module of linen with its variables."""

    def __init__(self, kind, *args, inputs=X, **kwargs):
        self.module = getattr(jaxrnn.linen, kind)(*args, **kwargs)
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        self.params = self.module.init(keys, inputs)["params"]

    def __call__(self, *args, key=None, params=None, **kwargs):
        rngs = None if key is None else {"dropout": key}
        variables = {"params": self.params if params is None else params}
        return self.module.apply(variables, *args, rngs=rngs, **kwargs)


class InNnx:
    """A module of nnx."""

    def __init__(self, kind, *args, inputs=X, **kwargs):
        axis = 0 if kwargs.get("time_major") else 1
        step = jax.tree.map(lambda x: jnp.take(x, 0, axis), inputs)
        module = getattr(jaxrnn.nnx, kind)
        self.module = module(*args, step, rngs=nnx.Rngs(0), **kwargs)
        self.params = nnx.to_pure_dict(nnx.state(self.module.params))

    def __call__(self, *args, key=None, params=None, **kwargs):
        if params is not None:
            graph, _, rest = nnx.split(self.module, nnx.Param, ...)
            new = nnx.State({"params": params})
            return nnx.merge(graph, new, rest)(*args, rngs=key, **kwargs)
        return self.module(*args, rngs=key, **kwargs)


both = pytest.mark.parametrize("make", [InLinen, InNnx])


def same(got, want, rtol=1e-5):
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_close(got, want, rtol=rtol, atol=1e-6)


CELLS = {
    "lstm_cell": LSTMCell(UNITS, use_peepholes=True, num_proj=3),
    "cudnn_compatible_gru_cell": CudnnCompatibleGRUCell(UNITS),
    "multi_rnn_cell": MultiRNNCell([LSTMCell(3), GRUCell(UNITS)]),
    "gru_cell": NOISY,
}


@pytest.mark.fast("lstm_cell-InNnx")
@both
@pytest.mark.parametrize("name", CELLS)
def test_rnn_is_dynamic_rnn(make, name):
    """Under TensorFlow's name, which a wrapper has no part in."""
    cell = CELLS[name]
    rnn = make("RNN", cell)
    assert list(rnn.params) == [name]
    bound = cell.bind(rnn.params[name])
    want = jaxrnn.dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    state, outputs = rnn(X, LENGTHS, return_carry=True, deterministic=True)
    same((outputs, state), want)
    # A state goes in as it came out.
    want = jaxrnn.dynamic_rnn(bound, X, LENGTHS, want[1])[0]
    same(rnn(X, LENGTHS, initial_state=state, deterministic=True), want)
    fresh = cell.init(jax.random.key(0), X[:, 0])
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, bound.params)


@both
def test_options_are_those_of_the_driver(make):
    x, cell = jnp.swapaxes(X, 0, 1), LSTMCell(UNITS)
    options = {"time_major": True, "swap_memory": jaxrnn.memory.Recompute(2)}
    rnn = make("RNN", cell, inputs=x, return_carry=True, **options)
    bound = cell.bind(rnn.params["lstm_cell"])
    want = jaxrnn.dynamic_rnn(bound, x, LENGTHS, dtype=x.dtype, **options)
    state, outputs = rnn(x, LENGTHS)
    same((outputs, state), want)


@pytest.mark.fast("False-InLinen", "True-InNnx")
@both
@pytest.mark.parametrize("keep_order", [False, True])
def test_reversed_as_in_flax(make, keep_order):
    options = {"reverse": True, "keep_order": keep_order}
    rnn = make("RNN", GRUCell(UNITS), **options)
    flax = nn.RNN(jaxrnn.linen.Cell(GRUCell(UNITS)), **options)
    lengths = jnp.asarray([5, 1, 3], jnp.int32)
    with usual_promotion():
        variables = {"params": {"cell": rnn.params}}
        want = flax.apply(variables, X, seq_lengths=lengths)
    alive = np.arange(TIME)[None, :, None] < np.asarray(lengths)[:, None, None]
    same(rnn(X, lengths), jnp.where(alive, want, 0))


@both
def test_lengths_beyond_the_steps_are_all_of_them(make):
    module = make("RNN", GRUCell(UNITS), reverse=True)
    same(module(X, [1000, 0, 3]), module(X, [TIME, 0, 3]), rtol=0)
    # int32 of 2**32 is 0; NumPy's lengths are clamped before they are narrowed.
    beyond = np.array([2**32, 0, 3], np.int64)
    same(module(X, beyond), module(X, [TIME, 0, 3]), rtol=0)


@both
def test_no_rows(make):
    module = make("RNN", GRUCell(UNITS))
    assert module(X[:0], []).shape == (0, TIME, UNITS)


@pytest.mark.fast("InNnx")
@both
def test_bidirectional_is_its_driver(make):
    cells = LSTMCell(UNITS), GRUCell(3)
    rnn = make("Bidirectional", *cells)
    fw, bw = (
        cell.bind(rnn.params[name][scope])
        for cell, name, scope in zip(
            cells, ("fw", "bw"), ("lstm_cell", "gru_cell"), strict=True
        )
    )
    outputs, states = jaxrnn.bidirectional_dynamic_rnn(
        fw, bw, X, LENGTHS, dtype=X.dtype
    )
    got = rnn(X, LENGTHS, return_carry=True)
    same(got, (states, jnp.concatenate(outputs, -1)))
    again = rnn(X, LENGTHS, initial_state=states)
    want, _ = jaxrnn.bidirectional_dynamic_rnn(fw, bw, X, LENGTHS, *states)
    same(again, jnp.concatenate(want, -1))
    summed = make("Bidirectional", GRUCell(3), GRUCell(3), merge=jnp.add)
    assert summed(X).shape == (ROWS, TIME, 3)


@pytest.mark.fast("InNnx")
@both
def test_stack_is_its_driver(make):
    cells = [LSTMCell(UNITS), GRUCell(3)], [GRUCell(2), GRUCell(3)]
    rnn = make("StackBidirectional", *cells)
    bound = [
        [
            cell.bind(*rnn.params[f"cell_{i}"][way].values())
            for i, cell in enumerate(each)
        ]
        for way, each in zip(("fw", "bw"), cells, strict=True)
    ]
    outputs, *states = jaxrnn.stack_bidirectional_dynamic_rnn(
        *bound, X, dtype=X.dtype, sequence_length=LENGTHS
    )
    got_states, got = rnn(X, LENGTHS, return_carry=True)
    same((got, got_states), (outputs, tuple(states)))
    again, *_ = jaxrnn.stack_bidirectional_dynamic_rnn(
        *bound, X, *states, sequence_length=LENGTHS, dtype=X.dtype
    )
    same(rnn(X, LENGTHS, initial_state=got_states), again)
    some = (None, states[0][1]), (states[1][0], None)
    assert rnn(X, initial_state=some).shape == outputs.shape


@pytest.mark.fast("InNnx")
@both
def test_any_number_of_batch_axes(make):
    """Flax's own crashes at lengths of two axes."""
    rnn = make("RNN", LSTMCell(UNITS), return_carry=True)
    x, lengths = draw(2, ROWS, TIME, DEPTH), jnp.asarray([[5, 0, 3], [1, 2, 9]])
    want = jax.vmap(rnn)(x, lengths)
    same(rnn(x, lengths), want)
    assert rnn(x, lengths, initial_state=want[0])[0].h.shape == (2, ROWS, UNITS)
    one = jax.tree.map(lambda leaf: leaf[0, 0], jax.vmap(rnn)(x))
    same(rnn(x[0, 0]), one)
    same(rnn(x[0, 0], 2), jax.tree.map(lambda a: a[0], rnn(x[0, :1], [2])))
    time_first = make("RNN", GRUCell(UNITS), inputs=x[0], time_major=True)
    got = time_first(jnp.moveaxis(x, 2, 0), lengths)
    want = make("RNN", GRUCell(UNITS))(x, lengths, params=time_first.params)
    same(got, jnp.moveaxis(want, 2, 0))


def add_up(params, inputs, state, key=None):
    state = state + params["scale"] * (inputs["a"] + inputs["b"][:, 0])
    return state, state


def init_scale(key, inputs, dtype):
    return {"scale": jnp.ones((1, 1), dtype)}


@both
def test_nests_of_inputs(make):
    cell = FunctionCell(add_up, TensorShape([DEPTH]), TensorShape([DEPTH]), init_scale)
    inputs = {"a": X, "b": draw(ROWS, TIME, 1, DEPTH)}
    got = make("RNN", cell, inputs=inputs)(inputs, LENGTHS)
    want = jnp.cumsum(inputs["a"] + inputs["b"][:, :, 0], 1)
    alive = jnp.arange(TIME)[None] < LENGTHS[:, None]
    same(got, jnp.where(alive[..., None], want, 0))


@pytest.mark.fast("InNnx")
@both
def test_padding_is_nothing(make):
    """Flax's own gives gradients of NaN, outputs that go on, and for a row of length 0
    the state after all of its padding."""
    rnn = make("RNN", LSTMCell(UNITS), return_carry=True)
    dead = (jnp.arange(TIME)[None] >= LENGTHS[:, None])[..., None]

    def loss(params, x):
        state, outputs = rnn(x, LENGTHS, params=params)
        return jnp.sum(outputs**2) + jnp.sum(state.c**2), (state, outputs)

    gradient = jax.grad(loss, (0, 1), has_aux=True)
    got, (state, outputs) = gradient(rnn.params, jnp.where(dead, jnp.nan, X))
    want, _ = gradient(rnn.params, jnp.where(dead, 0, X))
    same(got, want)
    assert not outputs[jnp.broadcast_to(dead, outputs.shape)].any()
    assert not state.c[1].any()
    assert not state.h[1].any()


@both
def test_dtypes(make):
    rnn = make("RNN", GRUCell(UNITS), dtype=jnp.bfloat16)
    kernel = rnn.params["gru_cell"]["gates"]["kernel"]
    assert (kernel.dtype, rnn(X).dtype) == (jnp.float32, jnp.bfloat16)
    half = make("RNN", GRUCell(UNITS), param_dtype=jnp.bfloat16, return_carry=True)
    assert half.params["gru_cell"]["gates"]["kernel"].dtype == jnp.bfloat16
    # The widest of both, as in Flax.
    state, outputs = half(X)
    assert outputs.dtype == state.dtype == jnp.float32
    assert half(X.astype(jnp.bfloat16))[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(rnn(X), rnn(X).astype(jnp.float32), atol=0.02)


@both
def test_a_state_is_cast_as_inputs_are(make):
    rnn = make("RNN", LSTMCell(UNITS), dtype=jnp.bfloat16)
    state = LSTMCell(UNITS).zero_state(ROWS, jnp.float32)
    same(rnn(X, initial_state=state), rnn(X))


@pytest.mark.fast("InLinen")
@pytest.mark.parametrize("make", [InLinen, InNnx])
def test_resets(make):
    """Several batch axes; a reversed run enters a segment at its last step."""
    x = draw(2, 2, TIME, DEPTH)
    resets = np.random.default_rng(1).random((2, 2, TIME)) < 0.4
    rnn = make("RNN", GRUCell(UNITS))
    cell = GRUCell(UNITS).bind(rnn.params["gru_cell"])
    rows, at = x.reshape(4, TIME, DEPTH), resets.reshape(4, TIME)
    state = jnp.ones((2, 2, UNITS), jnp.float32)
    options = {"dtype": "float32", "resets": at, "reset_state": state.reshape(4, -1)}
    want, _ = jaxrnn.dynamic_rnn(cell, rows, **options)
    got = rnn(x, resets=resets, reset_state=state)
    np.testing.assert_array_equal(got.reshape(want.shape), want)

    both = make("Bidirectional", GRUCell(UNITS), GRUCell(UNITS))
    _, want = jnp.split(both(x, resets=resets), 2, axis=-1)
    backward = make("RNN", GRUCell(UNITS), reverse=True, keep_order=True)
    got = backward(x, resets=resets, params=both.params["bw"])
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="`reset_state` must be None for two"):
        both(x, resets=resets, reset_state=(state, state))
    for module, units in ((rnn, UNITS), (both, 2 * UNITS)):
        outputs = module(x[..., :0, :], resets=resets[..., :0])
        assert outputs.shape == (2, 2, 0, units)


@pytest.mark.fast("InLinen")
@pytest.mark.parametrize("make", [InLinen, InNnx])
def test_masks_and_states_of_all_steps(make):
    """Several batch axes, and what the drivers return."""
    x = draw(2, 2, TIME, DEPTH)
    mask = np.random.default_rng(1).random((2, 2, TIME)) < 0.6
    rows, at = x.reshape(4, TIME, DEPTH), mask.reshape(4, TIME)
    join = lambda tree: jax.tree.map(lambda y: y.reshape(4, *y.shape[2:]), tree)
    options = {"mask": mask, "return_states": True}
    rnn = make("RNN", GRUCell(UNITS))
    cell = GRUCell(UNITS).bind(rnn.params["gru_cell"])
    driver = {"dtype": "float32", "mask": at, "return_states": True}
    want = jaxrnn.dynamic_rnn(cell, rows, **driver)
    same(join(rnn(x, **options)), want)
    always = make("RNN", GRUCell(UNITS), return_states=True)
    assert len(always(x)) == 3
    assert always(x, return_states=False).shape == (2, 2, TIME, UNITS)

    both = make("Bidirectional", GRUCell(UNITS), LSTMCell(UNITS))
    outputs, state, states = join(both(x, **options))
    backward = make("RNN", LSTMCell(UNITS), reverse=True, keep_order=True)
    got = join(backward(x, params=both.params["bw"], **options))
    same(got, (outputs[..., UNITS:], state[1], states[1]))

    stack = make("StackBidirectional", *[[GRUCell(UNITS), GRUCell(UNITS)]] * 2)
    top, last, (states_fw, states_bw) = join(stack(x, **options))
    assert jax.tree.map(jnp.shape, states_bw) == ((4, TIME, UNITS),) * 2
    for b, row in enumerate(rows):
        if at[b].any():
            kept = stack(row[None, at[b]], return_states=True)
            same(top[b, at[b]], kept[0][0])
            same([s[b] for s in last[1]], [s[0] for s in kept[1][1]])
            same([s[b, at[b]] for s in states_fw], [s[0] for s in kept[2][0]])


def test_lengths_that_are_traced_one_by_one():
    rnn = InLinen("RNN", GRUCell(UNITS))
    got = jax.jit(lambda a, b: rnn(X, [a, b, 5]))(jnp.int32(2), jnp.int32(0))
    same(got, rnn(X, [2, 0, 5]))


@pytest.mark.fast("InLinen")
@both
def test_noise_comes_from_the_stream(make):
    rnn = make("Bidirectional", NOISY, NOISY)
    quiet = rnn(X, deterministic=True)
    keys = jax.random.key(3), jax.random.key(4)
    noisy = [rnn(X, key=key) for key in (*keys, keys[0])]
    same(noisy[0], noisy[2])
    assert not jnp.allclose(noisy[0], noisy[1])
    assert not jnp.allclose(noisy[0], quiet)
    # Dropout of the state alone does not affect the output of the first step.
    rnn = make("RNN", DropoutWrapper(GRUCell(UNITS), state_keep_prob=0.5))
    noisy = rnn(X, key=keys[0])
    same(noisy[:, 0], rnn(X, deterministic=True)[:, 0])
    assert not jnp.allclose(noisy, rnn(X, deterministic=True))
    everything_dropped = make("RNN", DropoutWrapper(LSTMCell(UNITS), 1.0, 0.0))
    assert not everything_dropped(X, key=keys[0]).any()
    # Without dropout no stream is required.
    same(make("RNN", LSTMCell(UNITS))(X), make("RNN", LSTMCell(UNITS))(X))


def draws(params, inputs, state, key=None):
    state = state + inputs
    if key is not None:
        state = state + jax.random.normal(key, state.shape, state.dtype)
    return state, state


FLAGS = ["reverse", "keep_order", "time_major"]
FLAGS += ["return_carry", "return_states", "deterministic"]


@both
@pytest.mark.parametrize("name", FLAGS)
def test_a_word_for_a_bool(make, name):
    match = f"RNN: `{name}` must be True or False, got 'no'"
    with pytest.raises(TypeError, match=match):
        make("RNN", GRUCell(UNITS), **{name: "no"})(X)
    if name in ("return_carry", "return_states", "deterministic"):
        with pytest.raises(TypeError, match=match):
            make("RNN", GRUCell(UNITS))(X, **{name: "no"})


@both
def test_integers_are_cast_to_an_explicit_dtype(make):
    ids = jnp.asarray(np.arange(ROWS * TIME * DEPTH).reshape(X.shape), jnp.int32)
    rnn = make("RNN", DropoutWrapper(LSTMCell(UNITS)), dtype=X.dtype, inputs=X)
    same(rnn(ids), rnn(ids.astype(X.dtype)))
    with pytest.raises(ValueError, match="only supports floating point"):
        make("RNN", LSTMCell(UNITS))(ids)
    rnn = make("RNN", FunctionCell(counts, 1, 1), dtype=X.dtype, inputs=ids)
    assert rnn(ids).dtype == X.dtype


def counts(params, inputs, state, key=None):
    assert inputs.dtype == jnp.int32
    state = state + jnp.sum(inputs, -1, keepdims=True).astype(state.dtype)
    return state, state


@both
def test_a_dropout_that_drops_nothing_needs_no_stream(make):
    cell = DropoutWrapper(GRUCell(UNITS), 1.0, 1, 1.0, seed=3)
    assert cell.is_random is False
    assert make("RNN", MultiRNNCell([cell, LSTMCell(3)]))(X).shape == (ROWS, TIME, 3)


def test_a_cell_that_declares_nothing_gets_the_keys_that_are_there():
    quiet = jnp.cumsum(X, 1)
    undeclared = FunctionCell(draws, DEPTH, DEPTH)
    rnn = InLinen("RNN", undeclared)
    same(rnn(X), quiet)
    assert not jnp.allclose(rnn(X, key=jax.random.key(0)), quiet)
    # `make_rng` of linen falls back to the stream of parameters.
    of_params = {"params": jax.random.key(0)}
    assert not jnp.allclose(
        rnn.module.apply({"params": rnn.params}, X, rngs=of_params), quiet
    )

    rnn = jaxrnn.nnx.RNN(undeclared, DEPTH, rngs=nnx.Rngs(params=0))
    same(rnn(X), quiet)
    assert not jnp.allclose(rnn(X, rngs=jax.random.key(0)), quiet)
    rnn = jaxrnn.nnx.RNN(undeclared, DEPTH, rngs=nnx.Rngs(0))
    assert not jnp.allclose(rnn(X), rnn(X))
    same(rnn(X, deterministic=True), quiet)
    with pytest.raises(TraceContextError) as caught:
        jax.jit(lambda x: rnn(x))(X)
    assert "Pass `rngs=key`; or" in caught.value.__notes__[0]


def test_a_cell_that_declares_itself():
    loud = FunctionCell(draws, DEPTH, DEPTH, is_random=True)
    with pytest.raises(InvalidRngError, match="dropout"):
        InLinen("RNN", loud)(X)
    with pytest.raises(KeyError):
        jaxrnn.nnx.RNN(loud, DEPTH, rngs=nnx.Rngs(params=0))
    calm = FunctionCell(draws, DEPTH, DEPTH, is_random=False)
    for make in (InLinen, InNnx):
        same(make("RNN", calm)(X, key=jax.random.key(0)), jnp.cumsum(X, 1))


def reads_key(cell, inputs):
    """Whether the results of a step depend on its key, so that `vmap` batches them."""
    params = drawn(cell, inputs, X.dtype)
    rows = jax.tree.leaves(inputs)[0].shape[0]
    state = cell.zero_state(rows, X.dtype)
    step = lambda key, *args: cell.apply(*args, key)
    of_keys = jax.vmap(step, (0, None, None, None), out_axes=None)
    keys = jax.random.split(jax.random.key(0))
    try:
        jax.eval_shape(of_keys, keys, params, inputs, state)
    except ValueError as error:
        return "out_axes" in str(error)
    return False


@pytest.mark.parametrize("name", [n for n in CASES if n != "attention"])  # No zeros.
def test_cells_declare_whether_they_read_their_key(name):
    cell = CASES[name].cell
    assert cell.is_random in (None, reads_key(cell, CASES[name].inputs))


def test_wrappers_declare_what_their_cells_declare():
    function = FunctionCell(draws, DEPTH, DEPTH)
    assert function.is_random is None
    assert MultiRNNCell([LSTMCell(UNITS), function]).is_random is None
    assert MultiRNNCell([function, NOISY]).is_random
    keeps_all = DropoutWrapper(
        GRUCell(UNITS),
        state_keep_prob=0.5,
        dropout_state_filter_visitor=lambda state: False,
    )
    assert keeps_all.is_random  # A filter may depend on the state.


class Within(nn.Module):
    """Passes a key to the call of a module."""

    rnn: nn.Module

    def __call__(self, x, key):
        return self.rnn(x, rngs=key)


def test_each_direction_has_its_own_key():
    key = jax.random.key(3)
    rnn = jaxrnn.nnx.Bidirectional(NOISY, NOISY, DEPTH, rngs=nnx.Rngs(0))
    pair = zip(rnn.get_cells(), range(2), strict=True)
    cells = [c.cell.bind(c.params, jax.random.fold_in(key, i)) for c, i in pair]
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(*cells, X, dtype=X.dtype)
    want = jnp.concatenate(outputs, -1)
    same(rnn(X, rngs=key), want)
    linen = jaxrnn.linen.Bidirectional(NOISY, NOISY)
    params = linen.variables_of(*rnn.get_cells())["params"]
    same(Within(linen).apply({"params": {"rnn": params}}, X, key), want)


def test_linen_asks_for_the_stream():
    with pytest.raises(InvalidRngError, match="dropout"):
        InLinen("RNN", NOISY)(X)


def test_nnx_draws_from_its_own_stream():
    rnn = jaxrnn.nnx.RNN(NOISY, DEPTH, rngs=nnx.Rngs(0))
    run = nnx.jit(lambda rnn, x: rnn(x))
    assert not jnp.allclose(run(rnn, X), run(rnn, X))
    rnn.eval()
    same(run(rnn, X), run(rnn, X))
    rnn.train()
    assert not jnp.allclose(run(rnn, X), run(rnn, X))
    # In a closure of JAX the stream's count cannot change, but a key can be passed.
    closed = jax.jit(lambda x, key: rnn(x, rngs=key))
    same(closed(X, jax.random.key(1)), rnn(X, rngs=jax.random.key(1)))


def test_linen_is_deterministic_by_its_attribute():
    quiet = nn.remat(jaxrnn.linen.RNN)(NOISY, deterministic=True)
    rnn = InLinen("RNN", NOISY)
    same(quiet.apply({"params": rnn.params}, X), rnn(X, deterministic=True))


# Linen's transformations.


class Deep(nn.Module):
    """A stack by `nn.scan`, each layer rematerialized."""

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(jaxrnn.linen.RNN)
        scan = nn.scan(
            lambda rnn, x, _: (rnn(x, LENGTHS), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        return scan(layer(GRUCell(UNITS)), x, None)[0]


@pytest.mark.slow
def test_linen_scan_and_remat():
    x, deep = draw(ROWS, TIME, UNITS), Deep()
    variables = deep.init(jax.random.key(0), x)
    (params,) = variables["params"].values()
    assert params["gru_cell"]["gates"]["kernel"].shape == (2, 2 * UNITS, 2 * UNITS)
    rnn = jaxrnn.linen.RNN(GRUCell(UNITS))

    def by_hand(variables, x):
        for i in range(2):
            (params,) = variables["params"].values()
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            x = rnn.apply({"params": layer}, x, LENGTHS)
        return x

    gradient = lambda f: jax.jit(jax.grad(lambda v: jnp.sum(f(v, x) ** 2)))(variables)
    same(gradient(deep.apply), gradient(by_hand))


def test_linen_jit_and_vmap():
    x = draw(2, ROWS, TIME, DEPTH)
    many = nn.vmap(
        nn.jit(jaxrnn.linen.RNN),
        in_axes=0,
        variable_axes={"params": 0},
        split_rngs={"params": True},
    )(GRUCell(UNITS))
    variables = many.init(jax.random.key(0), x)
    got = many.apply(variables, x)
    one = jaxrnn.linen.RNN(GRUCell(UNITS))
    for i in range(2):
        its = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
        same(got[i], one.apply(its, x[i]))


AXES = {"kernel": ("inputs", "hidden"), "bias": ("hidden",)}


def test_linen_partitioned():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS), axis_names=AXES)
    variables = rnn.init(jax.random.key(0), X)
    specs = nn.get_partition_spec(variables)["params"]["lstm_cell"]
    P = jax.sharding.PartitionSpec
    assert specs == {"kernel": P("inputs", "hidden"), "bias": P("hidden")}
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rules = [("hidden", "data"), ("inputs", None)]
    layout = nn.logical_to_mesh_sharding(nn.get_partition_spec(variables), mesh, rules)
    plain = nn.meta.unbox(variables)
    laid_out = jax.device_put(plain, nn.meta.unbox(layout))
    assert laid_out["params"]["lstm_cell"]["kernel"].sharding.spec == P(None, "data")
    same(jax.jit(rnn.apply)(laid_out, X), rnn.apply(plain, X))


def test_nnx_partitioned():
    with nnx.use_eager_sharding(False):
        rnn = jaxrnn.nnx.RNN(LSTMCell(UNITS), DEPTH, axis_names=AXES, rngs=nnx.Rngs(0))
    specs = nnx.get_partition_spec(nnx.state(rnn, nnx.Param))
    kernel = specs["params"]["lstm_cell"]["kernel"]
    assert kernel.get_value() == jax.sharding.PartitionSpec("inputs", "hidden")
    assert rnn(X).shape == (ROWS, TIME, UNITS)


@both
def test_a_wrong_number_of_axes(make):
    with pytest.raises(ValueError, match=r"axis_names\['kernel'\].* each axis of `par"):
        make("RNN", LSTMCell(UNITS), axis_names={"kernel": ("hidden",)})


@both
def test_axes_of_no_parameter(make):
    with pytest.raises(
        ValueError,
        match=r"RNN: the keys of `axis_names` .*, got 'kernal'\. Use bias, kernel",
    ):
        make("RNN", LSTMCell(UNITS), axis_names={"kernal": ("inputs", "hidden")})


def test_nnx_says_what_a_stream_is_for():
    cell = jaxrnn.DropoutWrapper(LSTMCell(UNITS), 0.5)
    with pytest.raises(KeyError) as caught:
        jaxrnn.nnx.RNN(cell, DEPTH, rngs=nnx.Rngs(params=0))
    assert caught.value.__notes__ == [
        "The cell draws random numbers from the stream 'dropout'."
    ]


def test_linen_shows_itself():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS))
    table = rnn.tabulate(jax.random.key(0), X, console_kwargs={"width": 120})
    table = re.sub(r"\x1b\[[0-9;]*m", "", table)
    for text in ("RNN", "float32[3,5,2]", "float32[3,5,4]", "float32[6,16]", "112"):
        assert text in table


def test_nnx_shows_itself(capsys):
    rnn = jaxrnn.nnx.RNN(LSTMCell(UNITS), DEPTH, rngs=nnx.Rngs(0))
    nnx.display(rnn)
    shown = capsys.readouterr().out
    for text in ("RNN", "LSTMCell(num_units=4", "Param: 112", "shape=(6, 16)"):
        assert text in shown
    table = nnx.tabulate(rnn, X, console_kwargs={"width": 120})
    assert "112" in table


# nnx's transformations, and JAX's own around a module of nnx.


def test_nnx_transformations_and_closures():
    rnn = jaxrnn.nnx.RNN(LSTMCell(UNITS), DEPTH, rngs=nnx.Rngs(0))
    loss = lambda rnn, x: jnp.sum(rnn(x, LENGTHS) ** 2)
    want = loss(rnn, X)
    same(nnx.jit(loss)(rnn, X), want)
    same(jax.jit(lambda x: loss(rnn, x))(X), want)  # nnx's own RNN raises here.
    by_x = jax.grad(lambda x: loss(rnn, x))(X)
    same(nnx.grad(loss, argnums=1)(rnn, X), by_x)
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)
    plain = jax.grad(lambda p: loss(nnx.merge(graph, p, rest), X))(params)
    same(nnx.to_pure_dict(nnx.grad(loss)(rnn, X)), nnx.to_pure_dict(plain))
    same(jax.vmap(lambda x: rnn(x[None])[0])(X), rnn(X))
    same(jax.checkpoint(lambda x: loss(rnn, x))(X), want)
    summed = jax.lax.scan(lambda c, x: (c + loss(rnn, x), None), 0.0, X[None])[0]
    same(summed.astype(want.dtype), want)


@pytest.mark.slow
def test_nnx_vmap_and_eval_shape():
    make = lambda rngs: jaxrnn.nnx.RNN(LSTMCell(UNITS), DEPTH, rngs=rngs)
    many = nnx.vmap(make)(nnx.Rngs(0).split(2))
    got = nnx.vmap(lambda rnn, x: rnn(x), in_axes=(0, None))(many, X)
    assert got.shape == (2, ROWS, TIME, UNITS)
    assert not jnp.allclose(got[0], got[1])
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    kernel = abstract.params["lstm_cell"]["kernel"]
    assert kernel.get_value().shape == (DEPTH + UNITS, 4 * UNITS)


# Weights that come from elsewhere.


def bound(cell, depth, seed):
    step = jax.ShapeDtypeStruct((1, depth), X.dtype)
    return cell.bind(cell.init(jax.random.key(seed), step))


def test_cells_with_weights_become_modules():
    one = bound(LSTMCell(UNITS, forget_bias=0.0), DEPTH, 0)
    stacked = (
        [bound(GRUCell(3), DEPTH, 1), bound(LSTMCell(3), 7, 2)],
        [bound(LSTMCell(UNITS), DEPTH, 3), bound(GRUCell(2), 7, 4)],
    )
    only = lambda cells: [cell.cell for cell in cells]
    with_noise = DropoutWrapper(one.cell, 0.5)
    want = jaxrnn.dynamic_rnn(one, X, LENGTHS, dtype=X.dtype)[0]
    linen = jaxrnn.linen.RNN(with_noise)
    variables = linen.variables_of(one)
    same(linen.apply(variables, X, LENGTHS, deterministic=True), want)
    rnn = jaxrnn.nnx.RNN(with_noise, DEPTH, rngs=nnx.Rngs(0))
    rnn.set_cells(one)
    same(nnx.view(rnn, deterministic=True)(X, LENGTHS), want)
    same(rnn.get_cells().params, one.params)

    want = jaxrnn.stack_bidirectional_dynamic_rnn(*stacked, X, dtype=X.dtype)[0]
    linen = jaxrnn.linen.StackBidirectional(*map(only, stacked))
    variables = linen.variables_of(*stacked)
    same(linen.apply(variables, X), want)
    rnn = jaxrnn.nnx.StackBidirectional(*map(only, stacked), DEPTH, rngs=nnx.Rngs(0))
    rnn.set_cells(*stacked)
    same(rnn(X), want)
    for got in (rnn.get_cells(), linen.cells_of(variables)):
        assert [[c.cell for c in way] for way in got] == [*map(only, stacked)]
        same(jax.tree.leaves(got), jax.tree.leaves(stacked))


@pytest.mark.fast("InNnx")
@both
def test_noise_is_put_around_cells_that_have_weights(make):
    cell = bound(MultiRNNCell([LSTMCell(UNITS), GRUCell(3)]), DEPTH, 0)
    noisy = MultiRNNCell([DropoutWrapper(each, 0.5) for each in cell.cell.cells])
    module = make("RNN", noisy)
    got = put(module, cell)(X, LENGTHS, deterministic=True)
    same(got, jaxrnn.dynamic_rnn(cell, X, LENGTHS, dtype=X.dtype)[0])
    saved = jaxrnn.convert.tf1.save(taken(module), "rnn")
    same(saved, jaxrnn.convert.tf1.save(cell, "rnn"))


def put(module, *cells):
    """The module with the cells' weights."""
    if isinstance(module, InNnx):
        module.module.set_cells(*cells)
    else:
        module.params = module.module.variables_of(*cells)["params"]
    return module


def taken(module):
    if isinstance(module, InNnx):
        return module.module.get_cells()
    return module.module.cells_of({"params": module.params})


@both
def test_what_a_converter_gives_of_one_layer_of_two_directions(make):
    torch = jaxrnn.convert.torch
    free = LSTMCell(UNITS, forget_bias=0.0)
    weights = torch.save(
        (bound(free, DEPTH, 0), bound(free, DEPTH, 1)), bidirectional=True
    )
    cells_fw, cells_bw = torch.load(weights, bidirectional=True)
    module = make("Bidirectional", cells_fw[0].cell, cells_bw[0].cell)
    outputs = put(module, cells_fw, cells_bw)(X, LENGTHS)
    pairs, _ = jaxrnn.bidirectional_dynamic_rnn(
        cells_fw[0], cells_bw[0], X, LENGTHS, dtype=X.dtype
    )
    same(outputs, jnp.concatenate(pairs, -1))
    again = torch.save(taken(module), bidirectional=True)
    assert again.keys() == weights.keys()
    same(again, weights, rtol=0)


@pytest.mark.parametrize("stacked", [False, True])
def test_cells_with_weights_may_differ_in_their_initializers(stacked):
    initializer = jaxrnn.initializers.lecun_orthogonal()
    wrap = (lambda cell: MultiRNNCell([cell])) if stacked else lambda cell: cell
    one = bound(wrap(LSTMCell(UNITS, forget_bias=0.0)), DEPTH, 0)
    own = wrap(LSTMCell(UNITS, forget_bias=0.0, initializer=initializer))
    rnn = jaxrnn.nnx.RNN(own, DEPTH, rngs=nnx.Rngs(0))
    rnn.set_cells(one)
    same(rnn.get_cells().params, one.params, rtol=0)
    linen = jaxrnn.linen.RNN(own)
    same(linen.cells_of(linen.variables_of(one)).params, one.params, rtol=0)


def of_list(params, inputs, state, key=None):
    *parts, (scale,) = params
    shift = parts[10]["w"][None]
    state = jnp.tanh(inputs @ parts[0]["w"] + scale * state) + shift
    return state, state


@both
def test_parameters_may_be_lists_and_tuples(make):
    """Of more than ten entries, whose numbers sort otherwise as strings."""

    def init(key, inputs, dtype):
        kernel = jnp.full((DEPTH, UNITS), 0.5, dtype)
        rest = [{"w": jnp.full((UNITS,), i, dtype)} for i in range(10)]
        return [{"w": kernel}, *rest, (jnp.ones((), dtype),)]

    cell = jaxrnn.FunctionCell(of_list, UNITS, UNITS, init)
    params = init(None, None, X.dtype)
    params[0]["w"], params[-1] = params[0]["w"] / 4, (jnp.full((), 0.3, X.dtype),)
    module = put(make("RNN", cell), cell.bind(params))
    want = jaxrnn.dynamic_rnn(cell.bind(params), X, LENGTHS, dtype=X.dtype)[0]
    same(module(X, LENGTHS), want)
    same(jax.tree.leaves(taken(module).params), jax.tree.leaves(params), rtol=0)


def test_weights_are_kept_in_the_dtype_of_the_module():
    rnn = jaxrnn.nnx.RNN(GRUCell(3), DEPTH, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    rnn.set_cells(bound(GRUCell(3), DEPTH, 0))
    leaves = jax.tree.leaves(nnx.state(rnn.params))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


def test_a_loop_of_ones_own_takes_cells_with_weights():
    cell = bound(GRUCell(UNITS), DEPTH, 0)
    rnn = jaxrnn.nnx.RawRNN(GRUCell(UNITS), DEPTH, max_time=3, rngs=nnx.Rngs(0))
    rnn.set_cells(cell)
    same(rnn.get_cells().params, cell.params)
    linen = jaxrnn.linen.RawRNN(GRUCell(UNITS), max_time=3)
    same(linen.cells_of(linen.variables_of(cell)).params, cell.params)


# Training and saving.


def target(outputs):
    return jnp.mean((outputs - 0.5) ** 2)


def test_linen_trains_and_is_saved(tmp_path):
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS))
    params = rnn.init(jax.random.key(0), X)["params"]
    state = TrainState.create(apply_fn=rnn.apply, params=params, tx=optax.adam(0.1))

    @jax.jit
    def update(state):
        loss = lambda p: target(state.apply_fn({"params": p}, X))
        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    losses = []
    with usual_promotion():
        for _ in range(10):
            state, value = update(state)
            losses.append(value)
    assert losses[-1] < losses[0] / 2
    same(restored(tmp_path, state), state)


def test_nnx_trains_and_is_saved(tmp_path):
    rnn = jaxrnn.nnx.RNN(LSTMCell(UNITS), DEPTH, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(rnn, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def update(rnn, optimizer):
        value, gradient = nnx.value_and_grad(lambda rnn: target(rnn(X)))(rnn)
        optimizer.update(rnn, gradient)
        return value

    with usual_promotion():
        losses = [update(rnn, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0] / 2
    graph, state = nnx.split(rnn)
    again = nnx.merge(graph, restored(tmp_path, state))
    same(again(X), rnn(X), rtol=0)


def restored(path, state):
    """What Orbax gives back."""
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "state", state)
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(orbax.checkpoint.utils.to_shape_dtype_struct, state)
        return checkpointer.restore(path / "state", abstract)


# Wrong arguments.


def of_nnx():
    return jaxrnn.nnx.as_cell(nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0)), DEPTH)


REFUSED = {
    "lengths_of_other_rows": (
        ValueError,
        r"RNN: `sequence_length` must be a vector of length batch_size \(3\), one",
        lambda make: make("RNN", GRUCell(UNITS))(X, [1, 2]),
    ),
    "lengths_of_too_many_axes": (
        ValueError,
        r"`inputs` must be \[\*batch, time, ...\] with 3 batch axes, those",
        lambda make: make("RNN", GRUCell(UNITS))(X, jnp.ones((1, 1, 3), "i4")),
    ),
    "a_list": (
        ValueError,
        r"RNN: `inputs\[0\]\[0\]` must be .* A list is a nest of its elements",
        lambda make: make("RNN", GRUCell(UNITS))([[1.0]]),
    ),
    "other_depth": (
        ValueError,
        "must have shape .* for inputs of depth 3",
        lambda make: InNnx("RNN", GRUCell(UNITS))(draw(3, 5, 3)),
    ),
    "no_cells": (
        ValueError,
        r"StackBidirectional: `cells_fw` must be a list of at least one cell",
        lambda make: make("StackBidirectional", [], []),
    ),
    "unequal_depths": (
        ValueError,
        r"StackBidirectional: `cells_fw` and `cells_bw` must have the same depth",
        lambda make: make("StackBidirectional", [GRUCell(3)], [GRUCell(3)] * 2),
    ),
    "a_class": (
        TypeError,
        r"`cell` must be an RNNCell, such as `jaxrnn.LSTMCell\(8\)`, got the",
        lambda make: make("RNN", GRUCell),
    ),
    "a_bound_cell": (
        TypeError,
        r"RNN: `cell` must be .* got BoundCell\. Pass `cell\.cell`; parameters belong",
        lambda make: make("RNN", bound(GRUCell(3), DEPTH, 0)),
    ),
    "a_cell_of_flax": (
        TypeError,
        r"`cell_bw` must be an RNNCell, such as .*, got",
        lambda make: make("Bidirectional", GRUCell(3), nn.GRUCell(3)),
    ),
    "a_cell_of_nnx": (
        TypeError,
        r"`cell` must be an RNNCell, such as .*, got",
        lambda make: make("RNN", nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0))),
    ),
    "a_cell_that_nnx_has_bound": (
        TypeError,
        r"`cell` must be an RNNCell, such as .*, got",
        lambda make: make("RNN", of_nnx()),
    ),
    "a_cell_that_makes_no_parameters": (
        ValueError,
        "this cell already has its parameters, .* Run it with `jaxrnn.dynamic_rnn",
        lambda make: make("RNN", of_nnx().cell),
    ),
    "cells_in_a_list": (
        TypeError,
        r"RNN: `cell` must be .*\. Combine several cells with `MultiRNNCell`",
        lambda make: make("RNN", [GRUCell(3), GRUCell(3)]),
    ),
    "a_number_for_a_cell": (
        TypeError,
        r"`cell` must be an RNNCell, such as .*, got 8",
        lambda make: make("RNN", 8),
    ),
    "modules_for_cells": (
        TypeError,
        r"`cell_fw` must be an RNNCell, such as .*, got",
        lambda make: make("Bidirectional", *[jaxrnn.linen.RNN(GRUCell(3))] * 2),
    ),
    "merge_by_name": (
        TypeError,
        r"Bidirectional: `merge` must be a function of both outputs, got 'sum'",
        lambda make: make("Bidirectional", GRUCell(3), GRUCell(3), merge="sum")(X),
    ),
    "lengths_as_flax_calls_them": (
        TypeError,
        "RNN: `seq_lengths` is not an argument. It is `sequence_length` here",
        lambda make: make("RNN", GRUCell(3))(X, seq_lengths=LENGTHS),
    ),
    "an_unknown_argument": (
        TypeError,
        "RNN: `unroll` is not an argument",
        lambda make: make("RNN", GRUCell(3))(X, unroll=2),
    ),
    "an_argument_of_the_constructor": (
        TypeError,
        "RNN: `reverse` is not an argument",
        lambda make: make("RNN", GRUCell(3))(X, reverse=True),
    ),
    "lengths_by_another_name": (
        TypeError,
        "RNN: `lengths` is not an argument",
        lambda make: make("RNN", GRUCell(3))(X, lengths=LENGTHS),
    ),
    "layers_by_number": (
        TypeError,
        "RNN: `num_layers` is not an argument",
        lambda make: make("RNN", GRUCell(3), num_layers=2),
    ),
    "an_option_of_one_direction": (
        TypeError,
        "Bidirectional: `keep_order` is not an argument",
        lambda make: make("Bidirectional", GRUCell(3), GRUCell(3), keep_order=True),
    ),
    "an_option_that_nobody_has": (
        TypeError,
        "RNN: `foo` is not an argument",
        lambda make: make("RNN", GRUCell(3), foo=2),
    ),
    "other_outputs_merged": (
        TypeError,
        "Bidirectional: `merge_fn` is not an argument",
        lambda make: make("Bidirectional", GRUCell(3), GRUCell(3), merge_fn=jnp.add),
    ),
    "one_mask_as_flax_calls_it": (
        TypeError,
        "RNN: `broadcast_rngs` is not an argument",
        lambda make: make("RNN", GRUCell(3), broadcast_rngs="dropout"),
    ),
    "axes_of_variables": (
        TypeError,
        "RNN: `variable_axes` is not an argument",
        lambda make: make("RNN", GRUCell(3), variable_axes={}),
    ),
    "a_number_for_reverse": (
        TypeError,
        "RNN: `reverse` must be True or False, got 3",
        lambda make: make("RNN", GRUCell(3), reverse=3)(X),
    ),
    "no_dtype": (
        TypeError,
        "RNN: `dtype` must name a dtype, got 'zz'",
        lambda make: make("RNN", GRUCell(3), dtype="zz")(X),
    ),
    "no_dtype_of_parameters": (
        TypeError,
        "RNN: `param_dtype` must name a dtype, got 'zz'",
        lambda make: make("RNN", GRUCell(3), param_dtype="zz")(X),
    ),
    "integers_for_parameters": (
        ValueError,
        "only supports floating point, got `param_dtype` of int32",
        lambda make: make("RNN", GRUCell(3), param_dtype=jnp.int32),
    ),
    "a_number_for_axes": (
        TypeError,
        r"RNN: `axis_names` must be a dict of tuples such as {'bias': \('hidden',\)}, "
        r"got 3",
        lambda make: make("RNN", GRUCell(3), axis_names=3)(X),
    ),
    "a_number_for_a_stream": (
        TypeError,
        "RNN: `rng_collection` must be the name of a stream, got 3",
        lambda make: make("RNN", GRUCell(3), rng_collection=3)(X),
    ),
    "weights_for_other_inputs": (
        ValueError,
        r"`params\['gru_cell'\]\['candidate'\]\['kernel'\]` must match the",
        lambda make: InNnx("RNN", GRUCell(3)).module.set_cells(
            bound(GRUCell(3), DEPTH + 1, 0)
        ),
    ),
    "one_state_for_two": (
        ValueError,
        r"`initial_state` must be a pair \(state_fw, state_bw\), got",
        lambda make: make("Bidirectional", GRUCell(3), GRUCell(3))(
            X, initial_state=jnp.zeros((3, 3))
        ),
    ),
    "states_for_other_layers": (
        ValueError,
        r"`initial_state` must be \(states_fw, states_bw\), each with one",
        lambda make: make("StackBidirectional", [GRUCell(3)], [GRUCell(3)])(
            X, initial_state=((jnp.zeros((3, 3)),) * 2,)
        ),
    ),
    "only_a_cell": (
        TypeError,
        r"^RNN: .*missing 1 required positional argument: 'in_features'",
        lambda make: jaxrnn.nnx.RNN(GRUCell(3)),
    ),
    "too_many": (
        TypeError,
        r"^RNN: .*takes 3 positional arguments but 4 were given",
        lambda make: jaxrnn.nnx.RNN(GRUCell(3), 2, 4),
    ),
    "no_stream": (
        TypeError,
        "missing 1 required keyword-only argument: 'rngs'. Create them",
        lambda make: jaxrnn.nnx.Bidirectional(GRUCell(3), GRUCell(3), 2),
    ),
    "no_rngs": (
        TypeError,
        r"`rngs` must be nnx.Rngs, got 0. Create them: `nnx.Rngs\(0\)`",
        lambda make: jaxrnn.nnx.RNN(GRUCell(3), 2, rngs=0),
    ),
    "no_features": (
        TypeError,
        r"RNN: `in_features` must be an int, or one step of inputs as arrays or jax",
        lambda make: jaxrnn.nnx.RNN(GRUCell(3), "2", rngs=nnx.Rngs(0)),
    ),
    "nothing_to_read": (
        ValueError,
        r"RNN: `in_features` must be at least 1, got 0",
        lambda make: jaxrnn.nnx.RNN(GRUCell(3), np.int64(0), rngs=nnx.Rngs(0)),
    ),
    "weights_of_another_cell": (
        ValueError,
        r"each cell must match the module's cell, GRUCell\(num_units=3,",
        lambda make: InNnx("RNN", GRUCell(3)).module.set_cells(GRUCell(4).bind({})),
    ),
    "weights_of_no_cell": (
        TypeError,
        r"`cell` must be bound by `cell.bind\(params\)`, got GRUCell",
        lambda make: InLinen("RNN", GRUCell(3)).module.variables_of(GRUCell(3)),
    ),
    "variables_for_arrays": (
        TypeError,
        "`cell.params` must hold arrays, got variables of nnx",
        lambda make: jaxrnn.convert.torch.save(
            LSTMCell(4).bind(InNnx("RNN", LSTMCell(4)).module.params["lstm_cell"])
        ),
    ),
    "variables_in_a_driver": (
        TypeError,
        r"must be an array, got an nnx variable\. `nnx\.as_pure` returns a dict",
        lambda make: jaxrnn.dynamic_rnn(
            LSTMCell(4).bind(InNnx("RNN", LSTMCell(4)).module.params["lstm_cell"]),
            X,
            dtype=X.dtype,
        ),
    ),
    "a_module_to_save": (
        TypeError,
        r"got RNN\. Pass its `get_cells\(\)` or `cells_of\(variables\)`",
        lambda make: jaxrnn.convert.torch.save(make("RNN", LSTMCell(4)).module),
    ),
    "a_cell_of_flax_in_a_driver": (
        TypeError,
        r"`jaxrnn\.linen\.as_cell` and `jaxrnn\.nnx\.as_cell` convert Flax cells",
        lambda make: jaxrnn.dynamic_rnn(nn.GRUCell(3), X, dtype=X.dtype),
    ),
    "a_mask": (
        TypeError,
        r"RNN: `sequence_length` must hold integers, got bool\[3, 5\]\. "
        r"Pass a mask `\[batch, time\]` as `mask`, which",
        lambda make: make("RNN", GRUCell(UNITS))(X, jnp.ones((3, 5), bool)),
    ),
    "a_mask_of_integers": (
        ValueError,
        r"`inputs` must be \[\*batch, time, ...\] with 2 batch axes, those",
        lambda make: make("RNN", GRUCell(UNITS))(X, jnp.ones((3, 5), jnp.int32)),
    ),
    "a_mask_beside_lengths": (
        ValueError,
        "`mask` must be None where `sequence_length` is given",
        lambda make: make("RNN", GRUCell(UNITS))(X, [2, 3, 4], mask=X[..., 0] > 0),
    ),
    "a_mask_of_other_rows": (
        ValueError,
        r"`mask` must be \[batch, time\] like the inputs",
        lambda make: make("RNN", GRUCell(UNITS))(X, mask=X[1:, :, 0] > 0),
    ),
    "a_carry_before_the_inputs": (
        TypeError,
        r"RNN: `sequence_length` must hold integers, got float32\[3, 5, 2\]. .*"
        r"`rnn\(inputs, lengths, initial_state=state\)`",
        lambda make: make("RNN", GRUCell(UNITS))(jnp.zeros((3, UNITS)), X),
    ),
    "bools_for_lengths": (
        TypeError,
        r"`sequence_length` must hold integers, got bool\[3\]. Cast it to",
        lambda make: make("RNN", GRUCell(UNITS))(X, [True, False, True]),
    ),
    "dones": (
        TypeError,
        "RNN: `dones` is not an argument",
        lambda make: make("RNN", GRUCell(UNITS))(X, dones=jnp.ones((3, 5), bool)),
    ),
    "inputs_without_depth": (
        ValueError,
        r"`inputs` must be \[\*batch, time, ...\] with 1 batch axes, those",
        lambda make: make("RNN", GRUCell(UNITS))(X[..., 0], [5, 2, 1]),
    ),
    "lengths_along_other_axes": (
        ValueError,
        r"RNN: `sequence_length` must have the batch axes \[1, 3\], got int64",
        lambda make: make("RNN", GRUCell(3))(X[None], [[1], [2], [3]]),
    ),
    "a_state_along_other_axes": (
        ValueError,
        r"RNN: `initial_state` must have the batch axes \[1, 3\], got float32\[3,",
        lambda make: make("RNN", GRUCell(3))(
            X[None], initial_state=jnp.zeros((3, 1, 3), X.dtype)
        ),
    ),
    "a_word_for_lengths": (
        TypeError,
        "RNN: `sequence_length` must hold integers, got 'all'",
        lambda make: make("RNN", GRUCell(3))(X, "all"),
    ),
    "uneven_lengths": (
        ValueError,
        "RNN: `sequence_length` must hold one integer for each row, got",
        lambda make: make("RNN", GRUCell(3))(X, [[1, 2], [3]]),
    ),
    "weights_that_are_missing": (
        ValueError,
        r"`params\['gru_cell'\]\['candidate'\]\['bias'\]` must match the",
        lambda make: InNnx("RNN", GRUCell(3)).module.set_cells(GRUCell(3).bind({})),
    ),
    "variables_of_another_module": (
        ValueError,
        "`variables` must have the params gru_cell of the module, got",
        lambda make: jaxrnn.linen.RNN(GRUCell(3)).cells_of({"params": {"foo": 1}}),
    ),
    "one_length_for_all": (
        ValueError,
        r"`inputs` must be \[\*batch, time, ...\] with 0 batch axes, those",
        lambda make: make("RNN", GRUCell(UNITS))(X, 3),
    ),
    "a_cell_without_its_weights": (
        ValueError,
        r"`cell` must hold params\['bias'\], params\['kernel'\]; missing:",
        lambda make: jaxrnn.convert.torch.save(LSTMCell(4).bind({})),
    ),
    "weights_of_one_way": (
        ValueError,
        "there must be 2 cells, got 1",
        lambda make: jaxrnn.linen.Bidirectional(GRUCell(3), GRUCell(3)).variables_of(
            GRUCell(3).bind({})
        ),
    ),
}


@both
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments(make, name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call(make)
