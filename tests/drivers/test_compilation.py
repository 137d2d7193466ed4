"""Programs: equal cells share one, and it does not grow with the number of steps."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
import jaxrnn.nnx
from jaxrnn import BasicRNNCell, FunctionCell, GRUCell, LSTMCell

X = np.ones((4, 5, 3), np.float32)


def compiled(caplog, call):
    """The messages of JAX about the programs that a call compiles."""
    caplog.clear()
    with jax.log_compiles():
        jax.block_until_ready(call())
    return [text for text in caplog.messages if "XLA compilation" in text]


def outputs_of(bound, lengths=None, x=X, **options):
    return jaxrnn.dynamic_rnn(bound, x, lengths, dtype=jnp.float32, **options)[0]


RECOMPUTE = {"swap_memory": jaxrnn.memory.Recompute(3)}
CELU = LSTMCell(4, activation=jax.nn.celu, initializer=jax.nn.initializers.normal())


@pytest.mark.fast("*celu*")
@pytest.mark.parametrize("cell", [CELU, jaxrnn.MinGRUCell(2)], ids=str)
def test_a_second_eager_gradient_compiles_nothing(cell, caplog):
    run = lambda bound, n: outputs_of(bound, n, **RECOMPUTE).sum()
    loss = lambda params, n: run(cell.bind(params), n)
    of_lengths = lambda *n: jax.grad(loss)(drawn(cell, X[:, 0]), jnp.asarray(n))
    assert compiled(caplog, lambda: of_lengths(5, 0, 3, 1))
    assert not compiled(caplog, lambda: of_lengths(1, 2, 3, 4))


def test_programs_do_not_grow_with_time():
    cell = LSTMCell(4)
    params = drawn(cell, X[:, 0])
    loss = lambda params, x, n: outputs_of(cell.bind(params), n, x).sum()

    def lines(time):
        x = jax.ShapeDtypeStruct((4, time, 3), jnp.float32)
        lengths = jax.ShapeDtypeStruct((4,), jnp.int32)
        program = jax.jit(jax.grad(loss)).lower(params, x, lengths).as_text()
        return program.count("\n")

    assert lines(1000) == lines(500)


CELLS = {
    "lstm": LSTMCell(4, num_proj=2),
    "mingru": jaxrnn.MinGRUCell(4),
    "mlstm": jaxrnn.MLSTMCell(4, 2),
    "scan": GRUCell(4),
}


@pytest.mark.fast("lstm")
@pytest.mark.parametrize("name", CELLS)
def test_the_precision_of_products_reaches_all_of_them(name):
    """The loops of both passes. Sums by products are always exact."""
    cell, implementation = CELLS[name], "scan" if name == "scan" else "xla"

    def loss(params, x):
        outputs = outputs_of(cell.bind(params), x=x, implementation=implementation)
        return jnp.sum(outputs**2)

    params = drawn(cell, jax.ShapeDtypeStruct((4, 3), X.dtype))
    lower = lambda: jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, X)
    products = lambda text: re.findall(r"dot_general .*", text)
    exact = "precision = [HIGHEST, HIGHEST]"
    default = products(lower().as_text())
    assert sum(exact not in product for product in default) >= 3
    with jax.default_matmul_precision("highest"):
        found = products(lower().as_text())
    assert len(found) == len(default)
    assert all(exact in product for product in found)


# A cell whose initializers are new functions is equal to the one before.


FRESH = [GRUCell, LSTMCell, jaxrnn.MinGRUCell, jaxrnn.MLSTMCell]


@pytest.mark.fast("GRUCell", "LSTMCell")
@pytest.mark.parametrize("kind", FRESH, ids=lambda kind: kind.__name__)
def test_cells_with_new_initializers_share_programs(kind):
    (name, *_) = [f.name for f in dataclasses.fields(kind) if "initializer" in f.name]
    traced = []
    run = jax.jit(lambda bound: traced.append(bound) or jax.tree.leaves(bound)[0])
    for _ in range(2):
        cell = kind(3, **{name: jax.nn.initializers.normal(0.1)})
        run(cell.bind(drawn(cell, X[:, 0])))
    assert len(traced) == 1


# What changes between two calls must not be hidden by a program that equal cells share.

SCALE = 2.0


class Scaled:
    """A mutable callable object, and a mutable object with a method."""

    scale = 2.0

    def __call__(self, params, inputs, state, key=None):
        return inputs * self.scale, state

    def step(self, params, inputs, state, key=None):
        return self(params, inputs, state)


def of_global(params, inputs, state, key=None):
    return inputs * SCALE, state


class OwnCell(BasicRNNCell):
    """A subclass of a user, whose method reads what changes."""

    def apply(self, params, inputs, state, key=None):
        return of_global(params, inputs, state)


def cell_of(step):
    return FunctionCell(step, 3, 3)


CHANGING = {
    "object": lambda holder: cell_of(holder),
    "method": lambda holder: cell_of(holder.step),
    "closure": lambda holder: cell_of(lambda p, x, s, key=None: holder(p, x, s)),
    "global": lambda _: cell_of(of_global),
    "subclass": lambda _: OwnCell(3),
}


def run(cell):
    return outputs_of(cell.bind(cell.init(jax.random.key(0), X[:, 0])))[0, -1, 0]


def stream(cell):
    bound = cell.bind(cell.init(jax.random.key(0), X[:, 0]))
    return jaxrnn.export.Streamer(bound, 4)(X[:, 0])[0, 0]


@pytest.mark.fast("run-object", "run-subclass", "stream-object")
@pytest.mark.parametrize("make", CHANGING.values(), ids=CHANGING)
@pytest.mark.parametrize("run", [run, stream])
def test_a_value_that_changes_is_read_in_every_call(run, make, monkeypatch):
    holder = Scaled()
    assert run(make(holder)) == 2.0
    holder.scale = 3.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert run(make(holder)) == 3.0


def test_a_function_that_is_replaced_in_place():
    """`%autoreload` of IPython does so, also for what the function calls."""
    step = lambda params, x, state, key=None: (x * 2, state)
    calls = lambda params, x, state, key=None: step(params, x, state)
    assert run(cell_of(calls)) == 2.0
    step.__code__ = (lambda params, x, state, key=None: (x * 3, state)).__code__
    assert run(cell_of(calls)) == 3.0


def test_a_cell_that_closes_over_traced_arrays_is_forgotten():
    def total(memory):
        cell = FunctionCell(lambda p, x, s, key=None: (x + memory[None], s), 3, 3)
        return outputs_of(cell.bind({})).sum()

    with jax.checking_leaks():
        assert jax.jit(jax.grad(total))(jnp.ones(3, jnp.float32)).tolist() == [20] * 3
