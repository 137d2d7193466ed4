"""Recurrent modules of linen and nnx behave like the drivers, or refuse arguments."""

import functools
import re

import chex
import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from cases import CASES
from flax import nnx
from flax.errors import InvalidRngError, TraceContextError
from flax.traverse_util import flatten_dict, unflatten_dict
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
    TensorShape,
    contrib,
)
from jaxrnn.convert import tf1

ROWS, TIME, DEPTH, UNITS = 3, 5, 2, 4
LENGTHS = jnp.asarray([5, 0, 3])
KEYS = jax.random.split(jax.random.key(3))
NOISY = DropoutWrapper(GRUCell(UNITS), 0.5, 0.5, 0.5)


draw = functools.partial(helpers.draw, dtype=np.float32)


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
        self.module = in_nnx(kind, *args, step, **kwargs)
        self.params = nnx.to_pure_dict(nnx.state(self.module.params))

    def __call__(self, *args, key=None, params=None, **kwargs):
        module = self.module
        if params is not None:
            graph, _, rest = nnx.split(module, nnx.Param, ...)
            module = nnx.merge(graph, nnx.State({"params": params}), rest)
        return module(*args, rngs=key, **kwargs)


def in_nnx(kind, *args, **kwargs):
    return getattr(jaxrnn.nnx, kind)(*args, rngs=nnx.Rngs(0), **kwargs)


both = pytest.mark.parametrize("make", [InLinen, InNnx])


def same(got, want, rtol=1e-5):
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_close(got, want, rtol=rtol, atol=1e-6)


def lstm(units):
    return {"lstm_cell": LSTMCell(units)}


def gru(units):
    return {"gru_cell": GRUCell(units)}


LAYERS = {
    "cell_0": {"fw": lstm(4), "bw": gru(2)},
    "cell_1": {"fw": gru(3), "bw": gru(3)},
}
# The cells of modules, in the nest of their parameters: under TensorFlow's names, which
# a wrapper has no part in.
MODULES = {
    "lstm": ("RNN", {"lstm_cell": LSTMCell(UNITS, use_peepholes=True, num_proj=3)}),
    "gru": ("RNN", {"cudnn_compatible_gru_cell": jaxrnn.CudnnCompatibleGRUCell(UNITS)}),
    "multi": ("RNN", {"multi_rnn_cell": MultiRNNCell([LSTMCell(3), GRUCell(UNITS)])}),
    "dropout": ("RNN", {"gru_cell": NOISY}),
    "two_ways": ("Bidirectional", {"fw": lstm(UNITS), "bw": gru(3)}),
    "layers": ("StackBidirectional", LAYERS),
}


def cells_in(kind, nest):
    """The cells of a nest, as the arguments of a module and of its driver."""
    if kind == "RNN":
        return list(nest.values())
    if kind == "Bidirectional":
        return [*nest["fw"].values(), *nest["bw"].values()]
    cells_of = lambda way: [c for layer in nest.values() for c in layer[way].values()]
    return [cells_of("fw"), cells_of("bw")]


def bound_as_in(module, kind, nest):
    """The cells of a module with its parameters, as the arguments of its driver."""
    bound = jax.tree.map(lambda cell, own: cell.bind(own), nest, module.params)
    return cells_in(kind, bound)


def run_driver(kind, cells, x, states=None, **options):
    """`(outputs, state)` of a module's drivers, and with `return_states` all states."""
    options["dtype"] = x.dtype
    if kind == "RNN":
        return jaxrnn.dynamic_rnn(*cells, x, initial_state=states, **options)
    layers, starts = [cells], [states or (None, None)]
    if kind == "StackBidirectional":
        layers = list(zip(*cells, strict=True))
        starts = starts * len(layers) if states is None else zip(*states, strict=True)
    results = []
    for (fw, bw), (start_fw, start_bw) in zip(layers, starts, strict=True):
        options |= {"initial_state_fw": start_fw, "initial_state_bw": start_bw}
        outputs, *states = jaxrnn.bidirectional_dynamic_rnn(fw, bw, x, **options)
        x = jnp.concatenate(outputs, -1)
        results.append(states)
    if kind == "Bidirectional":
        return x, *states
    of_layers = zip(*results, strict=True)
    return x, *(tuple(zip(*pairs, strict=True)) for pairs in of_layers)


