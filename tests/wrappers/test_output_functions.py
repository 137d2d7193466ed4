"""Functions between the cells of a stack, as separate runs with functions between."""

import functools
import operator
import re

import flax.nnx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, assert_same, bound, differentiated, draw, drawn

import jaxrnn
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, convert, decode, export

F64 = jnp.float64
X = draw(3, 6, 3)
LENGTHS = np.array([6, 4, 1])
PADDED = np.where(np.arange(6)[None, :, None] < LENGTHS[:, None, None], X, np.nan)
WEIGHTS = draw(4, 2)
LOWER, UPPER = LSTMCell(4), GRUCell(5)
near = functools.partial(assert_near, tolerance=1e-12)


def of_unit_length(x):
    """The gradient is NaN for zeros, which finished rows output."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def per_row(x):
    """A function that reads an array of one number for each row of the batch."""
    return x * np.array([[1.0], [-2.0], [3.0]])


FUNCTIONS = {
    "relu": [jax.nn.relu],
    "unit": [of_unit_length],
    "per_row": [per_row],
    "shape": [jnp.tanh, lambda x: jnp.concatenate([x, x * 2], axis=-1)],
}


def compose(functions):
    return lambda x: functools.reduce(lambda x, fn: fn(x), functions, x)


def params_of(functions, lower=LOWER):
    """The parameters of the two cells, without the stack."""
    between = jax.eval_shape(compose(functions), X[:, 0, :1] * np.ones(4))
    return {"cell_0": drawn(lower, X[:, 0]), "cell_1": drawn(UPPER, between)}


def two_runs(functions, params, x, lengths, lower=LOWER, last=lambda x: x, **options):
    """Two calls of `dynamic_rnn`, with the functions between and after them."""
    options |= {"dtype": x.dtype}
    run = lambda cell, own, x: jaxrnn.dynamic_rnn(cell.bind(own), x, lengths, **options)
    outputs, state = run(lower, params["cell_0"], x)
    if lengths is not None:  # A row's first output in place of the zeros.
        valid = np.arange(x.shape[1]) < lengths[:, None]
        outputs = jnp.where(valid[..., None], outputs, outputs[:, :1])
    mapped = jnp.stack([compose(functions)(x) for x in jnp.unstack(outputs, axis=1)], 1)
    outputs, other = run(UPPER, params["cell_1"], mapped)
    outputs = last(outputs)
    if lengths is not None:
        outputs = jnp.where(valid[..., None], outputs, 0)
    return outputs, (state, other)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_separate_runs(name, lengths):
    functions = FUNCTIONS[name]
    stack = MultiRNNCell([LOWER, *functions, UPPER, jnp.cos])
    params, x = params_of(functions), X if lengths is None else PADDED

    def run(params, x):
        return jaxrnn.dynamic_rnn(stack.bind(params), x, lengths, dtype=F64)

    got = differentiated(run, params, x)
    wanted = lambda *given: two_runs(functions, *given, lengths, last=jnp.cos)
    near(got, differentiated(wanted, params, x))
    near(jax.jit(run)(params, x), got[0])
    twice = lambda tree: jax.tree.map(lambda x: jnp.stack([x, x]), tree)
    near(jax.vmap(run)(twice(params), twice(x)), twice(got[0]))


@pytest.mark.loops
@pytest.mark.parametrize("implementation", ["xla", None])
@pytest.mark.parametrize("time_major", [False, True])
def test_cells_run_in_their_own_loops(implementation, time_major):
    """In float32, in which there are native loops."""
    x = np.float32(X.swapaxes(0, 1) if time_major else X)
    lower, options = jaxrnn.ResidualWrapper(LSTMCell(3)), {"dtype": jnp.float32}
    options |= {"time_major": time_major, "implementation": implementation}
    args = x, LENGTHS
    plain = bound(MultiRNNCell([lower, UPPER]), dtype="float32")
    stack = MultiRNNCell([lower, jax.nn.relu, UPPER]).bind(plain.params)
    explained = [jaxrnn.explain(cell, *args, **options) for cell in (plain, stack)]
    assert explained[0].loop == explained[1].loop != "scan"
    assert "output_fn=relu" in repr(explained[1])
    got = jaxrnn.dynamic_rnn(stack, *args, **options)
    want = jaxrnn.dynamic_rnn(stack, *args, **options | {"implementation": "scan"})
    assert_near(got, want, tolerance=1e-5)


def test_gradients_reach_an_array_that_a_function_reads():
    """A dense layer between two cells, also if parts are recomputed."""
    params = params_of([lambda x: x @ WEIGHTS])

    def run(weights, params, **options):
        stack = MultiRNNCell([LOWER, lambda x: x @ weights, UPPER])
        return jaxrnn.dynamic_rnn(stack.bind(params), X, LENGTHS, dtype=F64, **options)

    wanted = lambda w, params: two_runs([lambda x: x @ w], params, X, LENGTHS)
    want = differentiated(wanted, WEIGHTS, params)
    near(differentiated(run, WEIGHTS, params), want)
    parts = functools.partial(run, swap_memory=jaxrnn.memory.Recompute(2))
    near(differentiated(jax.jit(parts), WEIGHTS, params), want)


def test_parameters_and_states_are_those_of_the_cells():
    plain = MultiRNNCell([LOWER, GRUCell(4), UPPER])
    stack = MultiRNNCell([LOWER, jnp.tanh, jnp.cos, plain.cells[1], UPPER, jnp.sin])
    key = jax.random.key(0)
    assert_same(stack.init(key, X[:, 0]), plain.init(key, X[:, 0]))
    assert_same(stack.zero_state(3, F64), plain.zero_state(3, F64))
    assert (stack.state_size, stack.output_size) == (plain.state_size, 5)
    shared = MultiRNNCell([UPPER, jnp.tanh, UPPER])
    with pytest.warns(UserWarning, match="share parameters"):
        assert list(shared.init(key, draw(3, 5))) == ["cell_0"]
    joined = MultiRNNCell([UPPER, jnp.tanh, UPPER], state_is_tuple=False)
    assert joined.state_size == 10


def test_a_stack_is_compared_by_its_functions():
    stack = MultiRNNCell([LOWER, jax.nn.relu, UPPER])
    assert stack == MultiRNNCell([LOWER, jax.nn.relu, UPPER])
    assert stack != MultiRNNCell([LOWER, jnp.tanh, UPPER])
    same = lambda: MultiRNNCell([LOWER, lambda x: x, UPPER])
    assert same() != same()
    assert stack.bind({}).shares_programs
    assert not same().bind({}).shares_programs


class ByHand(jaxrnn.RNNCell):
    """The stack `[lower, fn, upper]`, as a user writes its step."""

    state_size, output_size = (LOWER.state_size, 5), 5

    def init(self, key, inputs, dtype=None):
        raise NotImplementedError

    def apply(self, params, inputs, state, key=None):
        output, lower = LOWER.apply(params["cell_0"], inputs, state[0])
        output = per_row(output)
        output, upper = UPPER.apply(params["cell_1"], output, state[1])
        return output, (lower, upper)


STACK = MultiRNNCell([LOWER, per_row, UPPER])


def in_raw_rnn(cell):
    x = jnp.swapaxes(X, 0, 1)
    return helpers.in_raw_rnn(cell, x, cell.zero_state(3, F64), np.int32(LENGTHS))


def layers(cell):
    """Two layers of two directions."""
    low, high = [cell, cell], [bound(GRUCell(2), 10), bound(GRUCell(2), 10)]
    run = jaxrnn.stack_bidirectional_dynamic_rnn
    return run(
        *map(list, zip(low, high, strict=True)),
        PADDED,
        dtype=F64,
        sequence_length=LENGTHS,
    )


def greedy(cell):
    table = draw(7, 3)
    model = decode.Model(
        cell,
        embed=lambda ids: jnp.asarray(table)[ids],
        project=lambda y: y @ draw(5, 7),
        initial_state=cell.zero_state(3, F64),
        start_ids=np.array([1, 2, 3]),
        eos_id=0,
    )
    return decode.greedy(model, max_length=5)


def stream(cell):
    streamer = export.Streamer(cell, 3, F64)
    return [streamer(x) for x in X.swapaxes(0, 1)], streamer.state


DRIVERS = {
    "static_rnn": lambda cell: jaxrnn.static_rnn(
        cell, list(PADDED.swapaxes(0, 1)), dtype=F64, sequence_length=LENGTHS
    ),
    "raw_rnn": in_raw_rnn,
    "bidirectional": lambda cell: jaxrnn.bidirectional_dynamic_rnn(
        cell, cell, PADDED, LENGTHS, dtype=F64
    ),
    "layers": layers,
    "greedy": greedy,
    "stream": stream,
    "resets": lambda cell: jaxrnn.dynamic_rnn(
        cell, X, resets=np.arange(6) % 3 == [[0], [1], [2]], dtype=F64
    ),
    "states": lambda cell: jaxrnn.dynamic_rnn(
        cell, X, mask=np.arange(6) % 2 == [[0], [1], [0]], dtype=F64, return_states=True
    ),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_runs_it_as_a_step_by_hand(name):
    params = params_of([per_row])
    near(*(DRIVERS[name](cell.bind(params)) for cell in (STACK, ByHand())))


def test_a_wrapper_drops_and_adds_around_it():
    stack = MultiRNNCell([LOWER, lambda x: x[:, :3]])
    cell = jaxrnn.ResidualWrapper(jaxrnn.DropoutWrapper(stack, 0.5, seed=1))
    params, key = {"cell_0": drawn(LOWER, X[:, 0])}, jax.random.key(0)
    given = cell.bind(params, key), X, LENGTHS
    run = functools.partial(jaxrnn.dynamic_rnn, *given, dtype=F64)
    near(run(), run(implementation="scan"))


@pytest.mark.loops
def test_a_residual_function_keeps_the_loop_of_the_cell():
    cell = jaxrnn.ResidualWrapper(
        LSTMCell(3), lambda x, y: of_unit_length(per_row(y)) + x
    )
    own = drawn(cell, X[:, 0])
    run = lambda own, **options: jaxrnn.dynamic_rnn(
        cell.bind(own), PADDED, LENGTHS, dtype=F64, **options
    )
    scan = functools.partial(run, implementation="scan")
    near(differentiated(run, own), differentiated(scan, own))
    assert jaxrnn.explain(cell.bind(own), X, dtype=F64).loop == "xla"


def test_a_module_has_the_parameters_of_the_cells():
    model = jaxrnn.nnx.RNN(STACK, 3, param_dtype=F64, rngs=nnx.Rngs(0))
    bound_stack = STACK.bind(params_of([per_row]))
    model.set_cells(bound_stack)
    want = jaxrnn.dynamic_rnn(bound_stack, PADDED, LENGTHS, dtype=F64)[0]
    near(model(PADDED, LENGTHS), want)


@pytest.mark.slow
def test_rows_divided_over_an_explicit_mesh():
    stack = bound(MultiRNNCell([LOWER, of_unit_length, LSTMCell(3)]))
    x, lengths = draw(8, 6, 3), np.arange(1, 9)
    run = lambda stack, x: jaxrnn.dynamic_rnn(stack, x, lengths, dtype=F64)
    results = jax.jit(lambda *given: helpers.squared(run, *given))
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    divided = jax.device_put(x, jax.NamedSharding(mesh, jax.P("rows")))
    with jax.set_mesh(mesh):
        got = jax.device_get(results(stack, divided))
    near(got, jax.device_get(results(stack, x)))


@pytest.mark.slow
def test_programs_hold_the_function():
    x = np.float32(X)
    stack = bound(MultiRNNCell([LOWER, jax.nn.relu, LSTMCell(2)]), dtype="float32")
    run = lambda x: jaxrnn.dynamic_rnn(stack, x, dtype=jnp.float32)[0]
    want = run(x)
    again = jax.export.deserialize(bytearray(export.to_stablehlo(run, x)))
    assert_near(again.call(x), want, tolerance=1e-6)


class Unhashable(functools.partial):
    """A function that compares by value."""

    __hash__ = None


def ran(*above):
    """A stack of `LOWER` and a function, or of a function and `UPPER`."""
    stack = MultiRNNCell([LOWER, *above])
    params = {k: v for k, v in params_of([]).items() if k < f"cell_{len(stack.cells)}"}
    return jaxrnn.dynamic_rnn(stack.bind(params), X, dtype=F64)


RELU = bound(MultiRNNCell([LOWER, jax.nn.relu, LSTMCell(2)]), dtype="float32")
SIGMOID = bound(MultiRNNCell([LOWER, jax.nn.sigmoid, LSTMCell(2)]), dtype="float32")
REFUSED = {
    "`<lambda>` must return arrays [3, ...] for the output of `LSTMCell(num_units=4, "
    "activation=tanh)`, got float64[1, 4]": lambda: ran(lambda x: x[:1], UPPER),
    "activation=tanh)`, got float64[]": lambda: ran(lambda x: x.sum()),
    "`<lambda>` must return arrays [batch, ...] for the output of `LSTMCell(": (
        lambda: MultiRNNCell([LOWER, lambda x: x.sum()]).output_size
    ),
    "activation=tanh)`, got 1.0": lambda: ran(lambda x: 1.0, UPPER),
    "activation=tanh)`, got None": lambda: ran(lambda x: None, UPPER),
    "activation=tanh)`, got (float64[3, 4], None)": lambda: ran(lambda x: (x, None)),
    "(for a `MultiRNNCell`, in the last entry of `cells`)": (
        lambda: ran(lambda x: x.astype(jnp.float32))
    ),
    "`cells[1]` must be a function of JAX arrays, got <ufunc 'tanh'>. Pass `jnp.": (
        lambda: ran(np.tanh)
    ),
    "`residual_fn` must be a function of JAX arrays, got <ufunc 'add'>. Pass `jnp.": (
        lambda: jaxrnn.ResidualWrapper(LOWER, np.add)
    ),
    "`activation` must be None, a name or a function of JAX arrays": (
        lambda: GRUCell(2, activation=np.square)
    ),
    "Write it in JAX.": lambda: ran(np.frompyfunc(abs, 1, 1)),
    "`cells[1]` must be a hashable function that supports weak references": (
        lambda: ran(operator.itemgetter(0))
    ),
    "as JAX requires, got Unhashable": lambda: ran(Unhashable(jnp.tanh)),
    "`cells[0]` must be a cell, not a function": lambda: MultiRNNCell(
        [jnp.tanh, LOWER]
    ),
    "To map the cell's output by a module, pass `lambda y: module(y)`": (
        lambda: MultiRNNCell([LOWER, flax.nnx.Linear(4, 3, rngs=flax.nnx.Rngs(0))])
    ),
    "`cells[1]` must be an RNNCell": lambda: MultiRNNCell([LOWER, RELU, UPPER]),
    "`cells[1]` must be a function, got the class dict": lambda: ran(dict),
    "`cell.cells[0]` must be one of": lambda: export.to_onnx(SIGMOID),
    "output_fn=relu)": lambda: convert.to_torch(RELU),
}


test_refuses = helpers.refusals(REFUSED.items(), "message call", re.escape)


def test_an_error_of_a_cell_names_the_function_below():
    with pytest.raises(ValueError, match="floating-point") as caught:
        ran(lambda x: x.astype(int), UPPER)
    note = "`cells[1]` with `params['cell_1']`. Its inputs are what `<lambda>` returns."
    assert any(note in each for each in caught.value.__notes__)
