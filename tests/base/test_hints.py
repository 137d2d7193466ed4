"""Hints for unknown arguments, and the names of public functions and classes."""

import dataclasses
import functools
import inspect
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import contrib

X = np.ones((4, 5, 3), np.float32)
GRU = bound(jaxrnn.GRUCell(2), dtype="float32")
dynamic = functools.partial(jaxrnn.dynamic_rnn, GRU, X)
raw = functools.partial(jaxrnn.raw_rnn, GRU, lambda *args: None)
HINTS = {
    "renamed": (
        lambda: dynamic(lengths=None),
        "^`lengths` is not an argument of `dynamic_rnn`. Use `sequence_length`.$",
    ),
    "renamed_state": (lambda: dynamic(hx=None), "Use `initial_state`"),
    "elsewhere": (
        lambda: dynamic(batch_first=True),
        r"Inputs are `\[batch, time, \.\.\.\]` unless `time_major` is",
    ),
    "backwards": (
        lambda: dynamic(go_backwards=True),
        "Use `reverse_sequence`, or pass `reverse` to the module",
    ),
    "no_lengths": (lambda: raw(seq_lengths=None), "`dynamic_rnn` accepts lengths"),
    "limit": (lambda: raw(maximum_iterations=3), "Use `max_time`"),
    "unknown": (
        lambda: jaxrnn.static_rnn(GRU, list(X), foo=0),
        "^`foo` is not an argument of `static_rnn`.$",
    ),
    "misspelt": (
        lambda: jaxrnn.LSTMCell(2, use_peephole=True),
        "`use_peephole` is not an argument of `LSTMCell`. Did you mean `use_peep",
    ),
    "constructor": (
        lambda: jaxrnn.LSTMCell(hidden_size=2),
        "^`hidden_size` is not an argument of `LSTMCell`. Use `num_units`.$",
    ),
    "constructor_of_units": (lambda: contrib.CFNCell(features=2), "Use `units`"),
    "keras": (
        lambda: jaxrnn.GRUCell(2, kernel_init=None),
        "`kernel_init` is not an argument of `GRUCell`. Use `kernel_initializer`",
    ),
    "one_state_for_two": (
        lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, initial_state=X),
        "Did you mean `initial_state_fw`",
    ),
}


@pytest.mark.parametrize("name", HINTS)
def test_names_and_hints(name):
    call, message = HINTS[name]
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        call()
    assert raised.type in (TypeError, ValueError)


def test_errors_of_users_pass_unchanged():
    class MyError(TypeError):
        pass

    def cell_fails(*args):
        raise MyError("mine")

    with pytest.raises(MyError, match=r"^mine"):
        jaxrnn.raw_rnn(GRU, cell_fails)

    def refused_within(*args):
        return jaxrnn.TensorArray(jnp.float32, size=-1)

    with pytest.raises(ValueError, match=r"^`size` must"):
        jaxrnn.raw_rnn(GRU, refused_within)


def test_public_functions_keep_names_signatures_and_pickles():
    f = jaxrnn.dynamic_rnn
    assert f.__module__ == "jaxrnn"
    assert list(inspect.signature(f).parameters)[:3] == [
        "cell",
        "inputs",
        "sequence_length",
    ]
    assert pickle.loads(pickle.dumps(f)) is f


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
    assert of(Plain) == of(jaxrnn.LSTMCell)
    assert of(Scaled).endswith("scale: float = 1.0) -> None")
    assert of(Loose) == "(**sizes)"
    assert Loose(hidden_size=3).num_units == 3
    assert Scaled(4, scale=2.0) == dataclasses.replace(Scaled(4), scale=2.0)
    assert Scaled(3, "relu").activation is jaxrnn.GRUCell(3, "relu").activation
    with pytest.raises(AssertionError):
        Scaled(5)
    with pytest.raises(ValueError, match=r"^`num_units` must be at least 0"):
        Scaled(-1)