@pytest.mark.fast("lstm-InLinen", "two_ways-InNnx", "layers-InNnx")
@both
@pytest.mark.parametrize("name", MODULES)
def test_modules_are_their_drivers(make, name):
    kind, nest = MODULES[name]
    module = make(kind, *cells_in(kind, nest))
    cells = bound_as_in(module, kind, nest)
    run = functools.partial(run_driver, kind, cells, X, sequence_length=LENGTHS)
    state, outputs = module(X, LENGTHS, return_carry=True, deterministic=True)
    same((outputs, state), run())
    # A state goes in as it came out.
    again = module(X, LENGTHS, initial_state=state, deterministic=True)
    same(again, run(states=state)[0])


@pytest.mark.fast("gru-InNnx", "two_ways-InLinen", "layers-InLinen")
@both
@pytest.mark.parametrize("name", ["gru", "two_ways", "layers"])
def test_masks_resets_and_states_of_all_steps(make, name):
    """Several batch axes; a reversed run enters a segment at its last step."""
    kind, nest = MODULES[name]
    module = make(kind, *cells_in(kind, nest), return_states=True)
    rng, x = np.random.default_rng(1), draw(2, 2, TIME, DEPTH)
    mask = rng.permuted(np.tile(np.arange(TIME) < 3, (2, 2, 1)), axis=-1)
    options = {"mask": mask, "resets": mask & (rng.random(mask.shape) < 0.4)}
    cells = bound_as_in(module, kind, nest)
    if kind == "RNN":
        state = jax.tree.map(lambda n: draw(2, 2, n), cells[0].state_size)
        options["reset_state"] = state
    join = lambda tree: jax.tree.map(lambda y: y.reshape(4, *y.shape[2:]), tree)
    want = run_driver(kind, cells, join(x), return_states=True, **join(options))
    in_flax_order = want[1], want[0], want[2]
    for return_carry in False, True:
        same(join(module(x, return_carry=return_carry, **options)), in_flax_order)
    outputs = jax.eval_shape(lambda: module(x, return_states=False))
    assert outputs.shape == (2, 2, *want[0].shape[1:])
    _, nothing, _ = module(x[..., :0, :], resets=mask[..., :0])
    assert nothing.shape == (2, 2, 0, *want[0].shape[2:])
    if kind == "Bidirectional":
        backward = make("RNN", GRUCell(3), reverse=True, keep_order=True)
        options |= {"return_states": True, "params": module.params["bw"]}
        outputs, state, states = want
        of_bw = state[1], outputs[..., UNITS:], states[1]
        same(join(backward(x, **options)), of_bw)


@both
def test_packs_run_with_lengths_and_resets(make):
    """Bit for bit as in `packed_rnn`, which restarts the states by itself."""
    packed = jaxrnn.pack_sequences(draw(6, TIME, DEPTH), [5, 2, 0, 1, 3, 2])
    rnn = make("RNN", GRUCell(UNITS), inputs=packed.inputs)
    bound = GRUCell(UNITS).bind(rnn.params["gru_cell"])
    want, _ = jaxrnn.packed_rnn(bound, packed, dtype=X.dtype)
    got = rnn(packed.inputs, packed.lengths, resets=packed.starts >= 0)
    assert packed.rows < 6
    np.testing.assert_array_equal(got, want)


def test_outputs_are_merged_and_either_state_may_be_left_out():
    rnn = InNnx("Bidirectional", GRUCell(3), GRUCell(3), merge=jnp.add)
    cells = rnn.module.get_cells()
    (fw, bw), _ = jaxrnn.bidirectional_dynamic_rnn(*cells, X, dtype=X.dtype)
    same(rnn(X), fw + bw)
    stack = InNnx("StackBidirectional", [GRUCell(3)] * 2, [GRUCell(3)] * 2)
    zeros = jnp.zeros((ROWS, 3))
    same(stack(X, initial_state=((None, zeros), (zeros, None))), stack(X))


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


def test_lengths_beyond_the_steps_and_no_lengths():
    module = InNnx("RNN", GRUCell(UNITS), reverse=True)
    # int32 of 2**32 is 0; NumPy's lengths are clamped before they are narrowed.
    for beyond in ([1000, 0, 3], np.array([2**32, 0, 3], np.int64)):
        same(module(X, beyond), module(X, [TIME, 0, 3]), rtol=0)
    assert module(X[:0], []).shape == (0, TIME, UNITS)


