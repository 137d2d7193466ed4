"""The choice of a loop, made before the loop is traced, and what `explain` says."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Around, drawn

import jaxrnn
from jaxrnn import contrib

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


class Twice(jaxrnn.LSTMCell):
    """A subclass with another `apply`."""

    def apply(self, params, inputs, state, key=None):
        output, state = super().apply(params, inputs, state, key)
        return 2 * output, state


class TwiceInStep(jaxrnn.LSTMCell):
    """A subclass with another `step`."""

    def step(self, params, inputs, state):
        output, state = super().step(params, inputs, state)
        return 2 * output, state


class FallsBack(Around):
    """A cell whose own loop is a scan, under a name of its own."""

    def choose_loop(self, params, run):
        return jaxrnn.Choice("mine", self.apply_sequence)

    def apply_sequence(self, params, run):
        return jaxrnn.RNNCell.apply_sequence(self, params, run)


class Seen:
    """A mixin whose loop is the loop of the next class."""

    def apply_sequence(self, params, run):
        return super().apply_sequence(params, run)


class Doubled:
    """A mixin with another `apply`."""

    def apply(self, params, inputs, state, key=None):
        output, state = super().apply(params, inputs, state, key)
        return 2 * output, state


class Mixed(Seen, Doubled, jaxrnn.LSTMCell):
    """A loop that would run the steps of the LSTM, although `apply` differs."""


CELLS = {
    "mixed": Mixed(4),
    "apply": Twice(4),
    "step": TwiceInStep(4),
    "wrapped": Around(jaxrnn.LSTMCell(4)),
    "wrapped_apply": Around(Twice(4)),
    "wrapped_step": Around(TwiceInStep(4)),
    "falls_back": FallsBack(jaxrnn.LSTMCell(4)),
    "wrapped_blocks": Around(jaxrnn.MinGRUCell(4)),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_steps_of_a_subclass_are_run(cell):
    bound = cell.bind(drawn(cell, X[:, 0]))
    state = cell.zero_state(2, jnp.float32)
    want = []
    for t in range(5):
        output, state = bound(X[:, t], state)
        want.append(output)
    got, last = jaxrnn.dynamic_rnn(bound, X, dtype=jnp.float32)
    np.testing.assert_allclose(got, np.stack(want, 1), atol=1e-6)
    jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, atol=1e-6), last, state
    )


def test_a_stack_whose_layers_have_other_dtypes_than_its_inputs():
    embedded = contrib.EmbeddingWrapper(jaxrnn.LSTMCell(4), 7, 5)
    cell = jaxrnn.MultiRNNCell([embedded, jaxrnn.LSTMCell(3)])
    ids = np.arange(10, dtype=np.int32).reshape(2, 5, 1) % 7
    bound = cell.bind(drawn(cell, ids[:, 0]))
    outputs, _ = jaxrnn.dynamic_rnn(bound, ids, dtype=jnp.float32)
    first, _ = bound(ids[:, 0], cell.zero_state(2, jnp.float32))
    np.testing.assert_allclose(outputs[:, 0], first, atol=1e-6)


def test_a_wrapper_does_not_hide_what_a_loop_cannot_run():
    cell = Around(jaxrnn.LSTMCell(4, activation="gelu"))
    bound = cell.bind(drawn(cell, X[:, 0]))
    with pytest.raises(ValueError, match="with tanh, relu or sigmoid, not gelu"):
        jaxrnn.dynamic_rnn(bound, X, dtype=jnp.float32, implementation="native")


EXPLAINED = {
    "xla": (jaxrnn.LSTMCell(4), {"implementation": "xla"}, "`implementation` is 'xla'"),
    "blocks": (jaxrnn.MinGRUCell(4), {}, ""),
    "chunks": (jaxrnn.MLSTMCell(4), {"sequence_length": [5, 2]}, ""),
    "scan": (Twice(4), {"swap_memory": True}, "Twice has no `apply_sequence`"),
    "own": (Around(jaxrnn.MinGRUCell(4)), {"mask": np.ones((2, 5), bool)}, ""),
}


@pytest.mark.parametrize("loop", EXPLAINED)
def test_explain_says_what_is_logged(loop, capsys, caplog):
    """For arrays and for their types; nothing is run."""
    caplog.set_level(logging.DEBUG, "jaxrnn")
    cell, options, reason = EXPLAINED[loop]
    bound = cell.bind(drawn(cell, X[:, 0]))
    found = jaxrnn.explain(bound, X, dtype=jnp.float32, **options)
    assert (found.loop, found.platform) == (loop, jax.default_backend())
    assert reason in found.reason
    assert str(found) in capsys.readouterr().out
    assert reason in caplog.messages[0]
    types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (bound, X))
    assert jaxrnn.explain(*types, dtype=jnp.float32, **options) == found


def test_explain_counts_the_saved_bytes():
    """A scan of `sin(h) + x` saves the derivative of the sine at each step."""
    saved = lambda h, x: jnp.sin(h) + x
    cell = jaxrnn.FunctionCell(lambda p, x, s, key=None: (x, saved(s, x)), 3, 3)
    x = jax.ShapeDtypeStruct((2, 100, 3), jnp.float32)
    options = {"dtype": jnp.float32}
    every = jaxrnn.explain(cell.bind({}), x, **options)
    assert every.saved.device == 100 * 2 * 3 * 4  # cos(h) of each step.
    recompute = jaxrnn.memory.Recompute(20)
    few = jaxrnn.explain(cell.bind({}), x, swap_memory=recompute, **options)
    assert few.saved.device < every.saved.device
