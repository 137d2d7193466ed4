"""Error messages: the argument, the leaf, the given value and the fix."""

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
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Stage,
    dynamic_rnn,
    static_rnn,
)

F32 = jnp.float32
X = np.ones((4, 5, 3), np.float32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
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


def stepping(state):
    """A cell whose new state is `state(old_state)`."""
    return FunctionCell(lambda p, x, s, key=None: (x, state(s)), 3, 3).bind({})


PAIR = FunctionCell(keep, (3, 3), 3).bind({})


def putting_out(output, size=3):
    """A cell whose output is `output(inputs)`."""
    return FunctionCell(lambda p, x, s, key=None: (output(x), s), 3, size).bind({})


class Seven(jaxrnn.memory.Strategy):
    def plan(self, time):
        return 7


class Sizes:
    """A cell without a zero state."""

    state_size = output_size = 3
    __call__ = keep


# Arguments of `dynamic_rnn` instead of valid ones. What a message advises, and many a
# message with it, is in `tests/package/test_advice.py`.
DRIVER = [
    (TypeError, "must be a bound cell, got Sizes. .* an object that implements `jaxrnn.RNNCellLike`", {"cell": Sizes()}),
    (TypeError, "`foo` is not an argument of `dynamic_rnn`.$", {"foo": 3, "dtype": None}),
    (TypeError, "`dtype` must be a dtype such as jnp.float32, got 'float33'", {"dtype": "float33"}),
    (ValueError, r"`inputs` must hold at least one array, got \[\]", {"inputs": []}),
    (ValueError, r"`inputs\['b'\]` must be an array", {"inputs": {"a": X, "b": None}}),
    (ValueError, r"`inputs\[1\]` must have the first two sizes, .* of `inputs\[0\]`, float32\[4, 5, 3\], got float32\[4, 4, 3\]", {"inputs": (X, X[:, 1:])}),
    (ValueError, "`state` must be floating-point, got int32", {"dtype": jnp.int32}),
    (ValueError, r"must be a vector of length batch_size \(4\)", {"sequence_length": 3}),
    (ValueError, r"inhomogeneous shape.*`sequence_length` must be integers, one for each row", {"sequence_length": [ZEROS, X[:, 0]]}),
    (TypeError, r"`Seven.plan\(time\)` must be a `CheckpointPlan`, such as .*, got 7", {"swap_memory": Seven()}),
    (TypeError, "`parallel_iterations` must be at least 0, got -1", {"parallel_iterations": -1}),
    (TypeError, "`parallel_iterations` must be an integer, got 1.5", {"parallel_iterations": 1.5}),
    (TypeError, "`time_major` must be True or False, got 1", {"time_major": 1}),
    (TypeError, "`scope` must be a string or None, got 3", {"scope": 3}),
    # The state
    (ValueError, r"`initial_state` must have 4 rows or be a scalar, got float32\[3\]", {"cell": FunctionCell(keep, jaxrnn.TensorShape([]), 3).bind({}), "sequence_length": [1] * 4, "initial_state": np.ones(3, np.float32)}),
    (IndexError, "`state` must be a tuple of length 2.* got .float32", {"cell": STACK, "initial_state": (ZEROS,)}),
    (ValueError, r"got LSTMState\(hidden=\*, cell=\*\)", {"cell": LSTM, "initial_state": HaikuState(ZEROS, ZEROS)}),
    (ValueError, r"`new_state` must have the structure \*, got \(\*, \*\), where .* Change the cell", {"cell": stepping(lambda s: (s, s)), "initial_state": X[:, 0]}),
    (ValueError, r"`new_state` must have shape \[4, 3\], got float32\[4, 1\]", {"cell": stepping(lambda s: s[:, :1])}),
    (ValueError, r"`output` must have shape \[4, 3\], got float32\[4, 1\]. See `output_size`", {"cell": putting_out(lambda x: x[:, :1])}),
    (TypeError, r"must have the structure \(\*, \*\), got \[\*, \*\]", {"cell": putting_out(lambda x: [x, x], (3, 3)), "sequence_length": [1] * 4}),
    # Masks, resets and the states of all steps
    (ValueError, "`mask` must be None if `sequence_length`", {"mask": MASK, "sequence_length": [3] * 4}),
    (ValueError, r"`mask` must be \[time, batch\]", {"mask": MASK.T, "time_major": True}),
    (ValueError, r"`state\[1\]` must .* got TensorArray", {"cell": PAIR, "mask": MASK, "initial_state": (X[:, 0], jaxrnn.TensorArray(F32, 1))}),
    (ValueError, "`resets` must be given", {"reset_state": 0.0}),
    (ValueError, "`initial_state` must have 4 rows or be a scalar, got", {"resets": MASK, "initial_state": ZEROS[1:]}),
    (ValueError, r"`resets` must be \[batch, time\] like the inputs.*For one step, pass `resets\[:, None\]`", {"inputs": X[:, :1], "resets": MASK[:, 0]}),
    (ValueError, r"For one step \[batch, depth\], pass `inputs\[:, None\]`", {"inputs": X[:, 0]}),
    (ValueError, r"`initial_state` must have the structure \*, got \{'h': \*\}", {"resets": MASK, "initial_state": {"h": ZEROS}}),
    (TypeError, "`reset_state` must have dtype float32", {"resets": MASK, "reset_state": ZEROS.astype(float)}),
    # The order of a plain pair (h, c), as in PyTorch, would swap the two arrays.
    (TypeError, "`reset_state` must have", {"cell": LSTM, "resets": MASK, "reset_state": (ZEROS, ZEROS)}),
]  # fmt: skip

STEPS = [*X.swapaxes(0, 1)]
SAVER = jaxrnn.StateSaver({"c": ZEROS, "h": ZEROS})
WIDE = bound(GRUCell(2), 4)
save = jaxrnn.static_state_saving_rnn
both = jaxrnn.stack_bidirectional_dynamic_rnn
both_static = jaxrnn.static_bidirectional_rnn
REFUSALS = [
    # Lists of steps
    (ValueError, "`inputs` must be a list or tuple with one entry per step, got dict", lambda: static_rnn(GRU, {0: X[0]}, dtype=F32)),
    (ValueError, r"must have the shape of state 'c', float32\[4, 2\], got float32\[4, 3\]", lambda: SAVER.save_state("c", X[:, 0])),
    (KeyError, "'m'", lambda: save(LSTM, STEPS, SAVER, ("c", "m"))),
    (ValueError, r"`state_name` must be a string.*got \('c',\)", lambda: save(GRU, STEPS, SAVER, ("c",))),
    (ValueError, "`state_name` must be a tuple of 2 different strings.*got 'c'", lambda: save(LSTM, STEPS, SAVER, "c")),
    (ValueError, "must be a tuple of 2 different strings.* got .'c', 'c'", lambda: save(LSTM, STEPS, SAVER, ("c", "c"))),
    # A step
    (TypeError, "`scope` must be a string, got .*To bind a random key, call `cell.bind", lambda: GRU(X[:, 0], ZEROS, KEYS[0])),
    # Both directions
    (ValueError, "(?i)shape", lambda: both_static(stepping(abs), stepping(abs), [X[0], X[0][:, :1]], None, None, F32, [1] * 5)),
    (ValueError, "the output of `cell_bw` must have the structure", lambda: both_static(putting_out(lambda x: [x], [3]), stepping(abs), STEPS, dtype=F32)),
    (ValueError, "`cells_fw` must be a list of at least one cell", lambda: jaxrnn.stack_bidirectional_rnn([], [GRU], STEPS, dtype=F32)),
    (ValueError, r"`cells_bw` must have the depth of `cells_fw` \(2 cells\)", lambda: both([GRU, WIDE], [GRU], X, dtype=F32)),
    (ValueError, r"`initial_states_fw` must be a list of 1 state,.*got float32\[4, 2\]", lambda: both([GRU], [GRU], X, ZEROS, dtype=F32)),
    # Parameters, such as separate ones for two layers that share one cell
    (ValueError, "must hold cell_0, got .*cell_1", lambda: dynamic_rnn(MultiRNNCell([GRUCell(2)] * 2).bind(STACK.params), X, dtype=F32)),
    (TypeError, r"`params\['bias'\]` must be an array, got 'zeros'", lambda: RNN.cell.apply({**RNN.params, "bias": "zeros"}, X[:, 0], ZEROS)),
    # Cells
    (TypeError, "`initializer` must be a function", lambda: LSTMCell(2, initializer="zeros")),
    (TypeError, "must return an array of shape", lambda: bound(LSTMCell(2, initializer=jax.nn.initializers.orthogonal))),
    (ValueError, "`num_units` must be at most 2147483647, got 9223372036854775808", lambda: GRUCell(2**63)),
    (TypeError, "`forget_bias` must be a number, got None", lambda: LSTMCell(2, forget_bias=None)),
    (ValueError, r"`cell_clip` must be in .0, inf., got -1", lambda: LSTMCell(2, cell_clip=-1)),
    (TypeError, "must be None, a name or a function, got 3", lambda: GRUCell(2, activation=3)),
    (ValueError, "`dtype` must be floating-point, got int32", lambda: GRUCell(2, dtype=jnp.int32)),
    (ValueError, r"`key` must be one key, got uint32\[2, 2\]", lambda: GRUCell(2).init(jax.random.key_data(KEYS), X[:, 0])),
    (ValueError, r"`batch_size` must be 4 as in `inputs`, got 3", lambda: GRU.get_initial_state(X[:, 0], batch_size=3)),
    # Custom cells
    (ValueError, r"parameters \(see `path` of `Stage`\) must have different names, got 'kernel' twice", lambda: bound(Twice())),
    (TypeError, "must be an integer, got 'two'", lambda: FunctionCell(abs, {"a": "two"}, 2)),
    # The order of Flax
    (ValueError, r"^`inputs` must be one array \[batch, depth\] for one step, got LSTMStateTuple\(c=.*\)\.$", lambda: LSTM(jaxrnn.LSTMStateTuple(ZEROS, ZEROS), X[:, 0])),
    # Wrappers
    (ValueError, "`seed` must be at most 9223372036854775807", lambda: jaxrnn.DropoutWrapper(GRUCell(2), seed=2**70)),
    (ValueError, r"must be in \[0, 1\]", lambda: jaxrnn.DropoutWrapper(GRUCell(2), float("nan"))),
    (ValueError, "`mask_per_row` must be False without `variational_recurrent`", lambda: jaxrnn.DropoutWrapper(GRUCell(2), 0.5, mask_per_row=True)),
    (ValueError, "must hold at least one cell", lambda: MultiRNNCell([])),
    (TypeError, "must be a list or tuple", lambda: MultiRNNCell(GRUCell(2))),
    (ValueError, "must have one vector as its state if", lambda: MultiRNNCell([FunctionCell(keep, jaxrnn.TensorShape([5, 5]), 3)], state_is_tuple=False)),
    (ValueError, r"`cells\[0\]` must have one vector as its state if", lambda: MultiRNNCell([LSTMCell(2)], state_is_tuple=False)),
    (ValueError, "a tuple of length 2, with one state per cell, got float32", lambda: STACK(X[:, 0], ZEROS)),
    (RuntimeError, "Unknown backend", lambda: jaxrnn.DeviceWrapper(GRUCell(2), "/gpu:9").zero_state(4, F32)),
    (ValueError, r"`device` must name one of the devices \[0, .* got 'cpu:-1'", lambda: jaxrnn.DeviceWrapper(GRUCell(2), "cpu:-1").zero_state(4, F32)),
]  # fmt: skip


# A dot stands for any character, also for a new line.
over_lines = functools.partial(re.compile, flags=re.DOTALL)


@pytest.mark.parametrize(("error", "words", "given"), DRIVER)
def test_dynamic_rnn_refuses(error, words, given):
    with pytest.raises(error, match=over_lines(words)):
        dynamic_rnn(**({"cell": GRU, "inputs": X, "dtype": F32} | given))


test_refusal = helpers.refusals(REFUSALS, prepare=over_lines)


NARROW = [GRU, bound(GRUCell(2))]
CUT = [STEPS[0], STEPS[1][:, :2]]
SHARED = MultiRNNCell([GRU.cell] * 2).bind({"cell_0": GRU.params})
TWICE = STACK.cell.bind(dict.fromkeys(STACK.params, STACK.params["cell_0"]))
# A call, what its error says, and the notes that say where it was raised.
NOTES = [
    (lambda: dynamic_rnn(GRU, X, initial_state=ZEROS[1:]), r"must have shape \[4, 2\], got float32\[3, 2\]",
     ["Raised by one step of `cell`", "inputs float32[4, 3] and state float32[3, 2]"]),
    (lambda: dynamic_rnn(STACK, X[..., [0, 1, 2, 2]], dtype=F32), "for inputs of depth 4", ["Raised by `cells[0]`"]),
    (lambda: static_rnn(GRU, CUT, None, F32), "kernel", ["Raised at step 1, with `inputs[1]`."]),
    (lambda: static_rnn(GRU, CUT, None, F32, [2] * 4), "kernel", ["Raised at step 1, with `inputs[1]`."]),
    (lambda: jaxrnn.stack_bidirectional_rnn(NARROW, NARROW, STEPS, dtype=F32), "must have shape .* for inputs of depth",
     ["Raised by layer 1, where `initial_state_fw` is entry 1", "Here, `cell` is `cell_fw`"]),
    # A shared cell needs inputs of one depth.
    (lambda: dynamic_rnn(SHARED, X, dtype=F32), "for inputs of depth 2", ["`cells[1]` with `params['cell_0']`"]),
    (lambda: jaxrnn.bidirectional_dynamic_rnn(STACK, TWICE, X, dtype=F32), "must have shape",
     ["`cells[1]` with `params['cell_1']`", "Here, `cell` is `cell_bw`"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words", "notes"), NOTES)
def test_an_error_says_where_it_was_raised(call, words, notes):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert all(note in "".join(caught.value.__notes__) for note in notes)


def test_a_dtype_that_jax_replaces_is_warned_of():
    """`tests/base/test_hints.py` has other callers."""
    x, cells, steps = jnp.asarray(X), [GRU], [*jnp.asarray(X)]
    with jax.enable_x64(False):
        text = "`dtype` is float64, but JAX uses float32. Pass float32, or"
        for wide in (jnp.float64, np.float64, "float64", np.dtype("float64")):
            with pytest.warns(UserWarning, match=text):
                dynamic_rnn(GRU, x, dtype=wide)
        for run, *given in (
            (jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, x),
            (both_static, GRU, GRU, steps),
            (jaxrnn.stack_bidirectional_rnn, cells, cells, steps),
            (jaxrnn.memory_plan, GRUCell(2), (1, 2, 3), [False]),
        ):
            with pytest.warns(UserWarning, match="`dtype` is float64") as caught:
                run(*given, dtype="float64")
            assert [w.filename for w in caught] == [__file__]
        dynamic_rnn(GRU, x, dtype=float)
        GRUCell(2).init(KEYS[0], X[:, 0].astype(np.float64))
        GRUCell(2).get_initial_state(X[:, 0].astype(np.float64))
    wide = helpers.bound(GRUCell(2, dtype="float64"), 3)
    dynamic_rnn(wide, x.astype(float), dtype="float64")