@pytest.mark.fast("InNnx")
@both
def test_any_number_of_batch_axes(make):
    """Flax's own crashes at lengths of two axes."""
    rnn = make("RNN", LSTMCell(UNITS), return_carry=True)
    x, lengths = draw(2, ROWS, TIME, DEPTH), jnp.asarray([[5, 0, 3], [1, 2, 9]])
    want = jax.vmap(rnn)(x, lengths)
    same(rnn(x, lengths), want)
    assert rnn(x, lengths, initial_state=want[0])[0].h.shape == (2, ROWS, UNITS)
    for given in ((), (2,)):
        rows = rnn(x[0, :1], *(np.array([n]) for n in given))
        same(rnn(x[0, 0], *given), jax.tree.map(lambda leaf: leaf[0], rows))
    options = {"time_major": True, "swap_memory": jaxrnn.memory.Recompute(2)}
    time_first = make("RNN", GRUCell(UNITS), inputs=x[0], **options)
    got = time_first(jnp.moveaxis(x, 2, 0), lengths)
    want = make("RNN", GRUCell(UNITS))(x, lengths, params=time_first.params)
    same(got, jnp.moveaxis(want, 2, 0))


@pytest.mark.fast("InLinen")
@both
def test_nests_of_inputs(make):
    cell, inputs = contrib.PhasedLSTMCell(UNITS), (jnp.cumsum(X[..., :1] ** 2, 1), X)
    rnn = make("RNN", cell, inputs=inputs)
    bound = cell.bind(*rnn.params.values())
    want, _ = jaxrnn.dynamic_rnn(bound, inputs, LENGTHS, dtype=X.dtype)
    same(rnn(inputs, LENGTHS), want)


@pytest.mark.fast("InLinen")
@both
def test_dtypes(make):
    rnn = make("RNN", GRUCell(UNITS), dtype=jnp.bfloat16)
    kernel = rnn.params["gru_cell"]["gates"]["kernel"]
    assert (kernel.dtype, rnn(X).dtype) == (jnp.float32, jnp.bfloat16)
    state = GRUCell(UNITS).zero_state(ROWS, jnp.float32)  # It is cast as inputs are.
    same(rnn(X, initial_state=state), rnn(X))
    half = make("RNN", GRUCell(UNITS), param_dtype=jnp.bfloat16, return_carry=True)
    assert half.params["gru_cell"]["gates"]["kernel"].dtype == jnp.bfloat16
    # The widest of both, as in Flax.
    state, outputs = half(X)
    assert outputs.dtype == state.dtype == jnp.float32
    assert half(X.astype(jnp.bfloat16))[1].dtype == jnp.bfloat16


def counts(params, inputs, state, key=None):
    assert inputs.dtype == jnp.int32
    state = state + jnp.sum(inputs, -1, keepdims=True).astype(state.dtype)
    return state, state


@pytest.mark.fast("InNnx")
@both
def test_integers_are_cast_to_an_explicit_dtype(make):
    ids = jnp.asarray(np.arange(ROWS * TIME * DEPTH).reshape(X.shape), jnp.int32)
    rnn = make("RNN", DropoutWrapper(LSTMCell(UNITS)), dtype=X.dtype, inputs=X)
    same(rnn(ids), rnn(ids.astype(X.dtype)))
    with pytest.raises(ValueError, match="must be floating-point"):
        make("RNN", LSTMCell(UNITS))(ids)
    rnn = make("RNN", FunctionCell(counts, 1, 1), dtype=X.dtype, inputs=ids)
    assert rnn(ids).dtype == X.dtype


# Random numbers.


def draws(params, inputs, state, key=None):
    state = state + inputs
    if key is not None:
        state = state + jax.random.normal(key, state.shape, state.dtype)
    return state, state


