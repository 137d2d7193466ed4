"""Warnings, which name the line of the user's code."""

import flax.linen
import jax
import numpy as np
import pytest
from flax import nnx
from helpers import bound

import jaxrnn
from jaxrnn import GRUCell, contrib

X = np.ones((2, 3, 4), np.float32)
WIDE = "float64"


class Module(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        return jaxrnn.linen.RNN(GRUCell(2), dtype=WIDE)(x)


def run(x):
    return jaxrnn.dynamic_rnn(bound(GRUCell(2), 4, "float32"), x, dtype=WIDE)


def run_module(make):
    return nnx.jit(lambda module, x: module(x))(make(), X)


KEY = jax.random.key(0)
PROGRAMS = {
    "dynamic_rnn": lambda: run(X),
    "jit": lambda: jax.jit(run)(X),
    "vmap and grad": lambda: jax.vmap(jax.grad(lambda x: run(x)[0].sum()))(X[None]),
    "constructor": lambda: GRUCell(2, dtype=WIDE),
    "method": lambda: GRUCell(2).init(KEY, X[:, 0], WIDE),
    "wrapper": lambda: contrib.HighwayWrapper(GRUCell(4)).init(KEY, X[:, 0], WIDE),
    "TensorArray": lambda: jaxrnn.TensorArray(WIDE, 2),
    "linen": lambda: jax.jit(Module().init)(KEY, X),
    "nnx": lambda: run_module(
        lambda: jaxrnn.nnx.RNN(GRUCell(2), 4, rngs=nnx.Rngs(0), param_dtype=WIDE)
    ),
    "nnx call": lambda: run_module(
        lambda: jaxrnn.nnx.RNN(GRUCell(2), 4, rngs=nnx.Rngs(0), dtype=WIDE)
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_warning_names_the_line_of_the_user(name):
    text = "`(param_)?dtype` is float64, but JAX uses float32"
    with jax.enable_x64(False), pytest.warns(UserWarning, match=text) as caught:
        PROGRAMS[name]()
    assert {warning.filename for warning in caught} == {__file__}


def test_code_without_a_module_is_warned():
    """Such code is run by `exec`, and has no `__name__`."""
    names = {"cell": GRUCell(2), "wide": WIDE}
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float64") as caught:
        exec("cell.zero_state(1, wide)", names)
    assert [warning.filename for warning in caught] == ["<string>"]
