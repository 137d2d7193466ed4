"""Programs: equal cells share one, and it does not grow with the number of steps."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import drawn, scanned

import jaxrnn
from jaxrnn import BasicRNNCell, FunctionCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn._run.run_cell import _compiled

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
GRADED = [(LSTMCell(4), {}), (LSTMCell(4), RECOMPUTE), (jaxrnn.MinGRUCell(2), {})]
GRADED += [(jaxrnn.MLSTMCell(4, 2), {})]


@pytest.mark.fast("cell1*", "cell2*")
@pytest.mark.parametrize(("cell", "options"), GRADED)
def test_a_second_eager_gradient_compiles_nothing(cell, options, caplog):
    run = lambda bound, n: outputs_of(bound, n, **options).sum()
    loss = lambda params, n: run(cell.bind(params), n)
    of_lengths = lambda *n: jax.grad(loss)(drawn(cell, X[:, 0]), jnp.asarray(n))
    assert compiled(caplog, lambda: of_lengths(5, 0, 3, 1))
    assert not compiled(caplog, lambda: of_lengths(1, 2, 3, 4))


def test_a_second_eager_call_compiles_nothing_although_sizes_are_mutable(caplog):
    def step(params, inputs, state, key=None):
        return inputs * state["a"][0], state

    size = {"a": [3]}
    cell, same = (FunctionCell(step, size, 3) for _ in range(2))
    size["a"][0] = 4  # The cell keeps the original sizes.
    assert cell == same
    assert cell.state_size == {"a": [3]}
    assert compiled(caplog, lambda: outputs_of(cell.bind({}), [0, 1, 2, 3]))
    with jax.no_tracing():
        outputs_of(same.bind({}), [1, 1, 2, 3])


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
    "gru": GRUCell(4),
    "mingru": jaxrnn.MinGRUCell(4),
    "mlstm": jaxrnn.MLSTMCell(4, 2),
    "slstm": jaxrnn.SLSTMCell(4, 2),
    "scanned": scanned(GRUCell(4)),
}


@pytest.mark.fast("lstm", "mlstm")
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_precision_of_products_reaches_all_of_them(cell):
    """The loops in the forward and backward passes."""

    def loss(params, x):
        outputs = outputs_of(cell.bind(params), x=x, implementation="xla")
        return jnp.sum(outputs**2)

    params = drawn(cell, jax.ShapeDtypeStruct((4, 3), X.dtype))
    lower = lambda: jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, X)
    products = lambda text: re.findall(r"dot_general .*", text)
    exact = "precision = [HIGHEST, HIGHEST]"
    default = products(lower().as_text())
    assert not any(exact in product for product in default)
    with jax.default_matmul_precision("highest"):
        found = products(lower().as_text())
    assert len(found) == len(default) >= 3
    assert all(exact in product for product in found)


# Mutable objects that stay equal must not share one compilation across calls.


class Scaled:
    """A mutable callable object, and a mutable object with a method."""

    def __init__(self):
        self.scale = 2.0

    def __call__(self, params, inputs, state, key=None):
        return inputs * self.scale, state

    def step(self, params, inputs, state, key=None):
        return self(params, inputs, state)


def plain(params, inputs, state, key=None):
    return inputs * 2, state


def in_list(holder):
    values = [holder]
    return lambda params, inputs, state, key=None: values[0](params, inputs, state)


CHANGING = {
    "object": lambda holder: holder,
    "method": lambda holder: holder.step,
    "partial": lambda holder: functools.partial(Scaled.step, holder),
    "closure": lambda holder: lambda p, x, s, key=None: holder(p, x, s),
    "list": in_list,
    "default": lambda holder: lambda p, x, s, key=None, held=holder: held(p, x, s),
    "keyword": lambda holder: lambda p, x, s, *, key=None, held=holder: held(p, x, s),
}


class ScaledModule(nnx.Module):
    __init__ = Scaled.__init__
    __call__ = Scaled.__call__
    step = Scaled.step


class ScaledFloat(float):
    """A number with an attribute that changes."""

    __call__ = Scaled.__call__
    step = Scaled.step
    scale = 2.0


@pytest.mark.parametrize("step_of", CHANGING.values(), ids=CHANGING)
def test_an_attribute_that_changes_is_read_in_every_call(step_of):
    for make in (Scaled, ScaledModule, ScaledFloat):
        assert FunctionCell(step_of(make()), 3, 3).bind({}).version is None
    holder = Scaled()
    bound = FunctionCell(step_of(holder), 3, 3).bind({})
    assert outputs_of(bound)[0, -1, 0] == 2.0
    holder.scale = 3.0
    assert outputs_of(bound)[0, -1, 0] == 3.0


def test_a_closure_is_read_in_each_call():
    scaled = lambda x: x * 2
    step = lambda params, inputs, state, key=None: (scaled(inputs), state)
    bound = FunctionCell(step, 3, 3).bind({})
    assert outputs_of(bound)[0, -1, 0] == 2.0
    scaled = lambda x: x * 3
    assert outputs_of(bound)[0, -1, 0] == 3.0


REPLACED = {
    "__code__": (lambda p, x, s, key=None, scale=2.0, *, c=0.0: (x + 2, s)).__code__,
    "__defaults__": (None, 3.0),
    "__kwdefaults__": {"c": 1.0},
}


@pytest.mark.fast("step-*", "stream-__code__", "default-__code__")
@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("where", ["step", "stack", "default", "stream"])
def test_a_function_that_is_replaced_in_place(where, name):
    """`%autoreload` of IPython does so. A stream compiles its programs once."""
    step = lambda params, x, state, key=None, scale=2.0, *, c=0.0: (
        x * scale + c,
        state,
    )
    outer = lambda params, x, state, key=None, step=step: step({}, x, state)
    cell = FunctionCell(outer if where == "default" else step, 3, 3)
    cell = MultiRNNCell([cell]) if where == "stack" else cell
    bound = cell.bind(cell.init(jax.random.key(0), X[:, 0]))
    stream = lambda: jaxrnn.export.Streamer(bound, 4)(X[:, 0])[:, None]
    run = stream if where == "stream" else lambda: outputs_of(bound)
    assert run()[0, -1, 0] == 2.0
    setattr(step, name, REPLACED[name])
    assert run()[0, -1, 0] == 3.0


class OwnCell(BasicRNNCell):
    """A subclass of a user, whose methods may read what changes."""


def test_only_cells_that_cannot_change_share_a_program():
    for cell in (
        BasicRNNCell(3),
        BasicRNNCell(3, activation="relu"),
        GRUCell(3, kernel_initializer=jax.nn.initializers.orthogonal()),
        LSTMCell(3, name="a", dtype=jnp.float32),
        MultiRNNCell([BasicRNNCell(3)] * 2),
        FunctionCell(plain, 3, jaxrnn.TensorShape([3])),
        FunctionCell(plain, 3, [3, {"a": 3}]),
    ):
        assert cell.bind({}).version is not None
    assert OwnCell(3).bind({}).version is None


def test_a_cell_that_closes_over_arrays_is_not_kept():
    """The cell is not cached: its traced arrays would outlive their trace."""
    kept = _compiled._cache_size()

    def total(memory):
        cell = FunctionCell(lambda p, x, s, key=None: (x + memory[None], s), 3, 3)
        return outputs_of(cell.bind({})).sum()

    with jax.checking_leaks():
        assert jax.jit(jax.grad(total))(jnp.ones(3, jnp.float32)).tolist() == [20] * 3
    assert total(jnp.ones(3, jnp.float32)) == 2 * X.size
    assert _compiled._cache_size() == kept
