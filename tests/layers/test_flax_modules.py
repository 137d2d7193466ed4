"""Recurrent modules of linen and nnx behave like the drivers, or refuse arguments."""

import functools

import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from flax import nnx
from flax.errors import InvalidRngError, TraceContextError
from flax_modules import (
    DEPTH,
    ROWS,
    TIME,
    UNITS,
    InLinen,
    InNnx,
    X,
    both,
    cells_in,
    in_nnx,
    run_driver,
    same,
)
from helpers import assert_same, drawn, usual_promotion

import jaxrnn
import jaxrnn.initializers
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    contrib,
)
from jaxrnn.convert import to_tf1

LENGTHS = jnp.asarray([5, 0, 3])
KEYS = jax.random.split(jax.random.key(3))
NOISY = DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5)
TIMED = jnp.cumsum(X[..., :1] ** 2, 1), X


draw = functools.partial(helpers.draw, dtype=np.float32)


def lstm(units):
    return {"lstm_cell": LSTMCell(units)}


def gru(units):
    return {"gru_cell": GRUCell(units)}


LAYERS = {
    "cell_0": {"fw": lstm(4), "bw": gru(2)},
    "cell_1": {"fw": gru(3), "bw": gru(3)},
}
# The cells of modules, in the nest of their parameters, under TensorFlow's names, which
# a wrapper has no part in; and inputs.
MODULES = {
    "lstm": ("RNN", {"lstm_cell": LSTMCell(UNITS, use_peepholes=True, num_proj=3)}, X),
    "gru": ("RNN", gru(UNITS), X),
    "multi": ("RNN", {"multi_rnn_cell": MultiRNNCell([LSTMCell(3), GRUCell(4)])}, X),
    "dropout": ("RNN", {"gru_cell": NOISY}, X),
    "phased": ("RNN", {"phased_lstm_cell": contrib.PhasedLSTMCell(UNITS)}, TIMED),
    "two_ways": ("Bidirectional", {"fw": lstm(UNITS), "bw": gru(3)}, X),
    "layers": ("StackBidirectional", LAYERS, X),
}


@pytest.mark.fast("two_ways-InNnx")
@both
@pytest.mark.parametrize("name", MODULES)
def test_modules_are_their_drivers(make, name):
    kind, nest, x = MODULES[name]
    module = make(kind, *cells_in(kind, nest), inputs=x)
    run = functools.partial(run_driver, kind, nest, module.params, x)
    state, outputs = module(x, LENGTHS, return_carry=True, deterministic=True)
    same((outputs, state), run(sequence_length=LENGTHS))
    # A state goes in as it came out.
    again = module(x, LENGTHS, initial_state=state, deterministic=True)
    same(again, run(states=state, sequence_length=LENGTHS)[0])


@pytest.mark.fast("gru-InNnx")
@both
@pytest.mark.parametrize("name", ["gru", "two_ways", "layers"])
def test_masks_resets_and_states_of_all_steps(make, name):
    """Several batch axes; a reversed run enters a span at its last step."""
    kind, nest, _ = MODULES[name]
    module = make(kind, *cells_in(kind, nest), return_states=True)
    rng, x = np.random.default_rng(1), draw(2, 2, TIME, DEPTH)
    mask = rng.permuted(np.tile(np.arange(TIME) < 3, (2, 2, 1)), axis=-1)
    options = {"mask": mask, "resets": mask & (rng.random(mask.shape) < 0.4)}
    if kind == "RNN":
        options["reset_state"] = draw(2, 2, UNITS)
    join = lambda tree: jax.tree.map(lambda y: y.reshape(4, *y.shape[2:]), tree)
    run = functools.partial(run_driver, kind, nest, module.params, return_states=True)
    outputs, state, states = run(join(x), **join(options))
    for return_carry in False, True:
        got = join(module(x, return_carry=return_carry, **options))
        same(got, (state, outputs, states))
    got = jax.eval_shape(lambda: module(x, return_states=False))
    assert got.shape == (2, 2, *outputs.shape[1:])
    no_steps = lambda: module(x[..., :0, :], resets=mask[..., :0])
    _, nothing, _ = jax.eval_shape(no_steps)
    assert nothing.shape == (2, 2, 0, *outputs.shape[2:])
    if kind == "Bidirectional":
        backward = make("RNN", GRUCell(3), reverse=True, keep_order=True)
        options |= {"return_states": True, "params": module.params["bw"]}
        of_bw = state[1], outputs[..., UNITS:], states[1]
        same(join(backward(x, **options)), of_bw)