def test_a_cell_that_declares_nothing_gets_the_keys_that_are_there():
    quiet = jnp.cumsum(X, 1)
    undeclared = FunctionCell(draws, DEPTH, DEPTH)
    rnn = InLinen("RNN", undeclared)
    same(rnn(X), quiet)
    assert not jnp.allclose(rnn(X, key=KEYS[0]), quiet)
    # `make_rng` of linen falls back to the stream of parameters.
    variables = {"params": rnn.params}
    noisy = rnn.module.apply(variables, X, rngs={"params": KEYS[0]})
    assert not jnp.allclose(noisy, quiet)

    rnn = jaxrnn.nnx.RNN(undeclared, DEPTH, rngs=nnx.Rngs(params=0))
    same(rnn(X), quiet)
    assert not jnp.allclose(rnn(X, rngs=KEYS[0]), quiet)
    rnn = in_nnx("RNN", undeclared, DEPTH)
    assert not jnp.allclose(rnn(X), rnn(X))
    same(rnn(X, deterministic=True), quiet)
    with pytest.raises(TraceContextError) as caught:
        jax.jit(lambda x: rnn(x))(X)
    assert "Pass `rngs=key`" in caught.value.__notes__[0]


def test_a_cell_that_declares_itself():
    loud = FunctionCell(draws, DEPTH, DEPTH, is_random=True)
    with pytest.raises(InvalidRngError, match="dropout"):
        InLinen("RNN", loud)(X)
    with pytest.raises(KeyError, match="No RngStream named 'dropout'"):
        jaxrnn.nnx.RNN(loud, DEPTH, rngs=nnx.Rngs(params=0))
    calm = FunctionCell(draws, DEPTH, DEPTH, is_random=False)
    for make in (InLinen, InNnx):
        same(make("RNN", calm)(X, key=KEYS[0]), jnp.cumsum(X, 1))


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


@pytest.mark.parametrize("name", [n for n in CASES if n != "attention"])  # No zeros.
def test_cells_declare_whether_they_read_their_key(name):
    cell = CASES[name].cell
    assert cell.is_random in (None, reads_key(cell, CASES[name].inputs))


def test_wrappers_declare_what_their_cells_declare():
    function = FunctionCell(draws, DEPTH, DEPTH)
    drops = functools.partial(DropoutWrapper, GRUCell(UNITS))
    none = {"dropout_state_filter_visitor": lambda state: False}
    assert function.is_random is None
    assert MultiRNNCell([LSTMCell(UNITS), function]).is_random is None
    assert MultiRNNCell([function, NOISY]).is_random
    assert drops(1.0, 1, 1.0, seed=3).is_random is False
    assert drops(state_keep_prob=0.5, **none).is_random  # It may depend on the state.


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


def test_linen_draws_from_the_stream_or_is_deterministic():
    rnn = InLinen("RNN", NOISY)
    one, other, again = (rnn(X, key=key) for key in (*KEYS, KEYS[0]))
    same(one, again)
    assert not jnp.allclose(one, other)
    quiet = nn.remat(jaxrnn.linen.RNN)(NOISY, deterministic=True)
    without = quiet.apply({"params": rnn.params}, X)
    same(without, rnn(X, deterministic=True))
    assert not jnp.allclose(one, without)


def test_nnx_draws_from_its_own_stream():
    rnn = in_nnx("RNN", NOISY, DEPTH)
    run = nnx.jit(lambda rnn, x: rnn(x))
    assert not jnp.allclose(run(rnn, X), run(rnn, X))
    rnn.eval()
    same(run(rnn, X), run(rnn, X))
    rnn.train()
    assert not jnp.allclose(run(rnn, X), run(rnn, X))
    quiet = nnx.view(rnn, deterministic=True)
    same(quiet(X), quiet(X))
    same(nnx.view(quiet)(X), quiet(X))
    # In a closure of JAX the stream's count cannot change, but a key can be passed.
    closed = jax.jit(lambda x, key: rnn(x, rngs=key))
    same(closed(X, KEYS[0]), rnn(X, rngs=KEYS[0]))


# Transformations and what libraries show.


def test_linen_jit_and_vmap():
    x = draw(2, ROWS, TIME, DEPTH)
    axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    many = nn.vmap(nn.jit(jaxrnn.linen.RNN), in_axes=0, **axes)(GRUCell(UNITS))
    variables = many.init(jax.random.key(0), x)
    one = jaxrnn.linen.RNN(GRUCell(UNITS))
    same(many.apply(variables, x), jax.vmap(one.apply)(variables, x))


AXES = {"kernel": ("inputs", "hidden"), "bias": ("hidden",)}


def test_linen_partitioned():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS), axis_names=AXES)
    variables = rnn.init(jax.random.key(0), X)
    specs = nn.get_partition_spec(variables)["params"]["lstm_cell"]
    assert specs == {name: jax.P(*axes) for name, axes in AXES.items()}
    same(rnn.apply(variables, X), rnn.apply(nn.meta.unbox(variables), X))


