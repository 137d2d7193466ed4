"""Functions between the cells of a stack, as separate runs with functions between."""

import functools
import re

import flax.nnx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, draw, drawn

import jaxrnn
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, convert

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


# Functions between two cells, which may read an array of weights.
FUNCTIONS = {
    "relu": lambda weights: [jax.nn.relu],
    "dense": lambda weights: [lambda x: x @ weights, of_unit_length],
    "shape": lambda weights: [jnp.tanh, lambda x: jnp.concatenate([x, x * 2], axis=-1)],
}


def compose(functions):
    return lambda x: functools.reduce(lambda x, fn: fn(x), functions, x)


def params_of(functions):
    """The parameters of the two cells, without the stack."""
    between = jax.eval_shape(compose(functions), X[:, 0, :1] * np.ones(4))
    return {"cell_0": drawn(LOWER, X[:, 0]), "cell_1": drawn(UPPER, between)}


def two_runs(functions, params, x, lengths):
    """Two calls of `dynamic_rnn`, with the functions between them, and a cosine."""
    run = lambda cell, own, x: jaxrnn.dynamic_rnn(
        cell.bind(own), x, lengths, dtype=x.dtype
    )
    outputs, state = run(LOWER, params["cell_0"], x)
    if lengths is not None:  # A row's first output in place of the zeros.
        valid = np.arange(x.shape[1]) < lengths[:, None]
        outputs = jnp.where(valid[..., None], outputs, outputs[:, :1])
    mapped = jax.vmap(compose(functions), in_axes=1, out_axes=1)(outputs)
    outputs, other = run(UPPER, params["cell_1"], mapped)
    outputs = jnp.cos(outputs)
    if lengths is not None:
        outputs = jnp.where(valid[..., None], outputs, 0)
    return outputs, (state, other)


@pytest.mark.fast("dense-lengths")
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "lengths"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_separate_runs(name, lengths):
    """Gradients reach an array that a function reads, also if parts are recomputed."""
    functions, x = FUNCTIONS[name], X if lengths is None else PADDED

    def run(weights, params, x, strategy):
        stack = MultiRNNCell([LOWER, *functions(weights), UPPER, jnp.cos])
        options = {"dtype": F64, "swap_memory": strategy}
        return jaxrnn.dynamic_rnn(stack.bind(params), x, lengths, **options)

    def wanted(weights, *given):
        return two_runs(functions(weights), *given, lengths)

    given = WEIGHTS, params_of(functions(WEIGHTS)), x
    want = differentiated(wanted, *given)
    recomputed = functools.partial(run, strategy=jaxrnn.memory.Recompute(2))
    near(differentiated(recomputed, *given), want)


@pytest.mark.loops
def test_cells_run_in_their_own_loops():
    """In float32, in which there are native loops."""
    lower = jaxrnn.ResidualWrapper(LSTMCell(3))
    options = {"time_major": True, "dtype": jnp.float32}
    args = np.float32(X.swapaxes(0, 1)), LENGTHS
    plain = bound(MultiRNNCell([lower, UPPER]), dtype="float32")
    stack = MultiRNNCell([lower, jax.nn.relu, UPPER]).bind(plain.params)
    explained = [jaxrnn.explain(cell, *args, **options) for cell in (plain, stack)]
    assert explained[0].loop == explained[1].loop != "scan"
    assert "output_fn=relu" in repr(explained[1])
    got = jaxrnn.dynamic_rnn(stack, *args, **options)
    want = jaxrnn.dynamic_rnn(stack, *args, **options | {"implementation": "scan"})
    assert_near(got, want, tolerance=1e-5)


def test_a_stack_is_compared_by_its_functions():
    stack = MultiRNNCell([LOWER, jax.nn.relu, UPPER])
    assert stack == MultiRNNCell([LOWER, jax.nn.relu, UPPER])
    assert stack != MultiRNNCell([LOWER, jnp.tanh, UPPER])
    same = lambda: MultiRNNCell([LOWER, lambda x: x, UPPER])
    assert same() != same()
    assert stack.bind({}).shares_programs
    assert not same().bind({}).shares_programs


@pytest.mark.slow
def test_a_wrapper_drops_and_adds_around_it():
    stack = MultiRNNCell([LOWER, lambda x: x[:, :3]])
    cell = jaxrnn.ResidualWrapper(jaxrnn.DropoutWrapper(stack, 0.5, seed=1))
    params, key = {"cell_0": drawn(LOWER, X[:, 0])}, jax.random.key(0)
    given = cell.bind(params, key), X, LENGTHS
    run = functools.partial(jaxrnn.dynamic_rnn, *given, dtype=F64)
    near(run(), run(implementation="scan"))


@pytest.mark.loops
@pytest.mark.slow
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


def ran(*above):
    """A stack of `LOWER` and a function, or of a function and `UPPER`."""
    stack = MultiRNNCell([LOWER, *above])
    params = {k: v for k, v in params_of([]).items() if k < f"cell_{len(stack.cells)}"}
    return jaxrnn.dynamic_rnn(stack.bind(params), X, dtype=F64)


RELU = bound(MultiRNNCell([LOWER, jax.nn.relu, LSTMCell(2)]), dtype="float32")
REFUSED = {
    "`<lambda>` must return arrays [3, ...] for the output of `LSTMCell(num_units=4, "
    "activation=tanh)`, got float64[1, 4]": lambda: ran(lambda x: x[:1], UPPER),
    "(for a `MultiRNNCell`, in the last entry of `cells`)": (
        lambda: ran(lambda x: x.astype(jnp.float32))
    ),
    "`cells[1]` must be a function of JAX arrays, got <ufunc 'tanh'>. Pass `jnp.": (
        lambda: ran(np.tanh)
    ),
    "`cells[0]` must be a cell, because it is the first entry": lambda: MultiRNNCell(
        [jnp.tanh, LOWER]
    ),
    "To map the cell's output by a module, pass `lambda y: module(y)`": (
        lambda: MultiRNNCell([LOWER, flax.nnx.Linear(4, 3, rngs=flax.nnx.Rngs(0))])
    ),
    "output_fn=relu)": lambda: convert.to_torch(RELU),
}


test_refuses = helpers.refusals(REFUSED.items(), "message call", re.escape)


def test_an_error_of_a_cell_names_the_function_below():
    with pytest.raises(ValueError, match="floating-point") as caught:
        ran(lambda x: x.astype(int), UPPER)
    note = "`params['cell_1']`. The cell's inputs are results of `<lambda>`."
    assert any(note in each for each in caught.value.__notes__)
