"""The boundary: public names on errors, and hints for unknown arguments."""

import dataclasses
import inspect
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import contrib, convert, decode, export, initializers, lite, memory, testing

X = np.ones((4, 5, 3), np.float32)
GRU = bound(jaxrnn.GRUCell(2), dtype="float32")
MODULES = [jaxrnn, contrib, decode, export, initializers, lite, memory, testing]
MODULES += [getattr(convert, name) for name in convert.__all__]
HINTS = {
    "renamed": (
        lambda: jaxrnn.dynamic_rnn(GRU, X, lengths=None),
        "^dynamic_rnn: `lengths` is not an argument. It is `sequence_length` here.$",
    ),
    "renamed_state": (
        lambda: jaxrnn.dynamic_rnn(GRU, X, hx=None),
        "It is `initial_state` here",
    ),
    "elsewhere": (
        lambda: jaxrnn.dynamic_rnn(GRU, X, batch_first=True),
        r"Inputs are `\[batch, time, \.\.\.\]` unless `time_major` is",
    ),
    "no_lengths": (
        lambda: jaxrnn.raw_rnn(GRU, lambda *args: None, seq_lengths=None),
        "`loop_fn` of `raw_rnn` returns `finished`: `time >= sequence_length`",
    ),
    "no_lengths_of_a_pack": (
        lambda: jaxrnn.packed_rnn(GRU, None, sequence_length=None),
        "^packed_rnn: .*`pack_sequences` stores lengths in a pack",
    ),
    "unknown": (
        lambda: jaxrnn.static_rnn(GRU, list(X), foo=0),
        "^static_rnn: `foo` is not an argument.$",
    ),
    "misspelt": (
        lambda: jaxrnn.LSTMCell(2, use_peephole=True),
        "^LSTMCell: `use_peephole` is not an argument. Did you mean `use_peepholes`?",
    ),
    "backwards": (
        lambda: jaxrnn.dynamic_rnn(GRU, X, go_backwards=True),
        "`reverse_sequence` reverses inputs and outputs",
    ),
    "limit": (
        lambda: jaxrnn.raw_rnn(GRU, lambda *args: None, maximum_iterations=3),
        "It is `max_time` here",
    ),
    "constructor": (
        lambda: jaxrnn.LSTMCell(hidden_size=2),
        "^LSTMCell: `hidden_size` is not an argument. It is `num_units` here.$",
    ),
    "constructor_of_units": (
        lambda: contrib.CFNCell(features=2),
        "It is `units` here",
    ),
    "keras": (
        lambda: jaxrnn.GRUCell(2, kernel_init=None),
        "`kernel_init` is not an argument. It is `kernel_initializer` here",
    ),
    "one_state_for_two": (
        lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, initial_state=X),
        "It is `initial_state_fw` here",
    ),
    "missing": (
        lambda: jaxrnn.GRUCell(2).bind(),
        r"^GRUCell\.bind: missing .*'params'\. `cell\.init\(key, inputs\)` creates",
    ),
    "module": (
        lambda: decode.greedy(GRU, None),
        "^decode.greedy: missing .* 'project'",
    ),
    "check": (
        lambda: jaxrnn.dynamic_rnn(GRU, X[0], dtype=jnp.float32),
        r"^dynamic_rnn: `inputs` must have rank at least 3",
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

    with pytest.raises(ValueError, match=r"^TensorArray: `size` must"):
        jaxrnn.raw_rnn(GRU, refused_within)


def test_all_public_functions_and_methods_are_at_the_boundary():
    def missing(name, value):
        if inspect.isfunction(value):
            return [] if hasattr(value, "is_at_boundary") else [name]
        if not inspect.isclass(value) or not value.__module__.startswith("jaxrnn"):
            return []
        methods = {n: m for n, m in vars(value).items() if inspect.isfunction(m)}
        return [
            f"{name}.{n}"
            for n, m in methods.items()
            if not n.startswith("_") and not hasattr(m, "is_at_boundary")
        ]

    names = {(m, n) for m in MODULES for n in m.__all__}
    found = (missing(f"{m.__name__}.{n}", getattr(m, n)) for m, n in names)
    assert [name for names in found for name in names] == []


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
    """A subclass with one more field."""

    scale: float = 1.0


def test_constructors_of_users_cells():
    assert str(inspect.signature(Scaled)).endswith("scale: float = 1.0) -> None")
    assert Scaled(4, scale=2.0) == dataclasses.replace(Scaled(4), scale=2.0)
    with pytest.raises(ValueError, match=r"^Scaled: `num_units` must be at least 0"):
        Scaled(-1)


def test_the_hint_of_raw_rnn_resets_rows():
    """It has the same outputs as `dynamic_rnn` with the same resets."""
    resets = np.random.default_rng(0).random((4, 5)) < 0.4
    x = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)

    def loop_fn(time, output, cell_state, loop_state):
        if output is None:
            cell_state = GRU.zero_state(4, jnp.float32)
        t = np.minimum(time, 4)
        state = jnp.where(resets[:, t, None], 0, cell_state)
        return time >= 5, x[:, t], state, output, None

    emit_ta, _, _ = jaxrnn.raw_rnn(GRU, loop_fn)
    want, _ = jaxrnn.dynamic_rnn(GRU, x, dtype=jnp.float32, resets=resets)
    got = jnp.swapaxes(emit_ta.stack(), 0, 1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