LSTM, GRU = LSTMCell(UNITS, forget_bias=0.0), GRUCell(3)
SIDE = [LSTM, MultiRNNCell([LSTM])]


@pytest.mark.parametrize("cells", [[LSTM], [LSTM, LSTM], [SIDE, SIDE]])
@pytest.mark.parametrize("axis_names", [None, AXES, {"bias": ("hidden",)}])
def test_variables_of_cells_are_those_that_init_makes(cells, axis_names):
    module = of_linen(*cells, axis_names=axis_names)
    want = module.init(jax.random.key(0), X)
    bound = module.cells_of(want)
    cells = bound if isinstance(bound, tuple) else (bound,)
    got = module.variables_of(*cells)
    assert_same(got, want)
    same(module.apply(got, X), module.apply(want, X))


def test_nnx_partitioned():
    with nnx.use_eager_sharding(False):
        rnn = in_nnx("RNN", LSTMCell(UNITS), DEPTH, axis_names=AXES)
    specs = nnx.get_partition_spec(nnx.state(rnn, nnx.Param))
    kernel = specs["params"]["lstm_cell"]["kernel"]
    assert kernel.get_value() == jax.P("inputs", "hidden")
    assert rnn(X).shape == (ROWS, TIME, UNITS)


def test_nnx_shows_itself(capsys):
    rnn = in_nnx("RNN", LSTMCell(UNITS), DEPTH)
    nnx.display(rnn)
    shown = capsys.readouterr().out
    for text in ("RNN", "LSTMCell(num_units=4", "Param: 112", "shape=(6, 16)"):
        assert text in shown
    assert "112" in nnx.tabulate(rnn, X, console_kwargs={"width": 120})


def test_nnx_transformations_and_closures():
    rnn = in_nnx("RNN", LSTMCell(UNITS), DEPTH)
    loss = lambda rnn, x: jnp.sum(rnn(x, LENGTHS) ** 2)
    want = loss(rnn, X)
    same(nnx.jit(loss)(rnn, X), want)
    same(jax.jit(lambda x: loss(rnn, x))(X), want)  # nnx's own RNN raises here.
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)
    plain = jax.grad(lambda p: loss(nnx.merge(graph, p, rest), X))(params)
    same(nnx.to_pure_dict(nnx.grad(loss)(rnn, X)), nnx.to_pure_dict(plain))
    same(jax.vmap(lambda x: rnn(x[None])[0])(X), rnn(X))
    same(jax.checkpoint(lambda x: loss(rnn, x))(X), want)
    summed = jax.lax.scan(lambda c, x: (c + loss(rnn, x), None), 0.0, X[None])[0]
    same(summed.astype(want.dtype), want)


# Weights that come from elsewhere.


def bound(cell, depth=DEPTH, seed=0):
    step = jax.ShapeDtypeStruct((1, depth), X.dtype)
    return cell.bind(drawn(cell, step, X.dtype, seed))


def of_list(params, inputs, state, key=None):
    *parts, (scale,) = params
    shift = parts[10]["w"][None]
    state = jnp.tanh(inputs @ parts[0]["w"] + scale * state) + shift
    return state, state


def init_list(key, inputs, dtype):
    """More than ten entries, whose numbers sort otherwise as strings."""
    kernel = jnp.full((DEPTH, UNITS), 0.5, dtype)
    rest = [{"w": jnp.full((UNITS,), i, dtype)} for i in range(10)]
    return [{"w": kernel}, *rest, (jnp.ones((), dtype),)]