def test_outputs_are_merged_and_either_state_may_be_left_out():
    rnn = InNnx("Bidirectional", GRUCell(3), GRUCell(3), merge=jnp.add)
    cells = rnn.module.get_cells()
    (fw, bw), _ = jaxrnn.bidirectional_dynamic_rnn(*cells, X, dtype=X.dtype)
    same(rnn(X), fw + bw)
    same(rnn(X, initial_state=(None, np.zeros((ROWS, 3), X.dtype))), fw + bw)


@pytest.mark.fast("False-InLinen", "True-InNnx")
@both
@pytest.mark.parametrize("keep_order", [False, True])
def test_reversed_as_in_flax(make, keep_order):
    options = {"reverse": True, "keep_order": keep_order}
    rnn = make("RNN", GRUCell(UNITS), **options)
    flax = nn.RNN(jaxrnn.linen.Cell(GRUCell(UNITS)), **options)
    lengths = np.array([5, 1, 3], np.int32)
    with usual_promotion():
        want = flax.apply({"params": {"cell": rnn.params}}, X, seq_lengths=lengths)
    alive = np.arange(TIME)[:, None] < lengths[:, None, None]
    same(rnn(X, lengths), jnp.where(alive, want, 0))


@pytest.mark.fast("InNnx")
@both
def test_any_number_of_batch_axes(make):
    """Flax's own crashes at lengths of two axes."""
    rnn, mask = make("RNN", GRUCell(UNITS), return_carry=True), np.arange(TIME) != 2
    of_one = jax.tree.map(lambda leaf: leaf[0], rnn(X[:1], mask=mask[None]))
    same(rnn(X[0], mask=mask), of_one)
    x, lengths = draw(2, ROWS, TIME, DEPTH), jnp.asarray([[5, 0, 3], [1, 2, 9]])
    join = lambda y: y.reshape(2 * ROWS, *y.shape[2:])
    divide = lambda y: y.reshape(2, ROWS, *y.shape[1:])
    want = jax.tree.map(divide, rnn(join(x), join(lengths)))
    same(rnn(x, lengths), want)
    again = jax.eval_shape(lambda: rnn(x, lengths, initial_state=want[0])[0])
    assert again.shape == (2, ROWS, UNITS)
    time_first = make("RNN", GRUCell(UNITS), inputs=x[0], time_major=True)
    got = time_first(np.moveaxis(x, 2, 0), lengths, params=rnn.params)
    same(got, jnp.moveaxis(want[1], 2, 0))


@pytest.mark.fast("InLinen")
@both
def test_dtypes(make):
    rnn = make("RNN", GRUCell(UNITS), dtype=jnp.bfloat16)
    kernel = rnn.params["gru_cell"]["gates"]["kernel"]
    of = lambda run, *given: jax.eval_shape(lambda: run(*given))
    assert (kernel.dtype, of(rnn, X).dtype) == (jnp.float32, jnp.bfloat16)
    ids = np.zeros(X.shape, np.int32)  # An explicit dtype also casts integers.
    assert of(rnn, ids).dtype == jnp.bfloat16
    half = make("RNN", GRUCell(UNITS), param_dtype=jnp.bfloat16, return_carry=True)
    assert half.params["gru_cell"]["gates"]["kernel"].dtype == jnp.bfloat16
    # The widest of both, as in Flax.
    state, outputs = of(half, X)
    assert outputs.dtype == state.dtype == jnp.float32
    assert of(half, X.astype(jnp.bfloat16))[1].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="must be floating-point"):
        half(ids)


# Random numbers.


def draws(params, inputs, state, key=None):
    state = state + inputs
    if key is not None:
        state = state + jax.random.normal(key, state.shape, state.dtype)
    return state, state


@pytest.mark.fast("None-InLinen", "False-InNnx")
@both
@pytest.mark.parametrize("declared", [None, False])
def test_the_key_of_a_call(declared, make):
    """A cell that declares nothing gets the keys that are there."""
    quiet = jnp.cumsum(X, 1)
    rnn = make("RNN", FunctionCell(draws, DEPTH, DEPTH, is_random=declared))
    one, other, again = (rnn(X, key=key) for key in (*KEYS, KEYS[0]))
    same(one, again)
    assert jnp.allclose(one, quiet) == jnp.allclose(one, other) == (declared is False)
    same(rnn(X, deterministic=True), quiet)


