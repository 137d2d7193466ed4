"""Refusals: the type of each error, and the argument or leaf that it names.

`tests/package/test_advice.py` has what messages advise.
"""

import collections
import functools
import re

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Stage,
    dynamic_rnn,
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


class Seven(jaxrnn.memory.Strategy):
    def plan(self, time):
        return 7


class Sizes:
    """A cell without a zero state."""

    state_size = output_size = 3
    __call__ = keep


PAIR = FunctionCell(keep, (3, 3), 3).bind({})
SCALAR = FunctionCell(keep, jaxrnn.TensorShape([]), 3).bind({})
COUNTED = FunctionCell(keep, (jaxrnn.TensorShape([]), 3), 3).bind({})
CROWD = FunctionCell(keep, 3, 3, rows_interact=True).bind({})
MATRIX = FunctionCell(keep, jaxrnn.TensorShape([5, 5]), 3)
STEPS = [*X.swapaxes(0, 1)]
SAVER = jaxrnn.StateSaver({"c": ZEROS, "h": ZEROS})
WIDE = bound(GRUCell(2), 4)
save = jaxrnn.static_state_saving_rnn
both = jaxrnn.stack_bidirectional_dynamic_rnn
both_static = jaxrnn.static_bidirectional_rnn
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
    (ValueError, "`inputs`", lambda: run(inputs=[])),
    (ValueError, "`inputs`", lambda: run(inputs=X[:, 0])),
    (ValueError, "`inputs['b']`", lambda: run(inputs={"a": X, "b": None})),
    (ValueError, "`inputs[1]`", lambda: run(inputs=(X, X[:, 1:]))),
    (ValueError, "`state`", lambda: run(dtype=jnp.int32)),
    (ValueError, "`sequence_length`", lambda: run(sequence_length=3)),
    (ValueError, "`sequence_length`", lambda: run(sequence_length=[ZEROS, X[:, 0]])),
    (TypeError, "`Seven.plan(time)`", lambda: run(swap_memory=Seven())),
    (TypeError, "`parallel_iterations`", lambda: run(parallel_iterations=-1)),
    (TypeError, "`parallel_iterations`", lambda: run(parallel_iterations=1.5)),
    (TypeError, "`time_major`", lambda: run(time_major=1)),
    (TypeError, "`scope`", lambda: run(scope=3)),
    # The state
    (ValueError, "`initial_state`", lambda: run(SCALAR, sequence_length=COUNTS, initial_state=X[:3, 0, 0])),
    (IndexError, "`state`", lambda: run(STACK, initial_state=(ZEROS,))),
    (ValueError, "`state`", lambda: run(LSTM, initial_state=HaikuState(ZEROS, ZEROS))),
    (ValueError, "`new_state`", lambda: run(stepping(state=lambda s: (s, s)), initial_state=X[:, 0])),
    (ValueError, "`new_state`", lambda: run(stepping(state=lambda s: s[:, :1]))),
    (ValueError, "`output`", lambda: run(stepping(lambda x: x[:, :1]))),
    (TypeError, "`output`", lambda: run(stepping(lambda x: [x, x], size=(3, 3)), sequence_length=COUNTS)),
    # Masks, resets and the states of all steps
    (ValueError, "`mask`", lambda: run(mask=MASK, sequence_length=COUNTS)),
    (ValueError, "`mask`", lambda: run(mask=MASK.T, time_major=True)),
    (ValueError, "`state[1]`", lambda: run(PAIR, mask=MASK, initial_state=(X[:, 0], jaxrnn.TensorArray(F32, 1)))),
    (ValueError, "`resets`", lambda: run(reset_state=0.0)),
    (ValueError, "`resets`", lambda: run(inputs=X[:, :1], resets=MASK[:, 0])),
    (ValueError, "`initial_state`", lambda: run(resets=MASK, initial_state=ZEROS[1:])),
    (ValueError, "`initial_state`", lambda: run(resets=MASK, initial_state={"h": ZEROS})),
    (TypeError, "`reset_state`", lambda: run(resets=MASK, reset_state=ZEROS.astype(float))),
    (ValueError, "`reset_state`", lambda: run(SCALAR, resets=MASK, initial_state=jax.random.split(KEYS[0], 4))),
    # The order of a plain pair (h, c), as in PyTorch, would swap the two arrays.
    (TypeError, "`reset_state`", lambda: run(LSTM, resets=MASK, reset_state=(ZEROS, ZEROS))),
    # Packs; scalar leaves of the state do not belong to a sequence
    # Lists of steps
    (ValueError, "`inputs`", lambda: static_rnn(GRU, {0: X[0]}, dtype=F32)),
    (ValueError, "`value`", lambda: SAVER.save_state("c", X[:, 0])),
    (KeyError, "`name` must be one of 'c', 'h'", lambda: save(LSTM, STEPS, SAVER, ("c", "m"))),
    (ValueError, "`state_name`", lambda: save(GRU, STEPS, SAVER, ("c",))),
    (ValueError, "`state_name`", lambda: save(LSTM, STEPS, SAVER, "c")),
    (ValueError, "`state_name`", lambda: save(LSTM, STEPS, SAVER, ("c", "c"))),
    # A step
    (TypeError, "`scope`", lambda: GRU(X[:, 0], ZEROS, KEYS[0])),
    # Both directions
    (ValueError, "`inputs[1]`", lambda: both_static(stepping(), stepping(), [X[0], X[0][:, :1]], None, None, F32, [1] * 5)),
    (ValueError, "`cell_bw`", lambda: both_static(stepping(lambda x: [x], size=[3]), stepping(), STEPS[:1], dtype=F32)),
    (ValueError, "`cells_fw`", lambda: jaxrnn.stack_bidirectional_rnn([], [GRU], STEPS, dtype=F32)),
    (ValueError, "`cells_bw`", lambda: both([GRU, WIDE], [GRU], X, dtype=F32)),
    (ValueError, "`initial_states_fw`", lambda: both([GRU], [GRU], X, ZEROS, dtype=F32)),
    # `reverse_sequence`: TensorFlow refuses these too, except NumPy's floats as lengths
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, [6, 0, 0, 0], 1)),
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, [1, -1, 0, 0], 1)),
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, [1, 1], 1, 2)),
    (ValueError, "`seq_lengths`", lambda: reverse_sequence(X, None, 1)),
    (TypeError, "`seq_lengths`", lambda: reverse_sequence(X, COUNTS.astype(float), 1)),
    (TypeError, "`seq_axis`", lambda: reverse_sequence(X, COUNTS)),
    (ValueError, "`seq_axis`", lambda: reverse_sequence(X, COUNTS, 0)),
    (ValueError, "`batch_axis`", lambda: reverse_sequence(X, COUNTS, 1, -1)),
    (ValueError, "`input`", lambda: reverse_sequence(X, COUNTS, 3)),
    (ValueError, "`input`", lambda: reverse_sequence(X, COUNTS, 1, 3)),
    (ValueError, "`input[1]`", lambda: reverse_sequence((X, X[:, :4]), COUNTS, 1)),
    (ValueError, "`input[1]`", lambda: reverse_sequence((X, X[:3]), COUNTS, 1)),
    (ValueError, "`input[1]`", lambda: reverse_sequence([X, None], COUNTS, 1)),
    # `raw_rnn`; `test_raw_rnn.py` has results of a loop function, one by one
    (TypeError, "`cell`", lambda: raw(cell=3)),
    (TypeError, "`next_cell_state`", lambda: raw(False, X[:, 0], (ZEROS, ZEROS), None, None, cell=LSTM)),
    (ValueError, "`next_cell_state` must be the initial state at time 0, got None. `cell_state` is None at time 0. Return `cell.zero_state(batch, dtype)` then.", lambda: raw(False, X[:, 0], None, None, None)),
    (TypeError, "`loop_fn`", lambda: raw_rnn(GRU, 4)),
    (ValueError, "`loop_fn`", lambda: raw(1, 2)),
    (TypeError, "`loop_fn`", lambda: raw_rnn(GRU, lambda *_: 5)),
    (TypeError, "`max_time`", lambda: raw(max_time=2.5)),
    (ValueError, "`max_time`", lambda: raw(max_time=2**31)),
    (ValueError, "`max_time`", lambda: raw(max_time=-1)),
    # Parameters, such as separate ones for two layers that share one cell
    (ValueError, "`params`", lambda: run(MultiRNNCell([GRUCell(2)] * 2).bind(STACK.params))),
    (TypeError, "`params['bias']`", lambda: RNN.cell.apply({**RNN.params, "bias": "zeros"}, X[:, 0], ZEROS)),
    # Cells
    (TypeError, "`initializer`", lambda: LSTMCell(2, initializer="zeros")),
    (TypeError, "`initializer`", lambda: bound(LSTMCell(2, initializer=jax.nn.initializers.orthogonal))),
    (ValueError, "`num_units`", lambda: GRUCell(2**63)),
    (TypeError, "`forget_bias`", lambda: LSTMCell(2, forget_bias=None)),
    (ValueError, "`cell_clip`", lambda: LSTMCell(2, cell_clip=-1)),
    (TypeError, "`activation`", lambda: GRUCell(2, activation=3)),
    (ValueError, "`dtype`", lambda: GRUCell(2, dtype=jnp.int32)),
    (ValueError, "`key`", lambda: GRUCell(2).init(jax.random.key_data(KEYS), X[:, 0])),
    (ValueError, "`batch_size`", lambda: GRU.get_initial_state(X[:, 0], batch_size=3)),
    # Custom cells
    (ValueError, "parameters", lambda: bound(Twice())),
    (TypeError, "`state_size['a']`", lambda: FunctionCell(abs, {"a": "two"}, 2)),
    # The order of Flax
    (ValueError, "`inputs`", lambda: LSTM(jaxrnn.LSTMStateTuple(ZEROS, ZEROS), X[:, 0])),
    # Wrappers
    (ValueError, "`seed`", lambda: drop(seed=2**70)),
    (ValueError, "`input_keep_prob`", lambda: drop(float("nan"))),
    (ValueError, "`mask_per_row`", lambda: drop(0.5, mask_per_row=True)),
    (ValueError, "`cells`", lambda: MultiRNNCell([])),
    (TypeError, "`cells`", lambda: MultiRNNCell(GRUCell(2))),
    (ValueError, "`cells[0]`", lambda: MultiRNNCell([MATRIX], state_is_tuple=False)),
    (ValueError, "`cells[0]`", lambda: MultiRNNCell([LSTMCell(2)], state_is_tuple=False)),
    (ValueError, "`state`", lambda: STACK(X[:, 0], ZEROS)),
    (RuntimeError, "Unknown backend", lambda: on("/gpu:9")),
    (ValueError, "`device`", lambda: on("cpu:-1")),
]  # fmt: skip

