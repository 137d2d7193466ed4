"""Refusals and warnings: the type of each, and the argument or leaf that it names.

`tests/package/test_advice.py` has what messages advise.
"""

import collections
import functools
import re
import warnings

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, assert_same

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Stage,
    contrib,
    dynamic_rnn,
    lite,
    raw_rnn,
    reverse_sequence,
    static_rnn,
)

F32 = jnp.float32
X = np.ones((4, 5, 3), np.float32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
COUNTS = np.array([5, 0, 3, 1], np.int32)
HaikuState = collections.namedtuple("LSTMState", "hidden cell")
KEYS = jax.random.split(jax.random.key(0))
bound = functools.partial(helpers.bound, dtype="float32")
RNN, GRU, LSTM = (bound(c(2)) for c in (jaxrnn.BasicRNNCell, GRUCell, LSTMCell))
STACK = bound(MultiRNNCell([GRUCell(2), GRUCell(2)]))


def keep(params, inputs, state, key=None):
    return inputs, state


class Twice(jaxrnn.AffineCell):
    """A cell with two stages of one name."""

    state_size = output_size = 2
    stages = (Stage(lambda params, z, h: (z, z), 2, 2),) * 2


def stepping(output=lambda x: x, state=lambda s: s, size=3):
    """A cell whose results are `output(inputs)` and `state(old_state)`."""
    step = lambda params, x, s, key=None: (output(x), state(s))
    return FunctionCell(step, 3, size).bind({})


class Sizes:
    """A cell without a zero state."""

    state_size = output_size = 3
    __call__ = keep


SCALAR = FunctionCell(keep, jaxrnn.TensorShape([]), 3).bind({})
STEPS = [*X.swapaxes(0, 1)]
SAVER = jaxrnn.StateSaver({"c": ZEROS, "h": ZEROS})
WIDE = bound(GRUCell(2), 4)
save = jaxrnn.static_state_saving_rnn
both = jaxrnn.stack_bidirectional_dynamic_rnn
drop = functools.partial(DropoutWrapper, GRUCell(2))
on = lambda device: jaxrnn.DeviceWrapper(GRUCell(2), device).zero_state(4, F32)


def run(cell=GRU, inputs=X, **given):
    return dynamic_rnn(cell, inputs, **{"dtype": F32} | given)


def raw(*results, cell=RNN, **given):
    """`raw_rnn` with a loop function that returns the results."""
    return raw_rnn(cell, lambda *_: results, **given)


REFUSALS = [
    (TypeError, "`cell`", lambda: run(Sizes())),
    (TypeError, "`foo`", lambda: run(foo=3, dtype=None)),
    (TypeError, "`dtype`", lambda: run(dtype="float33")),
    (ValueError, "`inputs`", lambda: run(inputs=X[:, 0])),
    (ValueError, "`inputs['b']`", lambda: run(inputs={"a": X, "b": None})),
    (ValueError, "pass `[n] * 4`", lambda: run(sequence_length=3)),
    (ValueError, "`sequence_length`", lambda: run(sequence_length=[ZEROS, X[:, 0]])),
    (TypeError, "`time_major`", lambda: run(time_major=1)),
    # The state
    (ValueError, "`initial_state`", lambda: run(SCALAR, sequence_length=COUNTS, initial_state=X[:3, 0, 0])),
    (IndexError, "`state`", lambda: run(STACK, initial_state=(ZEROS,))),
    (ValueError, "`state`", lambda: run(LSTM, initial_state=HaikuState(ZEROS, ZEROS))),
    (ValueError, "`new_state`", lambda: run(stepping(state=lambda s: (s, s)), initial_state=X[:, 0])),
    (ValueError, "`output`", lambda: run(stepping(lambda x: x[:, :1]))),
    # Masks, resets and the states of all steps
    (ValueError, "`mask`", lambda: run(mask=MASK, sequence_length=COUNTS)),
    (ValueError, "`state`", lambda: run(SCALAR, initial_state=F32(0), mask=MASK)),
    (ValueError, "`resets`", lambda: run(reset_state=0.0)),
    (TypeError, "`reset_state`", lambda: run(resets=MASK, reset_state=ZEROS.astype(float))),
    # The order of a plain pair (h, c), as in PyTorch, would swap the two arrays.
    (TypeError, "`reset_state`", lambda: run(LSTM, resets=MASK, reset_state=(ZEROS, ZEROS))),
    # Lists of steps
    (ValueError, "`inputs`", lambda: static_rnn(GRU, {0: X[0]}, dtype=F32)),
    (KeyError, "`name` must be one of 'c', 'h'", lambda: save(LSTM, STEPS, SAVER, ("c", "m"))),
    (ValueError, "`state_name`", lambda: save(LSTM, STEPS, SAVER, ("c", "c"))),
    # Both directions
    (ValueError, "`cells_bw`", lambda: both([GRU, WIDE], [GRU], X, dtype=F32)),
    (ValueError, "`initial_states_fw`", lambda: both([GRU], [GRU], X, ZEROS, dtype=F32)),
    # `reverse_sequence`: TensorFlow refuses these too, except NumPy's floats as lengths
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, [6, 0, 0, 0], 1)),
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, [1, 1], 1, 2)),
    (TypeError, "`seq_lengths`", lambda: reverse_sequence(X, COUNTS.astype(float), 1)),
    (ValueError, "`batch_axis`", lambda: reverse_sequence(X, COUNTS, 1, -1)),
    (ValueError, "`input`", lambda: reverse_sequence(X, COUNTS, 3)),
    # `raw_rnn`; `test_raw_rnn.py` has results of a loop function, one by one
    (TypeError, "`cell`", lambda: raw(cell=3)),
    (TypeError, "`next_cell_state`", lambda: raw(False, X[:, 0], (ZEROS, ZEROS), None, None, cell=LSTM)),
    (ValueError, "`next_cell_state` must be the initial state at time 0, got None. `cell_state` is None at time 0, so return `cell.zero_state(batch, dtype)`.", lambda: raw(False, X[:, 0], None, None, None)),
    (TypeError, "`loop_fn`", lambda: raw_rnn(GRU, 4)),
    (ValueError, "`loop_fn`", lambda: raw(1, 2)),
    (ValueError, "`max_time`", lambda: raw(max_time=2**31)),
    # Parameters, such as separate ones for two layers that share one cell
    (ValueError, "`params`", lambda: run(MultiRNNCell([GRUCell(2)] * 2).bind(STACK.params))),
    # Cells
    (ValueError, "`cell_clip`", lambda: LSTMCell(2, cell_clip=-1)),
    (TypeError, "`activation`", lambda: GRUCell(2, activation=3)),
    (ValueError, "`dtype`", lambda: GRUCell(2, dtype=jnp.int32)),
    (ValueError, "`key`", lambda: GRUCell(2).init(jax.random.key_data(KEYS), X[:, 0])),
    # Custom cells
    (ValueError, "parameters", lambda: bound(Twice())),
    # The order of Flax
    (ValueError, "`inputs`", lambda: LSTM(jaxrnn.LSTMStateTuple(ZEROS, ZEROS), X[:, 0])),
    # Wrappers
    (ValueError, "`seed`", lambda: drop(seed=2**70)),
    (ValueError, "`input_keep_prob`", lambda: drop(float("nan"))),
    (ValueError, "`state`", lambda: STACK(X[:, 0], ZEROS)),
    (RuntimeError, "Unknown backend", lambda: on("/gpu:9")),
]  # fmt: skip