def test_a_missing_stream_of_keys():
    loud = FunctionCell(draws, DEPTH, DEPTH, is_random=True)
    rnn_of_nnx = in_nnx("RNN", loud, DEPTH)
    with pytest.raises(TraceContextError) as caught:
        jax.jit(lambda x: rnn_of_nnx(x))(X)
    assert "`rngs=key`" in caught.value.__notes__[0]
    with pytest.raises(InvalidRngError, match="dropout"):
        InLinen("RNN", loud)(X)
    with pytest.raises(KeyError, match="'dropout'"):
        jaxrnn.nnx.RNN(loud, DEPTH, rngs=nnx.Rngs(params=0))


def reads_key(cell, inputs):
    """Whether the results of a step depend on its key, so that `vmap` batches them."""
    params = drawn(cell, inputs, X.dtype)
    rows = jax.tree.leaves(inputs)[0].shape[0]
    state = cell.zero_state(rows, X.dtype)
    step = lambda key, *args: cell.apply(*args, key)
    of_keys = jax.vmap(step, (0, None, None, None), out_axes=None)
    try:
        jax.eval_shape(of_keys, KEYS, params, inputs, state)
    except ValueError as error:
        return "out_axes" in str(error)
    return False


@pytest.mark.fast("dropout*", "multi*", "*lstm*")
@pytest.mark.parametrize("name", [n for n in CASES if n != "attention"])  # No zeros.
def test_cells_declare_whether_they_read_their_key(name):
    cell = CASES[name].cell
    assert cell.is_random in (None, reads_key(cell, CASES[name].inputs))


def test_each_direction_has_its_own_key():
    rnn = in_nnx("Bidirectional", NOISY, NOISY, DEPTH)
    pair = zip(rnn.get_cells(), range(2), strict=True)
    cells = [c.cell.bind(c.params, jax.random.fold_in(KEYS[0], i)) for c, i in pair]
    outputs, _ = jaxrnn.bidirectional_dynamic_rnn(*cells, X, dtype=X.dtype)
    want = jnp.concatenate(outputs, -1)
    same(rnn(X, rngs=KEYS[0]), want)
    linen = jaxrnn.linen.Bidirectional(NOISY, NOISY)
    variables = linen.variables_of(*rnn.get_cells())
    run = lambda module, x, key: module(x, rngs=key)
    same(linen.apply(variables, X, KEYS[0], method=run), want)


def test_nnx_draws_from_its_own_stream():
    rnn = in_nnx("RNN", NOISY, DEPTH)
    run = nnx.jit(lambda rnn, x: rnn(x))
    assert not np.allclose(run(rnn, X), run(rnn, X))
    rnn.eval()
    same(run(rnn, X), run(rnn, X))
    same(nnx.view(in_nnx("RNN", NOISY, DEPTH), deterministic=True)(X), run(rnn, X))
    # In a closure of JAX the stream's count cannot change, but a key can be passed.
    closed = jax.jit(lambda x, key: rnn(x, rngs=key))
    same(closed(X, KEYS[0]), rnn(X, rngs=KEYS[0]))


# Transformations and what libraries show.


AXES = {"kernel": ("inputs", "hidden"), "bias": ("hidden",)}


def test_partitioned_parameters():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS), axis_names=AXES)
    variables = rnn.init(jax.random.key(0), X)
    specs = nn.get_partition_spec(variables)["params"]["lstm_cell"]
    assert specs == {name: jax.P(*axes) for name, axes in AXES.items()}
    same(rnn.apply(variables, X), rnn.apply(nn.meta.unbox(variables), X))
    with nnx.use_eager_sharding(False):
        rnn = in_nnx("RNN", LSTMCell(UNITS), DEPTH, axis_names=AXES)
    of_nnx = nnx.get_partition_spec(nnx.state(rnn, nnx.Param))["weights"]["lstm_cell"]
    assert {name: spec.get_value() for name, spec in of_nnx.items()} == specs
    assert rnn(X).shape == (ROWS, TIME, UNITS)


LSTM, GRU = LSTMCell(UNITS, forget_bias=0.0), GRUCell(3)
SIDE = [LSTM, MultiRNNCell([LSTM])]


@pytest.mark.parametrize("axis_names", [None, AXES])
def test_variables_of_cells_are_those_that_init_makes(axis_names):
    for kind, cells in ("RNN", [LSTM]), ("StackBidirectional", [SIDE, SIDE]):
        module = getattr(jaxrnn.linen, kind)(*cells, axis_names=axis_names)
        want = module.init(jax.random.key(0), X)
        bound = module.cells_of(want)
        got = module.variables_of(*(bound if isinstance(bound, tuple) else [bound]))
        assert_same(got, want)


