"""Hints, names of public functions and classes, and warnings at the user's line."""

import dataclasses
import functools
import inspect

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bound, refusals

import jaxrnn
from jaxrnn import GRUCell
from jaxrnn.export import to_onnx

X, KEY, WIDE = np.ones((4, 5, 3), np.float32), jax.random.key(0), "float64"
GRU = bound(GRUCell(2), dtype="float32")
dynamic = functools.partial(jaxrnn.dynamic_rnn, GRU, X)
static = functools.partial(jaxrnn.static_rnn, GRU, list(X))
both_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, X)
LSTM = jaxrnn.LSTMCell
HINTS = [
    ("^`lengths` .* Use `sequence_length`", lambda: dynamic(lengths=None)),
    ("^`sequence_length` .* Use `lengths`", lambda: to_onnx(GRU, sequence_length=X)),
    (r"`batch_first` .*\[batch, time", lambda: dynamic(batch_first=True)),
    ("`go_backwards` .* Use `reverse_sequence`", lambda: dynamic(go_backwards=True)),
    ("`LSTMCell`. .* `use_peepholes`", lambda: LSTM(2, use_peephole=1)),
    ("`initial_state` .* `initial_state_fw`", lambda: both_ways(initial_state=X)),
]
test_names_and_hints = refusals(HINTS, "message call")


def test_errors_of_users_pass_unchanged():
    error = TypeError("mine")

    def fails(*args):
        raise error

    with pytest.raises(TypeError, match=r"^mine") as caught:
        jaxrnn.raw_rnn(GRU, fails)
    assert caught.value is error
    with pytest.raises(ValueError, match=r"^`size` must"):
        jaxrnn.raw_rnn(GRU, lambda *args: jaxrnn.TensorArray(jnp.float32, size=-1))


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(jaxrnn.GRUCell):
    """A subclass with one more field, and a check after the inherited ones."""

    scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        assert self.num_units < 5


class Plain(jaxrnn.LSTMCell):
    """A subclass that is not a dataclass."""


class Loose(jaxrnn.LSTMCell):
    """A custom constructor that accepts any name."""

    def __init__(self, **sizes):
        super().__init__(sizes["hidden_size"])


def test_constructors_of_users_cells():
    of = lambda cell: str(inspect.signature(cell))
    assert of(Plain) == of(LSTM)
    assert of(Scaled).endswith(
        "scale: float = 1.0, *, project_inputs: bool = True) -> None"
    )
    assert of(Loose) == "(**sizes)"
    assert Loose(hidden_size=3).num_units == 3
    assert Scaled(4, scale=2.0) == dataclasses.replace(Scaled(4), scale=2.0)
    assert Scaled(3, "relu").activation is GRUCell(3, "relu").activation
    with pytest.raises(AssertionError):
        Scaled(5)
    with pytest.raises(ValueError, match=r"^`num_units` must be at least 0"):
        Scaled(-1)


# Warnings, which name the line of the user's code.


class Module(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        return jaxrnn.linen.RNN(GRUCell(2), dtype=WIDE)(x)


def run(x):
    return jaxrnn.dynamic_rnn(GRU, x, dtype=WIDE)


def run_nnx():
    module = jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=nnx.Rngs(0), param_dtype=WIDE)
    return nnx.jit(lambda module, x: module(x))(module, X)


WARNED = {
    "dynamic_rnn": lambda: run(X),
    "static_rnn": lambda: static(dtype=WIDE),
    "jit": lambda: jax.jit(run)(X),
    "constructor": lambda: GRUCell(2, dtype=WIDE),
    "TensorArray": lambda: jaxrnn.TensorArray(WIDE, 2),
    "linen": lambda: jax.jit(Module().init)(KEY, X),
    "nnx": run_nnx,
}


@pytest.mark.fast("dynamic*", "jit", "static_rnn", "constr*", "Tensor*", "linen")
@pytest.mark.parametrize("call", WARNED.values(), ids=WARNED)
def test_a_warning_names_the_line_of_the_user(call):
    text = "`(param_)?dtype` is float64, but JAX uses float32"
    with jax.enable_x64(False), pytest.warns(UserWarning, match=text) as caught:
        call()
    assert {warning.filename for warning in caught} == {__file__}


def test_a_dtype_that_python_or_an_array_brings_is_not_warned_of():
    with jax.enable_x64(False):
        dynamic(dtype=float)
        GRUCell(2).init(KEY, X[:, 0].astype(WIDE))
        GRUCell(2).get_initial_state(X[:, 0].astype(WIDE))
