"""A function that reads more than its arguments never gives a stale result."""

import dataclasses
import enum
import functools
import logging
import sys
import types
from typing import NamedTuple

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxrnn._base.captures import UnknownCaptureError, find_captures

import jaxrnn
import jaxrnn.convert.equinox
import jaxrnn.linen
from jaxrnn import BasicRNNCell, FunctionCell

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


def of(function, owner, name, values=None):
    change = lambda v: setattr(owner, name, v if values is None else values[v])
    return FunctionCell(function, 3, 3), change


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


def doubled(x):
    return x * 2


def five_times(x):
    return x * 5


SCALED = doubled
SCALED_BY = {2.0: doubled, 5.0: five_times}


def by_a_function(params, inputs, state, key=None):
    return SCALED(inputs), state


def of_function():
    return FunctionCell(by_a_function, 3, 3), lambda v: globals().update(
        SCALED=SCALED_BY[v]
    )


def of_function_in_dict():
    functions = {}
    step = lambda params, x, s, key=None: (functions["f"](x), s)
    return FunctionCell(step, 3, 3), lambda v: functions.update(f=SCALED_BY[v])


def of_classes():
    classes = {}
    by_scale = {v: type("C", (), {"f": staticmethod(f)}) for v, f in SCALED_BY.items()}
    step = lambda params, x, s, key=None: (classes["c"].f(x), s)
    return FunctionCell(step, 3, 3), lambda v: classes.update(c=by_scale[v])


def of_code():
    scaled = lambda x: x * 2
    step = lambda params, x, s, key=None: (scaled(x), s)
    codes = {v: f.__code__ for v, f in ((2.0, scaled), (5.0, lambda x: x * 5))}
    return of(step, scaled, "__code__", codes)


def of_patched_method():
    class Patched(OwnCell):
        pass

    def method(f):
        return lambda self, params, inputs, state, key=None: (f(inputs), state)

    methods = {scale: method(f) for scale, f in SCALED_BY.items()}
    return Patched(), lambda v: setattr(Patched, "apply", methods[v])


def of_generated_class():
    namespace = {"__name__": "generated", "OwnCell": OwnCell, "SCALE": 2.0}
    source = (
        "class Generated(OwnCell):\n  def apply(self, params, x, state, key=None):\n"
    )
    exec(source + "    return x * SCALE, state", namespace)
    return namespace["Generated"](), lambda v: namespace.update(SCALE=v)


def of_made_dataclass():
    def apply(self, params, inputs, state, key=None):
        return inputs * SCALE, state

    made = dataclasses.make_dataclass(
        "Made", [], bases=(OwnCell,), frozen=True, eq=False, namespace={"apply": apply}
    )
    return made(), lambda v: globals().update(SCALE=v)


def of_decorator():
    class Scaled:
        scale = 2.0

        def __init__(self, function):
            functools.update_wrapper(self, function)

        def __call__(self, x):
            return self.__wrapped__(x) * self.scale

    scaled = Scaled(lambda x: x)
    return of(lambda params, x, s, key=None: (scaled(x), s), Scaled, "scale")


def of_attribute(base, *args):
    value = type("Value", (base,), {})(*args)
    value.scale = 2.0
    return of(lambda params, x, s, key=None: (x * value.scale, s), value, "scale")


class Mode(enum.Enum):
    A = "a"

    @property
    def scale(self):
        return SCALE


def of_enum():
    mode = Mode.A
    return of_globals(lambda params, x, s, key=None: (x * mode.scale, s))


def of_metaclass():
    metaclass = type("Meta", (type,), {"scale": property(lambda cls: SCALE)})
    cls = metaclass("Cls", (), {})
    return of_globals(lambda params, x, s, key=None: (x * cls.scale, s))


def of_descriptor():
    class Scaled:
        def __get__(self, owner, cls=None):
            return lambda x: x * SCALE

    class Described(OwnCell):
        __call__ = Scaled()

        def apply(self, params, inputs, state, key=None):
            return self.__call__(inputs), state

    return of_globals(Described().apply)