LECUN = jaxrnn.initializers.lecun_orthogonal()
OTHER_INIT = LSTMCell(UNITS, forget_bias=0.0, initializer=LECUN)
OF_LIST = FunctionCell(of_list, UNITS, UNITS, init_list)
# Modules, and cells with weights that they take: without their dropout, with other
# initializers, and in the lists of a converter.
GIVEN = {
    "dropout": (
        "RNN",
        [MultiRNNCell([DropoutWrapper(LSTM, 0.5), DropoutWrapper(GRU, 0.5)])],
        [bound(MultiRNNCell([LSTM, GRU]))],
    ),
    "initializer": ("RNN", [MultiRNNCell([OTHER_INIT])], [bound(MultiRNNCell([LSTM]))]),
    "lists": ("RNN", [OF_LIST], [bound(OF_LIST)]),
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


@both
def test_layers_that_are_one_object_are_warned_of(make):
    """They share parameters, as in TensorFlow, which the repr of the stack shows."""
    cell = GRUCell(DEPTH)
    with pytest.warns(UserWarning, match=r"layers of .*owners=\(0, 0\)\) are the same"):
        rnn = make("RNN", MultiRNNCell([cell, cell]))
    assert list(rnn.params["multi_rnn_cell"]) == ["cell_0"]
    make("StackBidirectional", [cell, cell], [cell, cell])  # Each has its own.
    assert "owners" not in repr(MultiRNNCell([cell, GRUCell(DEPTH)]))


@pytest.mark.fast("InLinen")
@both
def test_parameters_may_be_lists_and_tuples(make):
    rnn = make("RNN", OF_LIST)
    cell = OF_LIST.bind(init_list(None, None, X.dtype))
    want, _ = jaxrnn.dynamic_rnn(cell, X, LENGTHS, dtype=X.dtype)
    same(rnn(X, LENGTHS), want)


def without_parameters(*size):
    step = lambda params, x, s, key=None: (jnp.tanh(x + s),) * 2
    return FunctionCell(step, TensorShape(size), TensorShape(size))


@both
def test_layers_join_what_the_function_joins(make):
    """Outputs of several axes, in cells without parameters."""
    cells = [without_parameters(3, 2), without_parameters(6, 2)]
    x, own = draw(ROWS, TIME, 3, 2), [cell.bind({}) for cell in cells]
    run = functools.partial(jaxrnn.stack_bidirectional_dynamic_rnn, dtype=x.dtype)
    outputs, *states = run(own, own, x)
    assert outputs.shape == (ROWS, TIME, 12, 2)
    rnn = make("StackBidirectional", cells, cells, inputs=x, return_carry=True)
    same(rnn(x), (tuple(states), outputs))


PLAIN = without_parameters(DEPTH)
NO_PARAMETERS = {
    "RNN": jaxrnn.linen.RNN(PLAIN),
    "Bidirectional": jaxrnn.linen.Bidirectional(PLAIN, PLAIN),
    "StackBidirectional": jaxrnn.linen.StackBidirectional([PLAIN], [PLAIN]),
    "Cell": nn.RNN(jaxrnn.linen.Cell(PLAIN)),
}


@pytest.mark.parametrize("module", NO_PARAMETERS.values(), ids=NO_PARAMETERS)
def test_no_variables_for_no_parameters(module):
    want, _ = jaxrnn.dynamic_rnn(PLAIN.bind({}), X, dtype=X.dtype)
    for variables in ({}, {"params": {}}, module.init(KEYS[0], X)):
        same(module.apply(variables, X)[..., :DEPTH], want)


@pytest.mark.parametrize("kind", ["Bidirectional", "StackBidirectional"])
def test_empty_parameters_may_be_dropped(kind):
    """As by Flax's `flatten_dict`, beside a cell with parameters."""
    cells = [GRU], [PLAIN]
    given = cells if kind == "StackBidirectional" else (GRU, PLAIN)
    module = getattr(jaxrnn.linen, kind)(*given)
    variables = module.init(KEYS[0], X)
    dropped = unflatten_dict(flatten_dict(variables))
    assert jax.tree.structure(dropped) != jax.tree.structure(variables)
    same(module.apply(dropped, X), module.apply(variables, X))


def test_weights_are_kept_in_the_dtype_and_on_the_device_of_the_module():
    half, device = jnp.dtype(jnp.bfloat16), jax.devices()[1]
    rnn = in_nnx("RNN", GRU, DEPTH, param_dtype=half)
    nnx.update(rnn, jax.device_put(nnx.state(rnn), device))
    rnn.set_cells(jax.tree.map(np.asarray, bound(GRU)))
    leaves = jax.tree.leaves(rnn.get_cells())
    assert {(leaf.dtype, leaf.device) for leaf in leaves} == {(half, device)}


def test_what_orbax_restores(tmp_path):
    graph, state = nnx.split(in_nnx("RNN", LSTM, DEPTH))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(orbax.checkpoint.utils.to_shape_dtype_struct, state)
        restored = checkpointer.restore(tmp_path / "state", abstract)
    same(nnx.merge(graph, restored)(X), nnx.merge(graph, state)(X), rtol=0)


# Wrong arguments.

OWN = bound(GRU)
UNKNOWN = {"axis_names": {"kernal": ("inputs", "hidden")}}
WRONG_KEYS = "`axis_names` must have keys that ... ['bias', 'kernel'], got ['kernal']"
NO_KEYS = "`cell` must not draw random numbers, because ... Use `RNN` of `jaxrnn.linen`"
TWO_AXES = "`mask` must have the batch axes [1, 5] after the time axis, got"


def kind_of(cells):
    kind = "RNN" if len(cells) == 1 else "Bidirectional"
    return "StackBidirectional" if isinstance(cells[0], list) else kind


def of_nnx(*cells, **options):
    return in_nnx(kind_of(cells), *cells, DEPTH, **options)


def of_linen(*cells, **options):
    return getattr(jaxrnn.linen, kind_of(cells))(*cells, **options)


@functools.cache
def rnn():
    return of_nnx(GRU)


def init(module):
    return module.init(KEYS[0], X)


MEMORY = jaxrnn.DeltaMemoryCell(1, 2, 2)
SIZES = MEMORY.input_sizes


def as_cell(in_features=2):
    return jaxrnn.nnx.as_cell(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), in_features)