def test_nnx_transformations_and_closures():
    rnn = in_nnx("RNN", LSTMCell(UNITS), DEPTH)
    loss = lambda rnn, x: jnp.sum(rnn(x, LENGTHS) ** 2)
    want = nnx.jit(loss)(rnn, X)
    same(jax.jit(lambda x: loss(rnn, x))(X), want)  # nnx's own RNN raises here.
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)
    plain = jax.jit(jax.grad(lambda p: loss(nnx.merge(graph, p, rest), X)))(params)
    same(nnx.to_pure_dict(nnx.jit(nnx.grad(loss))(rnn, X)), nnx.to_pure_dict(plain))


# Weights that come from elsewhere.


def bound(cell, depth=DEPTH, seed=0):
    step = jax.ShapeDtypeStruct((1, depth), X.dtype)
    return cell.bind(drawn(cell, step, X.dtype, seed))


# Modules, and cells with weights that they take: without their dropout, with other
# initializers, and in the lists of a converter.
GIVEN = {
    "dropout": (
        "RNN",
        [MultiRNNCell([DropoutWrapper(LSTM, 0.5), DropoutWrapper(GRU, 0.5)])],
        [bound(MultiRNNCell([LSTM, GRU]))],
    ),
    "two_ways": ("Bidirectional", [LSTM, LSTM], [[bound(LSTM)], [bound(LSTM, seed=1)]]),
    "layers": (
        "StackBidirectional",
        [[GRU, LSTM], [LSTM, GRU]],
        [[bound(GRU), bound(LSTM, 7)], [bound(LSTM, seed=1), bound(GRU, 7, 1)]],
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_modules_take_cells_with_weights(name):
    kind, own, given = GIVEN[name]
    linen, module = getattr(jaxrnn.linen, kind)(*own), in_nnx(kind, *own, DEPTH)
    module.set_cells(*given)
    again = in_nnx(kind, *own, DEPTH)
    again.set_cells(module.get_cells())
    cells = linen.cells_of(linen.variables_of(*given))
    inverse = linen.cells_of(linen.variables_of(cells))
    for got in (cells, inverse, module.get_cells(), again.get_cells()):
        same(jax.tree.leaves(got), jax.tree.leaves(given), rtol=0)
        cells = jax.tree.leaves(got, is_leaf=lambda leaf: hasattr(leaf, "params"))
        assert [bound.cell for bound in cells] == jax.tree.leaves(own)


def test_weights_are_kept_in_the_dtype_and_on_the_device_of_the_module():
    half, device = jnp.dtype(jnp.bfloat16), jax.devices()[1]
    rnn = in_nnx("RNN", GRU, DEPTH, param_dtype=half)
    nnx.update(rnn, jax.device_put(nnx.state(rnn), device))
    rnn.set_cells(jax.tree.map(np.asarray, bound(GRU)))
    leaves = jax.tree.leaves(rnn.get_cells())
    assert {(leaf.dtype, leaf.device) for leaf in leaves} == {(half, device)}


# Wrong arguments.

OWN = bound(GRU)
linen, nnx_rnn = jaxrnn.linen, functools.partial(in_nnx, "RNN")


def in_rnn(*args, cell=GRU, **kwargs):
    return nnx_rnn(cell, DEPTH)(*args, **kwargs)


def set_cells(cell):
    nnx_rnn(GRU, DEPTH).set_cells(cell)


VALUE, TYPE = ValueError, TypeError
ALIVE, TWICE = X[..., 0] > 0, linen.Bidirectional(GRU, GRU)


test_wrong_arguments = helpers.refusals([
    # Cells and options.
    (VALUE, "`cell`", lambda: nn.RNN(linen.Cell(NOISY)).init(KEYS[0], X)),
    (VALUE, "`axis_names", lambda: nnx_rnn(GRU, DEPTH, axis_names={"kernal": ("a",)})),
    # Arguments of a call.
    (VALUE, "`sequence_length`|`seq_lengths`", lambda: in_rnn(X, LENGTHS[None, None])),
    (TYPE, "`mask=`", lambda: in_rnn(X, ALIVE)),
    (TYPE, "`rngs`", lambda: in_rnn(X, cell=NOISY, rngs=3)),
    # Cells with weights, and what belongs to Flax.
    (VALUE, "kernel", lambda: set_cells(bound(GRU, 3))),
    (VALUE, "direction", lambda: TWICE.variables_of(OWN)),
    (TYPE, "`get_cells", lambda: to_tf1(nnx_rnn(GRU, DEPTH))),
    (TYPE, "`module`", lambda: linen.as_cell(nn.Dense(3))),
])  # fmt: skip
