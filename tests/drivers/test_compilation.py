"""Each shape compiles once, and programs do not grow with the number of steps."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, drawn

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell

X = np.ones((4, 5, 3), np.float32)


class Traces:
    """A cell that counts how often its step is traced."""

    def __init__(self):
        self.count = 0

    def __call__(self, params, inputs, state, key=None):
        self.count += 1
        return inputs * params["w"], state + inputs


def test_eager_calls_trace_once(caplog):
    def step(params, inputs, state, key=None):
        return inputs * params["w"], state + inputs

    cell, traced = FunctionCell(step, 3, 3), []
    for i in range(3):
        caplog.clear()
        with jax.log_compiles():
            params = {"w": jnp.float32(i)}
            jaxrnn.dynamic_rnn(cell.bind(params), X, [i, 1, 2, 3], dtype=jnp.float32)
        traced.append([m for m in caplog.messages if "jit(_run)" in m])
    assert traced[0]
    assert not traced[1]
    assert not traced[2]


def test_equal_cells_share_a_compilation():
    traced = []

    @jax.jit
    def run(cell, x, lengths):
        traced.append(cell)
        return jaxrnn.dynamic_rnn(cell, x, lengths, dtype=jnp.float32)[0]

    params = drawn(GRUCell(4), X[:, 0])
    for lengths in ([5, 0, 3, 1], [1, 1, 1, 1]):
        run(GRUCell(4).bind(params), X, jnp.asarray(lengths))
    assert len(traced) == 1
    run(GRUCell(4, activation="relu").bind(params), X, jnp.asarray([1] * 4))
    assert len(traced) == 2


def test_gradient_steps_trace_once():
    step = Traces()
    cell = FunctionCell(step, 3, 3)

    def loss(bound, lengths):
        outputs, state = jaxrnn.dynamic_rnn(bound, X, lengths, dtype=jnp.float32)
        return outputs.sum() + state.sum()

    bound = cell.bind({"w": jnp.float32(1)})
    update = jax.jit(lambda b, n: jax.tree.map(jnp.subtract, b, jax.grad(loss)(b, n)))
    bound = update(bound, jnp.asarray([5, 0, 3, 1]))
    traces = step.count
    update(bound, jnp.asarray([1, 2, 3, 4]))
    assert step.count == traces


def test_a_second_eager_gradient_compiles_nothing(caplog):
    cell = LSTMCell(4)
    params = drawn(cell, X[:, 0])

    def loss(params, lengths):
        bound = cell.bind(params)
        return jaxrnn.dynamic_rnn(bound, X, lengths, dtype=jnp.float32)[0].sum()

    compiled = []
    for lengths in ([5, 0, 3, 1], [1, 2, 3, 4]):
        caplog.clear()
        with jax.log_compiles():
            jax.block_until_ready(jax.grad(loss)(params, jnp.asarray(lengths)))
        compiled.append([m for m in caplog.messages if "XLA compilation" in m])
    assert compiled[0]
    assert not compiled[1]


def test_programs_do_not_grow_with_time():
    cell = LSTMCell(4)
    params = drawn(cell, X[:, 0])

    def program(time):
        def loss(params, x, lengths):
            bound = cell.bind(params)
            return jaxrnn.dynamic_rnn(bound, x, lengths, dtype=jnp.float32)[0].sum()

        shape = jax.ShapeDtypeStruct((4, time, 3), jnp.float32)
        lengths = jax.ShapeDtypeStruct((4,), jnp.int32)
        return jax.jit(jax.grad(loss)).lower(params, shape, lengths).as_text()

    assert program(1000).count("\n") == program(500).count("\n")


@pytest.mark.fast("highest-lstm", "float32-mlstm")
@pytest.mark.parametrize("name", ["lstm", "gru", "mingru", "mlstm", "slstm", "scanned"])
@pytest.mark.parametrize("precision", ["highest", "float32"])
def test_the_precision_of_products_reaches_all_of_them(precision, name):
    """The loops in the forward and backward passes."""
    cell = {
        "lstm": LSTMCell(4, num_proj=2),
        "gru": GRUCell(4),
        "mingru": jaxrnn.MinGRUCell(4),
        "mlstm": jaxrnn.MLSTMCell(4, 2),
        "slstm": jaxrnn.SLSTMCell(4, 2),
        "scanned": FunctionCell(GRUCell(4).apply, 4, 4, GRUCell(4).init),
    }[name]

    def loss(params, x):
        options = {"dtype": x.dtype, "implementation": "xla"}
        return jnp.sum(jaxrnn.dynamic_rnn(cell.bind(params), x, **options)[0] ** 2)

    params = drawn(cell, jax.ShapeDtypeStruct((4, 3), X.dtype))
    lower = lambda: jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, X)
    products = lambda text: re.findall(r"dot_general .*", text)
    exact = "precision = [HIGHEST, HIGHEST]"
    default = products(lower().as_text())
    assert not any(exact in product for product in default)
    with jax.default_matmul_precision(precision):
        found = products(lower().as_text())
    assert len(found) == len(default) >= 3
    assert all(exact in product for product in found)


def test_a_cell_that_closes_over_arrays_is_not_kept():
    """The cell is not cached: its traced arrays would outlive their trace."""

    def around(memory):
        def step(params, inputs, state, key=None):
            return inputs + memory[None], state

        return FunctionCell(step, 3, 3)

    kept = jaxrnn._drivers.run_batch._compiled_run._cache_size()

    def total(memory):
        bound = around(memory).bind({})
        return jaxrnn.dynamic_rnn(bound, X, dtype=jnp.float32)[0].sum()

    with jax.checking_leaks():
        assert jax.jit(jax.grad(total))(jnp.ones(3, jnp.float32)).tolist() == [20] * 3
    assert total(jnp.ones(3, jnp.float32)) == 2 * X.size
    assert jaxrnn._drivers.run_batch._compiled_run._cache_size() == kept


def test_a_run_and_its_gradients_are_exported_for_all_platforms():
    cell = jaxrnn.MultiRNNCell([LSTMCell(3, use_peepholes=True), GRUCell(3)])
    params = drawn(cell, X[:, 0])
    state = cell.zero_state(4, jnp.float32)
    lengths = jnp.asarray([5, 0, 3, 9], jnp.int32)

    def step(params, x, state, lengths):
        run = lambda params, x, state: jaxrnn.dynamic_rnn(
            cell.bind(params), x, lengths, state
        )
        return differentiated(run, params, x, state)

    given = params, jnp.asarray(X), state, lengths
    made = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(*given)
    assert_near(made.call(*given), step(*given), tolerance=1e-6)