# A call, and its error, where "..." stands for any text. What messages advise, and so
# more of them, is in `tests/package/test_advice.py`.
REFUSALS = [
    # Cells and options.
    (lambda: of_nnx(as_cell().cell), "`as_cell` has already bound ... to `jaxrnn"),
    (lambda: init(nn.RNN(jaxrnn.linen.Cell(NOISY))), NO_KEYS),
    (lambda: of_nnx(GRU, num_layers=2), "`num_layers` is not an argument"),
    (lambda: of_nnx(GRU, reverse="no")(X), "`reverse` must be True or False, got 'no'"),
    (lambda: of_nnx(GRU, axis_names={"bias": (0, 0)}), "`axis_names['bias']` must"),
    (lambda: of_nnx(GRU, **UNKNOWN), WRONG_KEYS),
    (lambda: in_nnx("RNN", GRU, "2"), "`in_features` must be an array or"),
    (lambda: in_nnx("RNN", MEMORY, 3), "`inputs` must be a `DeltaInputs`"),
    (lambda: in_nnx("Cell", MEMORY, SIZES)(None, [X]), "one array [*batch, features]"),
    # Arguments of a call.
    (lambda: rnn()(X, LENGTHS[None, None]), "[*batch, time, ...] with 3 batch axes as"),
    (lambda: of_nnx(GRU, time_major=True)(X[:, None], mask=X[..., 0] > 0), TWO_AXES),
    (lambda: rnn()(X, X[..., 0] > 0), "must be integers, ... Pass a mask as `mask=`"),
    (lambda: of_nnx(NOISY)(X, rngs=3), "`rngs` must be nnx.Rngs, a stream or"),
    # Cells with weights, and what belongs to Flax.
    (lambda: rnn().set_cells(bound(GRU, 3)), "['kernel']` must have shape [5, 3], got"),
    (lambda: rnn().set_cells(bound(GRUCell(4))), "must bind the module's cell GRU"),
    (lambda: of_linen(GRU).variables_of(OWN, OWN), "1 bound cell, got [1, 1]. For sev"),
    (lambda: of_linen(GRU, GRU).variables_of(OWN), "for each direction, got [1]."),
    (lambda: tf1.save(GRU.bind(rnn().params["gru_cell"])), "not a variable of nnx"),
    (lambda: tf1.save(rnn()), "got RNN. For a module, pass `get_cells()` or"),
    (lambda: jaxrnn.linen.as_cell(nn.Dense(3)), "`module` must be a cell of linen"),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_wrong_arguments(call, message):
    match = ".*".join(map(re.escape, message.split("...")))
    with usual_promotion(), pytest.raises((TypeError, ValueError), match=match):
        call()


def test_other_features_than_the_module_has_are_noted():
    conv = nn.ConvLSTMCell(2, (3, 3))
    for call in (lambda: as_cell(5), lambda: jaxrnn.linen.as_cell(conv)):
        with usual_promotion(), pytest.raises((TypeError, ValueError)) as caught:
            call()
        note = r"Raised by a step with inputs \[1, \d\], which `in_features` sets"
        assert re.search(note, "\n".join(caught.value.__notes__))