def of_sign():
    zeros = {2.0: 0.0, 5.0: -0.0}
    box = [0.0]
    of_sign = lambda x: jnp.where(jnp.signbit(x * box[0]), 5 * x, 2 * x)
    step = lambda params, x, s, key=None: (of_sign(x), s)
    return FunctionCell(step, 3, 3), lambda v: box.__setitem__(0, zeros[v])


def settings(monkeypatch, source):
    """A step in a package with the modules `p.p` and `p.steps`, and its `p.p`."""
    names = ("p_of_this_test", "p_of_this_test.p_of_this_test", "p_of_this_test.steps")
    package, inner, steps = map(types.ModuleType, names)
    for name, module in zip(names, (package, inner, steps), strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    package.__path__, package.p_of_this_test, steps.__package__ = [], inner, names[0]
    steps.p_of_this_test = package
    exec(f"def step(params, x, s, key=None):\n  {source}", vars(steps))
    return steps.step, inner


SOURCES = {
    "a module named like its package": (
        "return x * p_of_this_test.p_of_this_test.scale, s"
    ),
    "a name in a string": (
        "return x * getattr(p_of_this_test.p_of_this_test, 'scale'), s"
    ),
    "a module with __getattr__": "return x * p_of_this_test.p_of_this_test.size, s",
}
INSIDE = {
    "a relative import": "from .p_of_this_test import scale; return x * scale, s",
    "a module by relative import": (
        "from . import p_of_this_test as p; return x * p.scale, s"
    ),
    "importlib": (
        "from importlib import import_module as i; import importlib as m; "
        "return x * m.import_module('p_of_this_test.p_of_this_test').scale, s"
    ),
}


@pytest.mark.parametrize("name", [*SOURCES, *INSIDE])
def test_a_change_in_a_module_is_seen(name, monkeypatch):
    step, module = settings(monkeypatch, {**SOURCES, **INSIDE}[name])
    if name in INSIDE:
        del step.__globals__["p_of_this_test"]
    if "__getattr__" in name:

        def of_module(name):
            if name != "size":
                raise AttributeError(name)
            return module.scale

        module.__getattr__ = of_module
    for scale in (2.0, 5.0, 2.0):
        module.scale = scale
        assert run(FunctionCell(step, 3, 3)) == scale


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
    "another function": of_function,
    "a function in a dict": of_function_in_dict,
    "a class in a dict": of_classes,
    "a function's code": of_code,
    "a method of a class": of_patched_method,
    "a class without a file": of_generated_class,
    "a class by make_dataclass": of_made_dataclass,
    "a decorator's class": of_decorator,
    "an attribute of a dict": lambda: of_attribute(dict),
    "an attribute of a list": lambda: of_attribute(list),
    "an attribute of a float": lambda: of_attribute(float, 1.0),
    "a method of an enumeration": of_enum,
    "a property of a metaclass": of_metaclass,
    "a descriptor": of_descriptor,
    "the sign of zero": of_sign,
    "globals()": lambda: of_globals(
        lambda params, x, s, key=None: (x * globals()["SCALE"], s)
    ),
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


class Pair(NamedTuple):
    a: int
    b: int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class SlotsCell(jaxrnn.RNNCell):
    size: int = 3
    state_size = output_size = property(lambda self: self.size)

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state


def uses(*values):
    return FunctionCell(lambda params, x, s, key=None: (values and x, s), 3, 3)


PURE = {
    "a named tuple": uses(Pair, Pair(1, 2)),
    "an enumeration": uses(Mode, Mode.A),
    "a logger": uses(logging.getLogger("jaxrnn")),
    "a module of JAX": uses(jnp, jax.lax),
    "a sharding": uses(jax.sharding.PartitionSpec("x")),
    "slots": SlotsCell(),
    "a cell of Equinox": jaxrnn.convert.equinox.as_cell(
        equinox.nn.GRUCell(3, 3, key=jax.random.key(0)), 3
    ).cell,
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
