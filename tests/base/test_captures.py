"""A function that reads more than its arguments never gives a stale result."""

import dataclasses
import functools
import types

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicRNNCell, FunctionCell
from jaxrnn._base.captures import UnknownCaptureError, find_captures

X = np.ones((2, 3, 3), np.float32)
SCALE = 2.0
HOLDER = types.SimpleNamespace(scale=2.0)
MODULE = types.ModuleType("settings_of_this_test")


def run(cell, params=None):
    outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params or {}), X, dtype=jnp.float32)
    return float(outputs[0, -1, 0])


def by_global(params, inputs, state, key=None):
    return inputs * SCALE, state


def by_object(params, inputs, state, key=None):
    return inputs * HOLDER.scale, state


def by_module(params, inputs, state, key=None):
    return inputs * MODULE.scale, state


def by_another(params, inputs, state, key=None):
    return by_global(params, inputs, state)


def by_a_lambda(params, inputs, state, key=None):
    return jax.vmap(lambda x: x * SCALE)(inputs), state


def by_an_attribute(params, inputs, state, key=None):
    return inputs * by_an_attribute.scale, state


@dataclasses.dataclass(frozen=True, eq=False)
class OwnCell(jaxrnn.RNNCell):
    """Reads an attribute of its class."""

    scale = 2.0
    state_size = output_size = 3

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs * self.scale, state


def of_closure(scale):
    box = [scale]

    def step(params, inputs, state, key=None):
        return inputs * box[0], state

    def change(scale):
        box[0] = scale

    return FunctionCell(step, 3, 3), change


def of(function, owner, name):
    return FunctionCell(function, 3, 3), lambda scale: setattr(owner, name, scale)


def of_method():
    class Net:
        scale = 2.0

        def step(self, params, inputs, state, key=None):
            return inputs * self.scale, state

    net = Net()
    return of(net.step, net, "scale")


def of_partial():
    holder = types.SimpleNamespace(scale=2.0)
    step = lambda holder, params, x, s, key=None: (x * holder.scale, s)
    return of(functools.partial(step, holder), holder, "scale")


def of_jitted():
    holder = types.SimpleNamespace(scale=2.0)
    step = lambda params, x, s, key=None: (jax.jit(lambda x: x * holder.scale)(x), s)
    return of(step, holder, "scale")


def of_globals(function):
    return FunctionCell(function, 3, 3), lambda v: globals().update(SCALE=v)


CASES = {
    "a global": lambda: of_globals(by_global),
    "another function's global": lambda: of_globals(by_another),
    "a global in a lambda": lambda: of_globals(by_a_lambda),
    "an object": lambda: of(by_object, HOLDER, "scale"),
    "a module": lambda: of(by_module, MODULE, "scale"),
    "a function's attribute": lambda: of(by_an_attribute, by_an_attribute, "scale"),
    "a class attribute": lambda: (OwnCell(), lambda v: setattr(OwnCell, "scale", v)),
    "a list in a closure": lambda: of_closure(2.0),
    "a bound method": of_method,
    "a partial function": of_partial,
    "a function compiled inside": of_jitted,
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_what_a_function_reads_is_seen(name):
    cell, change = CASES[name]()
    change(2.0)
    assert run(cell) == run(cell) == 2
    change(5.0)
    assert run(cell) == 5
    assert run(jaxrnn.MultiRNNCell([cell]), {"cell_0": {}}) == 5
    change(2.0)
    assert run(cell) == 2


def test_an_activation_that_reads_an_object():
    holder = types.SimpleNamespace(scale=1.0)
    cell = BasicRNNCell(3, activation=lambda x: x * holder.scale)
    bound = cell.bind(cell.init(jax.random.key(0), X[:, 0]))
    once = jaxrnn.dynamic_rnn(bound, X[:, :1], dtype=jnp.float32)[0]
    holder.scale = 2.0
    twice = jaxrnn.dynamic_rnn(bound, X[:, :1], dtype=jnp.float32)[0]
    np.testing.assert_array_equal(twice, 2 * once)


def test_a_module_that_trains_eagerly():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 3, rngs=rngs)

        def step(self, params, inputs, state, key=None):
            h = self.linear(inputs) + state
            return h, h

        def __call__(self, x):
            cell = FunctionCell(self.step, 3, 3).bind({})
            return jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float32)[0]

    net = Net(nnx.Rngs(0))
    loss = lambda net: (net(X) ** 2).mean()
    losses = []
    for _ in range(3):
        value, grads = nnx.value_and_grad(loss)(net)
        nnx.update(net, jax.tree.map(lambda p, g: p - 0.01 * g, nnx.state(net), grads))
        losses.append(float(value))
    assert losses[0] > losses[1] > losses[2]


def test_a_traced_array_in_an_object_does_not_outlive_its_trace():
    holder = types.SimpleNamespace()
    step = lambda params, x, s, key=None: (x @ holder.w, s)
    cell = FunctionCell(step, 3, 3).bind({})

    def loss(w):
        holder.w = w
        return jaxrnn.dynamic_rnn(cell, X, dtype=jnp.float32)[0].sum()

    w = jnp.ones((3, 3), jnp.float32)
    for _ in range(2):
        np.testing.assert_array_equal(jax.grad(loss)(w), np.full((3, 3), 6))


PURE = {
    "an activation by name": jaxrnn.LSTMCell(3, activation="relu"),
    "an initializer": jaxrnn.LSTMCell(3, initializer=jax.nn.initializers.normal(0.1)),
    "an activation of JAX": jaxrnn.GRUCell(3, activation=jax.nn.gelu),
    "a partial function of JAX": jaxrnn.GRUCell(
        3, activation=functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    ),
    "a function that reads a number": FunctionCell(by_global, 3, 3),
    "sizes": FunctionCell(by_a_lambda, jaxrnn.TensorShape([3]), 3),
    "wrappers": jaxrnn.MultiRNNCell([jaxrnn.DropoutWrapper(jaxrnn.GRUCell(3), 0.5)]),
    "a cell of Flax": jaxrnn.linen.as_cell(flax.linen.LSTMCell(3)),
    "a class": OwnCell(),
}


@pytest.mark.parametrize("name", PURE)
def test_what_reads_only_its_arguments_shares_a_program(name):
    captures = find_captures(PURE[name])
    assert captures == find_captures(PURE[name])
    hash(captures)


def test_a_function_with_an_assertion():
    """Pytest's assertions refer to a module whose `__getattr__` raises."""

    def check(x):
        assert x is not None

    with pytest.raises(UnknownCaptureError):
        find_captures(check)


REFUSED = {
    "NumPy's array": np.ones(2),
    "an array": jnp.ones(2),
    "an object": object(),
    "attributes": HOLDER,
    "an iterator": iter([]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_change_unseen_is_refused(name):
    value = REFUSED[name]
    with pytest.raises(UnknownCaptureError):
        find_captures(lambda: value)
