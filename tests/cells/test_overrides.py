"""A class that overrides a method in vain is refused when it is defined."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest
from helpers import assert_near, refusals

import jaxrnn
from jaxrnn import LSTMCell, MultiRNNCell, RNNCell, contrib, extend, lite
from jaxrnn._run.loops import loops_of

MODULES = jaxrnn, contrib, extend, lite
CELLS = {
    cls
    for module in MODULES
    for cls in vars(module).values()
    if inspect.isclass(cls) and issubclass(cls, RNNCell) and cls is not RNNCell
}
MESSAGE = r"^Mine defines `{}`, but `{}` of \w+ does not use it\. Derive the class from"


def override(cls, name, value=lambda self, *args, **kwargs: None):
    return type("Mine", (cls,), {name: value})


@pytest.mark.parametrize("cls", sorted(CELLS, key=lambda cls: cls.__name__))
def test_no_override_of_a_step_is_bypassed(cls):
    """A class that may override its step runs whole sequences in a scan."""
    for name in ("apply", "step"):
        if cls.choose_loop is not RNNCell.choose_loop:
            with pytest.raises(TypeError, match=MESSAGE.format(name, r"\w+")):
                override(cls, name)
        else:
            mine = override(cls, name)
            assert mine.choose_loop is RNNCell.choose_loop
            assert loops_of(mine) is None
    for name in ("call", "__call__"):
        if cls.apply is not RNNCell.apply:
            with pytest.raises(TypeError, match=MESSAGE.format(name, "apply")):
                override(cls, name)


class Doubled:
    """A mixin with another `apply`."""

    def apply(self, params, inputs, state, key=None):
        output, state = super(type(self), self).apply(params, inputs, state, key)
        return 2 * output, state


class OwnLoop(LSTMCell):
    """An LSTM whose loop would run the steps of a subclass."""

    apply = LSTMCell.apply

    def choose_loop(self, params, run):
        return extend.Choice.scan("this class has its own loop")


class Wrapper(contrib.InputProjectionWrapper):
    """Another step and loop of a wrapper."""

    apply = Doubled.apply

    def choose_loop(self, params, run):
        return extend.Choice.scan("the outputs are doubled")


class FromOnes(LSTMCell):
    """Another zero state, which the class declares."""

    starts_from_zeros = False

    def zero_state(self, batch_size, dtype):
        return jax.tree.map(jnp.ones_like, super().zero_state(batch_size, dtype))


def test_a_class_that_also_overrides_what_is_used():
    """Sequences are run with the steps of the class."""
    x = jnp.ones((2, 4, 3))
    inner = jaxrnn.GRUCell(2)
    cells = Wrapper(inner, 3), contrib.InputProjectionWrapper(inner, 3)
    params = cells[0].init(jax.random.key(0), x[:, 0])
    run = lambda cell: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
    (mine, state), (outputs, want) = map(run, cells)
    assert_near((mine, state), (2 * outputs, want), tolerance=1e-12)
    cell = FromOnes(3)
    params = cell.init(jax.random.key(0), x[:, 0])
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind(params), x)
    resets = jnp.ones((2, 4), bool)
    ones = cell.zero_state(2, x.dtype)
    got = run(resets=resets, dtype=x.dtype)
    assert_near(got, run(None, ones, resets=resets, reset_state=ones), tolerance=1e-12)


@pytest.mark.loops
def test_a_mixin_with_another_step_is_scanned():
    class Mine(Doubled, LSTMCell):
        pass

    assert loops_of(Mine) is None
    assert loops_of(LSTMCell) is not None


def extended():
    class Mine(OwnLoop):
        def step(self, params, inputs, state):
            return state


REFUSALS = [
    (TypeError, "`step`, but `choose_loop`", extended),
    (TypeError, "`zero_state`", lambda: override(jaxrnn.GRUCell, "zero_state")),
    (TypeError, "`get_init", lambda: override(MultiRNNCell, "get_initial_state")),
]


test_refusals = refusals(REFUSALS)