test_refusal = helpers.refusals(REFUSALS, prepare=re.escape)


NARROW = [GRU, bound(GRUCell(2))]
SHARED = MultiRNNCell([GRU.cell] * 2).bind({"cell_0": GRU.params})
TWICE = STACK.cell.bind(dict.fromkeys(STACK.params, STACK.params["cell_0"]))
# A call, and the notes of its error, which say where it was raised.
NOTES = [
    (lambda: run(initial_state=ZEROS[1:]), ["Raised by one step of `cell`", "inputs float32[4, 3] and state float32[3, 2]"]),
    (lambda: run(STACK, X[..., [0, 1, 2, 2]]), ["Raised by `cells[0]`"]),
    (lambda: jaxrnn.stack_bidirectional_rnn(NARROW, NARROW, STEPS, dtype=F32), ["Raised by layer 1, where `initial_state_fw` is entry 1", "Here, `cell` is `cell_fw`"]),
    # A shared cell needs inputs of one depth.
    (lambda: run(SHARED), ["`cells[1]` with `params['cell_0']`"]),
    (lambda: jaxrnn.bidirectional_dynamic_rnn(STACK, TWICE, X, dtype=F32), ["`cells[1]` with `params['cell_1']`", "Here, `cell` is `cell_bw`"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "notes"), NOTES)
def test_an_error_says_where_it_was_raised(call, notes):
    with pytest.raises(ValueError, match="must have shape") as caught:
        call()
    assert all(note in "".join(caught.value.__notes__) for note in notes)


def test_a_dtype_that_jax_replaces_is_warned_of():
    """`tests/base/test_hints.py` has other callers."""
    x, cells, steps = jnp.asarray(X), [GRU], [*jnp.asarray(X)]
    with jax.enable_x64(False):
        text = "`dtype` is float64, but JAX uses float32. Pass float32, or"
        for wide in (jnp.float64, "float64", np.dtype("float64")):
            with pytest.warns(UserWarning, match=text):
                dynamic_rnn(GRU, x, dtype=wide)
        for run, *given in (
            (jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, x),
            (both_static, GRU, GRU, steps),
            (jaxrnn.stack_bidirectional_rnn, cells, cells, steps),
        ):
            with pytest.warns(UserWarning, match="`dtype` is float64") as caught:
                run(*given, dtype="float64")
            assert [w.filename for w in caught] == [__file__]
        dynamic_rnn(GRU, x, dtype=float)
        GRUCell(2).init(KEYS[0], X[:, 0].astype(np.float64))
        GRUCell(2).get_initial_state(X[:, 0].astype(np.float64))
    wide = helpers.bound(GRUCell(2, dtype="float64"), 3)
    dynamic_rnn(wide, x.astype(float), dtype="float64")
