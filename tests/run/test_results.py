"""What the loop of a user's cell returns is compared with the types of a scan."""

from typing import ClassVar

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn import GRUCell
from jaxrnn.extend import Choice
from tests.helpers import assert_near, refusals

X = jnp.ones((2, 5, 3))
LENGTHS = [5, 2]
MASK = jnp.ones((2, 5), bool)


class Changed(GRUCell):
    """A GRU whose loop returns other results than a scan."""

    apply = GRUCell.apply
    changes: ClassVar = {}

    def choose_loop(self, params, run):
        choice = super().choose_loop(params, run.replace(implementation="xla"))
        return choice.within(self._run)

    def _run(self, loop, params, run):
        change = self.changes[type(self).__name__]
        return change(*loop(params, run))


def call(change, **options):
    """A run of a cell whose loop returns `change(outputs, state)`."""
    kind = type(f"Changed{len(Changed.changes)}", (Changed,), {})
    Changed.changes[kind.__name__] = change
    cell = kind(4)
    params = cell.init(jax.random.key(0), X[:, 0])
    return jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=X.dtype, **options)


def states_of(change, **options):
    """Like `call`, where `change` gets the states of all steps."""

    def of_all(outputs, state):
        return (outputs[0], change(outputs[1])), state

    return call(of_all, return_states=True, **options)


def test_a_loop_that_returns_what_a_scan_returns():
    results = states_of(lambda states: states, sequence_length=LENGTHS)
    outputs, state, states = jax.device_get(results)
    assert_near(outputs[1, :2], states[1, :2], tolerance=0)
    assert_near(states[1, -1], state[1], tolerance=0)


def chosen(choice):
    """A run of a cell whose `choose_loop` returns what `choice()` returns."""
    members = {"choose_loop": lambda self, params, run: choice()}
    cell = type("Mine", (GRUCell,), members)(4)
    params = cell.init(jax.random.key(0), X[:, 0])
    return jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=X.dtype)


# fmt: off
test_refusals = refusals([
    (TypeError, "`outputs`", lambda: call(lambda y, s: (y.astype(jnp.int8), s))),
    (ValueError, "`outputs`", lambda: call(lambda y, s: (y[..., :1], s))),
    (ValueError, "`outputs`", lambda: call(lambda y, s: ((y, y), s))),
    (TypeError, "`state`", lambda: call(lambda y, s: (y, s.astype(jnp.int32)))),
    (ValueError, "`state`", lambda: call(lambda y, s: (y, s[:1]))),
    (ValueError, "`state`", lambda: call(lambda y, s: (y, s[0]), mask=MASK)),
    (ValueError, "`loop`", lambda: call(lambda y, s: (y, s, s))),
    (ValueError, "`loop`", lambda: call(lambda y, s: y)),
    (ValueError, "`outputs\\[1\\]`", lambda: states_of(lambda states: states[:, -1])),
    (TypeError, "`choose_loop`", lambda: chosen(lambda: None)),
    (TypeError, "`name`", lambda: chosen(lambda: Choice(GRUCell))),
    (TypeError, "`loop`", lambda: chosen(lambda: Choice("own", "scan"))),
    (TypeError, "`outputs\\[1\\]`", lambda: states_of(lambda states: states > 0)),
])
# fmt: on