test_refusal = helpers.refusals(REFUSALS, prepare=re.escape)


# A call, and the notes of its error, which say where it was raised.
NARROW, SHARED = [GRU, bound(GRUCell(2))], MultiRNNCell([GRU.cell] * 2)
NOTES = [
    (lambda: run(initial_state=ZEROS[1:]), ["Raised by one step of `cell`", "inputs float32[4, 3] and state float32[3, 2]"]),
    (lambda: jaxrnn.stack_bidirectional_rnn(NARROW, NARROW, STEPS, dtype=F32), ["Raised by layer 1, where `initial_state_fw` is entry 1", "Here, `cell` is `cell_fw`"]),
    # A shared cell needs inputs of one depth.
    (lambda: run(SHARED.bind({"cell_0": GRU.params})), ["`cells[1]` with `params['cell_0']`"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "notes"), NOTES)
def test_an_error_says_where_it_was_raised(call, notes):
    with pytest.raises(ValueError, match="must have shape") as caught:
        call()
    assert all(note in "".join(caught.value.__notes__) for note in notes)


# Lengths above the number of steps, which are clamped, raise a warning if known.

LONG, FULL = np.array([6, 5, 2, 0]), np.array([5, 5, 2, 0])
ATTENTION = contrib.AttentionWrapper(GRUCell(2), contrib.LuongAttention(2, 3))
LINEN = jaxrnn.linen.RNN(GRUCell(2))
VARIABLES = LINEN.variables_of(GRU)


CALLS = {
    "dynamic_rnn": lambda n: run(sequence_length=n),
    "static_rnn": lambda n: static_rnn(GRU, STEPS, dtype=F32, sequence_length=n),
    "bidirectional": lambda n: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, n, dtype=F32),
    "lite": lambda n: lite.dynamic_rnn(GRU, np.stack(STEPS), n, dtype=F32),
    "short_conv": lambda n: jaxrnn.short_conv(X, np.ones((2, 3), F32), None, n),
    "attention": lambda n: ATTENTION.initial_state(X, n),
    "nnx": lambda n: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=nnx.Rngs(0))(X, n),
    "linen": lambda n: LINEN.apply(VARIABLES, X, n),
}  # fmt: skip
ON_HOST = {
    "pack": lambda n: tuple(jaxrnn.pack_sequences(X, n)),
    "windows": lambda n: [window.inputs for window in jaxrnn.windows(X, 2, n)],
}


@pytest.mark.fast("dynamic_rnn", "nnx", "linen", "pack")
@pytest.mark.parametrize("name", CALLS | ON_HOST)
def test_a_known_length_above_the_number_of_steps_warns(name):
    call = (CALLS | ON_HOST)[name]
    message = "sequence_length` holds 6, but the number of steps is 5"
    with pytest.warns(UserWarning, match=message) as caught:
        got = call(LONG)
    assert {warning.filename for warning in caught} == {__file__}
    with warnings.catch_warnings(action="error"):
        assert_same(got, call(FULL))
    with pytest.warns(UserWarning, match=message):
        call(LONG.tolist())


@pytest.mark.fast("dynamic_rnn")
@pytest.mark.parametrize("name", CALLS)
def test_lengths_of_a_device_are_not_read(name):
    want = CALLS[name](FULL)
    with warnings.catch_warnings(action="error"):
        assert_same(CALLS[name](jnp.asarray(LONG)), want)
        assert_near(jax.jit(CALLS[name])(LONG), want, tolerance=1e-6)


def test_the_warning_is_shown_once_for_each_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            CALLS["bidirectional"](LONG)
    assert len(caught) == 1
