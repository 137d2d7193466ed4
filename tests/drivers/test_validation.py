"""Error messages: the argument, the leaf, the given value and the fix."""

import collections
import dataclasses
import re
from collections.abc import Callable

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, LSTMCell, MultiRNNCell, Stage, dynamic_rnn

F32 = jnp.float32
X = np.ones((4, 5, 3), np.float32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
HaikuState = collections.namedtuple("LSTMState", "hidden cell")
KEYS = jax.random.split(jax.random.key(0))


def bound(cell):
    return helpers.bound(cell, X.shape[-1], "float32")


RNN, GRU, LSTM = (bound(c(2)) for c in (jaxrnn.BasicRNNCell, GRUCell, LSTMCell))
STACK = bound(MultiRNNCell([GRUCell(2), GRUCell(2)]))


def shared_cell():
    """Two layers that share one cell, with separate parameters."""
    stack = MultiRNNCell([GRUCell(2)] * 2)
    return dynamic_rnn(stack.bind(STACK.params), X, dtype=F32)


def keep(params, inputs, state, key=None):
    return inputs, state


@dataclasses.dataclass(frozen=True, eq=False)
class Custom(jaxrnn.AffineCell):
    """A cell with one stage, whose parts may be wrong."""

    enters: Callable = lambda h: (h, h)
    updates: Callable = lambda z, h: (z, z)
    columns: int = 2

    state_size = output_size = 2

    def enter(self, state):
        return self.enters(state)

    @property
    def stages(self):
        update = lambda params, z, carry: self.updates(z, carry)
        return (Stage(update, 2, self.columns, jax.nn.initializers.zeros, None),)


STAGE = Stage(lambda params, z, h: (z, z), 2, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class OfStages(jaxrnn.AffineCell):
    """A cell with the given stages."""

    given: object
    state_size: object = 2

    stages = property(lambda self: self.given)
    output_size = 2


def step_of(cell):
    return dynamic_rnn(bound(cell), X, dtype=F32)


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


# Arguments of `dynamic_rnn` instead of valid ones.
DRIVER = [
    (TypeError, "must be a bound cell, got Sizes. .* an object that implements `jaxrnn.RNNCellLike`", {"cell": Sizes()}),
    (TypeError, r"must be a bound cell, got GRUCell\. Pass `cell.bind\(params\)`", {"cell": GRUCell(2)}),
    (TypeError, "`cell` must be a bound cell, got list of length 2. .*For several layers, pass a bound `MultiRNNCell`",
     {"cell": [GRU, GRU]}),
    (TypeError, "`foo` is not an argument of `dynamic_rnn`.$", {"foo": 3, "dtype": None}),
    (TypeError, "`done` is not an argument of `dynamic_rnn`. Use `resets`.", {"done": MASK}),
    (ValueError, "`dtype` must be given if there is no `initial_state`", {"dtype": None}),
    (TypeError, "`dtype` must be a dtype such as jnp.float32, got 'float33'", {"dtype": "float33"}),
    (ValueError, r"`inputs` must hold at least one array, got \[\]", {"inputs": []}),
    (ValueError, r"`inputs\['b'\]` must be an array", {"inputs": {"a": X, "b": None}}),
    (ValueError, r"For one sequence \[time, depth\], pass `inputs\[None\]`. For one number per step, pass `inputs\[..., None\]`. Embed integer ids.$",
     {"inputs": X[0]}),
    (ValueError, r"For one sequence \[time, depth\], pass `inputs\[:, None\]`. For one number",
     {"inputs": X[0], "time_major": True}),
    (ValueError, "To make one array, call `jnp.asarray`", {"inputs": X.tolist()}),
    (ValueError, r"got float32\[4, 5\]. .* For one number per step, pass `inputs\['a'\]\[..., None\]`",
     {"inputs": {"a": X[..., 0]}}),
    (ValueError, r"got int64\[4, 5\]. .* pass `inputs\[..., None\]`. Embed integer ids",
     {"inputs": X[..., 0].astype(int)}),
    (ValueError, r"`inputs\[0\]` must .* got float32\[5, 3\]\. .* one array, call `jnp.asarray`; for sequences of different lengths, use `pack_sequences`",
     {"inputs": [X[0], X[1, :3]]}),
    (ValueError, r"`inputs\[1\]` must have the first two sizes, .* of `inputs\[0\]`, float32\[4, 5, 3\], got float32\[4, 4, 3\]", {"inputs": (X, X[:, 1:])}),
    (ValueError, "`inputs` must be floating-point, got int32", {"inputs": X.astype(np.int32)}),
    (ValueError, "`state` must be floating-point, got int32", {"dtype": jnp.int32}),
    (TypeError, r"`params.*` must have dtype float64, got float32.*for inputs of depth 3 and dtype float64, such as",
     {"inputs": X.astype(np.float64), "dtype": jnp.float64}),
    (ValueError, r"must be a vector of length batch_size \(4\)", {"sequence_length": 3}),
    (TypeError, r"`sequence_length` must be an array without a mask. Pass `sequence_length.filled\(0\)`",
     {"sequence_length": np.ma.ones(4, int)}),
    (TypeError, r"`inputs\['a'\]` must be an array without a mask", {"inputs": {"a": np.ma.asarray(X)}}),
    (TypeError, "`inputs` must be an array, got 'q'", {"inputs": "q"}),
    (TypeError, "`inputs` must be padded, got PackedSequences. Use `packed_rnn`",
     {"inputs": jaxrnn.pack_sequences(X, [1, 2, 3, 4])}),
    (TypeError, r"`Seven.plan\(time\)` must be a `CheckpointPlan`, such as .*, got 7", {"swap_memory": Seven()}),
    (TypeError, r"must be integers, .* got bool\[4, 5\]. .* Pass a mask as `mask=`",
     {"sequence_length": MASK}),
    (TypeError, r"must be integers, one for each row, got bool\[4\]. Cast lengths to jnp.int32",
     {"sequence_length": [True, False, True, False]}),
    (ValueError, r"length batch_size \(4\), one entry per row, got int64\[1\]", {"sequence_length": [1]}),
    (TypeError, "`parallel_iterations` must be at least 0, got -1", {"parallel_iterations": -1}),
    (TypeError, "`parallel_iterations` must be an integer, got 1.5", {"parallel_iterations": 1.5}),
    (TypeError, "`swap_memory` must be True, False or a strategy of `jaxrnn.memory`, got 'host'",
     {"swap_memory": "host"}),
    (TypeError, "`time_major` must be True or False, got 1", {"time_major": 1}),
    (TypeError, "`scope` must be a string or None, got 3", {"scope": 3}),
    (TypeError, "got the class LSTMCell. Pass `cell.bind", {"cell": LSTMCell}),
    (TypeError, "a state as `initial_state=`, and a dtype as `dtype=`", {"sequence_length": jnp.float32, "dtype": None}),
    # The state
    (ValueError, r"`initial_state` must have 4 rows or be a scalar, got float32\[3\]",
     {"cell": FunctionCell(lambda p, x, s, key=None: (x, s), jaxrnn.TensorShape([]), 3).bind({}), "sequence_length": [1] * 4, "initial_state": np.ones(3, np.float32)}),
    (ValueError, r"`initial_state\[0\]` must be an array", {"cell": STACK, "initial_state": (None, ZEROS)}),
    (TypeError, "`initial_state` must be an array, got 'zeros'", {"initial_state": "zeros"}),
    (ValueError, r"`state\[1\]` must have shape \[4, 2\], got float32\[4, 1\]",
     {"cell": LSTM, "initial_state": (ZEROS, ZEROS[:, 1:])}),
    (TypeError, r"`state` must have the structure LSTMStateTuple\(c=\*, h=\*\), got float32\[4, 2\]. .* `cell.zero_state`", {"cell": LSTM, "initial_state": ZEROS}),
    (ValueError, r"`state` must have the structure \*, got \(\*, \*\)", {"cell": RNN, "initial_state": (ZEROS, ZEROS)}),
    (IndexError, "`state` must be a tuple of length 2.* got .float32", {"cell": STACK, "initial_state": (ZEROS,)}),
    (ValueError, r"got LSTMState\(hidden=\*, cell=\*\)", {"cell": LSTM, "initial_state": HaikuState(ZEROS, ZEROS)}),
    (TypeError, r"`enter\(state\)\[0\]` must have dtype float32, got float64\[4, 2\]. Create the state with", {"initial_state": ZEROS.astype(np.float64)}),
    (ValueError, r"`new_state` must have the structure \*, got \(\*, \*\), where .* Change the cell",
     {"cell": stepping(lambda s: (s, s)), "initial_state": X[:, 0]}),
    (ValueError, r"`new_state` must have shape \[4, 3\], got float32\[4, 1\]",
     {"cell": stepping(lambda s: s[:, :1])}),
    (TypeError, "`new_state` must have dtype float32, got bfloat16.* start from a state like the new one",
     {"cell": stepping(lambda s: s.astype(jnp.bfloat16))}),
    (TypeError, "`output` must have dtype float32, got bfloat16.*dtype=jnp.bfloat16",
     {"cell": putting_out(lambda x: x.astype(jnp.bfloat16))}),
    (ValueError, r"`output` must have shape \[4, 3\], got float32\[4, 1\]. See `output_size`",
     {"cell": putting_out(lambda x: x[:, :1])}),
    (ValueError, r"`output` must have the structure \*, got \(\*, \*\)",
     {"cell": putting_out(lambda x: (x, x))}),
    (TypeError, r"must have the structure \(\*, \*\), got \[\*, \*\]",
     {"cell": putting_out(lambda x: [x, x], (3, 3)), "sequence_length": [1] * 4}),
    (ValueError, r"must return a pair \(output, new_state\), got float32\[4, 3\]\. A state of several arrays",
     {"cell": FunctionCell(lambda p, x, s, key=None: x, 3, 3).bind({})}),
    (TypeError, r"must have the structure \(\*, \*\), got LSTMStateTuple.*`cell.state_size`",
     {"cell": LSTM, "sequence_length": [1] * 4, "initial_state": (ZEROS, ZEROS)}),
    (TypeError, "`inputs` must have the dtype of the cell, float64, got float32",
     {"cell": GRUCell(2, dtype="float64").bind(GRU.params)}),
    (TypeError, r"`dtype` must be a dtype such as jnp.float32, got float32\[4, 2\]", {"dtype": ZEROS}),
    (ValueError, r"inhomogeneous shape.*`sequence_length` must be integers, one for each row",
     {"sequence_length": [ZEROS, X[:, 0]]}),
    # Masks, resets and the states of all steps
    (ValueError, "`mask` must be None if `sequence_length`", {"mask": MASK, "sequence_length": [3] * 4}),
    (ValueError, r"`mask` must be \[batch, time\] like the inputs, \[4, 5\]", {"mask": MASK[:, 1:]}),
    (ValueError, r"`mask` must be \[time, batch\]", {"mask": MASK.T, "time_major": True}),
    (TypeError, r"`mask` must be booleans.*`mask > 0`", {"mask": MASK.astype("f")}),
    (TypeError, "pass lengths as `sequence_length`", {"mask": np.array([3] * 4)}),
    (ValueError, r"`state\[1\]` must .* got float32\[\]. .* `sequence_length` instead of `mask`.",
     {"cell": PAIR, "mask": MASK, "initial_state": (X[:, 0], np.float32(0))}),
    (ValueError, r"`state\[1\]` must .* got TensorArray",
     {"cell": PAIR, "mask": MASK, "initial_state": (X[:, 0], jaxrnn.TensorArray(F32, 1))}),
    (ValueError, r"`state\[1\]` must .* `return_states`.* an output of the cell",
     {"cell": PAIR, "return_states": True, "initial_state": (X[:, 0], np.float32(0))}),
    (TypeError, "`return_states` must be True or False", {"return_states": 1}),
    (TypeError, "`resets` must be booleans, got int64", {"resets": MASK.astype(int)}),
    (ValueError, r"`resets` must be \[batch, time\] like the inputs, \[4, 5\], got", {"resets": MASK.T}),
    (ValueError, "`resets` must be given", {"reset_state": 0.0}),
    (ValueError, "`reset_state` must have the structure", {"resets": MASK, "reset_state": (0.0, 0.0)}),
    (ValueError, r"`reset_state` must have shape \[4, 2\], got",
     {"resets": MASK, "reset_state": ZEROS[0]}),
    (ValueError, r"`cell.zero_state\(\)` must have shape \[3, 2\]",
     {"resets": MASK, "initial_state": ZEROS[1:]}),
    (TypeError, "`reset_state` must have dtype float32",
     {"resets": MASK, "reset_state": ZEROS.astype(float)}),
    # The order of a plain pair (h, c), as in PyTorch, would swap the two arrays.
    (TypeError, "`reset_state` must have", {"cell": LSTM, "resets": MASK, "reset_state": (ZEROS, ZEROS)}),
]  # fmt: skip


REFUSALS = [
    # Other drivers
    (ValueError, "`mask` must be", lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, mask=MASK.T, dtype=F32)),
    (TypeError, "`return_states` must be", lambda: jaxrnn.static_rnn(GRU, [*X], return_states=None)),
    (TypeError, "`return_states` must be",
     lambda: jaxrnn.packed_rnn(GRU, jaxrnn.pack_sequences(X, [1] * 4), dtype=F32, return_states="yes")),
    (TypeError, r"`cell_fw` must be a bound cell, got tuple of length 1. For one layer, pass `cell_fw\[0\]`\.",
     lambda: jaxrnn.bidirectional_dynamic_rnn((GRU,), (GRU,), X, dtype=F32)),
    (TypeError, "`inputs` must be padded",
     lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, jaxrnn.pack_sequences(X, [1] * 4), dtype=F32)),
    (ValueError, "^`state` must have the structure LSTMStateTuple",
     lambda: LSTM(X[:, 0], {"c": ZEROS, "h": ZEROS})),
    # Bidirectional
    (TypeError, "`cell_bw` must be a bound cell, got GRUCell.*`cell_bw.bind",
     lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRUCell(2), X, dtype=F32)),
    (ValueError, "`dtype` must be given.*`initial_state` is `initial_state_bw`",
     lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, initial_state_fw=ZEROS)),
    (TypeError, "`reset_state` is not an argument of `bidirectional_dynamic_rnn`. `dynamic_rnn` and `RNN` accept",
     lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, X, dtype=F32, resets=MASK, reset_state=ZEROS)),
    # Parameters
    (ValueError, r"`params` must have the structure {'bias': \*, 'kernel': \*}, got .*'projection'",
     lambda: LSTM.cell.apply({**LSTM.params, "projection": {"kernel": ZEROS}}, X[:, 0], (ZEROS, ZEROS))),
    (ValueError, r"`params\['candidate'\]\['kernel'\]` must have shape \[7, 2\], got float32\[5, 2\]. Create the parameters for inputs of depth 5",
     lambda: GRU(np.ones((4, 5), np.float32), ZEROS)),
    (TypeError, "`params` must be a dict of arrays, got None", lambda: GRUCell(2).apply(None, X[:, 0], ZEROS)),
    (ValueError, "must hold cell_0, got .*cell_1", lambda: shared_cell()),
    (TypeError, r"`params\['bias'\]` must be an array, got 'zeros'",
     lambda: RNN.cell.apply({**RNN.params, "bias": "zeros"}, X[:, 0], ZEROS)),
    # Cells
    (TypeError, "`initializer` must be a function", lambda: LSTMCell(2, initializer="zeros")),
    (TypeError, "must return an array of shape",
     lambda: bound(LSTMCell(2, initializer=jax.nn.initializers.orthogonal))),
    (TypeError, "`name` must be a string or None, got 5", lambda: GRUCell(2, name=5)),
    (TypeError, "`dtype` must be a dtype such as jnp.float32, got 'foo'", lambda: GRUCell(2, dtype="foo")),
    (TypeError, "`use_peepholes` must be True or False, got 'no'", lambda: LSTMCell(2, use_peepholes="no")),
    (ValueError, "`num_units` must be at most 2147483647, got 9223372036854775808", lambda: GRUCell(2**63)),
    (TypeError, r"a cell must be bound before it is called.*`cell.bind\(params\)\(inputs, state\)`",
     lambda: LSTMCell(2)(X[:, 0], ZEROS)),
    (ValueError, r"`key` must be one key, got key<fry>\[2\]. .*`jax.vmap`",
     lambda: GRUCell(2).init(KEYS, X[:, 0])),
    (ValueError, r"`key` must be one key, got uint32\[2, 2\]",
     lambda: GRUCell(2).init(jax.random.key_data(KEYS), X[:, 0])),
    (ValueError, "`key` must be one key", lambda: GRUCell(2).bind({}, KEYS)),
    (TypeError, "`key` must be a random key, got 'k'",
     lambda: jaxrnn.DropoutWrapper(GRU.cell, 0.5).apply(GRU.params, X[:, 0], ZEROS, key="k")),
    (ValueError, "`t` must be at most 2147483647", lambda: GRU.at_step(2**40)),
    (TypeError, r"`t` must be an integer, got int32\[2\]",
     lambda: GRU.at_step(jnp.arange(2, dtype=jnp.int32))),
    (TypeError, r"`batch_size` must be an integer, got int64\[\]. Pass the number of rows .*static_argnames",
     lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(3)),
    # Custom cells
    (TypeError, r"`shape\[0\]` must be an integer, got 1.5", lambda: jaxrnn.ParamSpec((1.5,), abs)),
    (TypeError, "`initializer` must be a function, got 3", lambda: jaxrnn.ParamSpec((1,), 3)),
    (TypeError, "`update` must be a function, got 3", lambda: Stage(3, 1, 1, abs, None)),
    (TypeError, "`columns` must be an integer, got 1.5", lambda: Stage(abs, 1, 1.5, abs, None)),
    (ValueError, "too many values to unpack", lambda: step_of(Custom(enters=lambda h: h))),
    (ValueError, r"`enter\(state\)\[0\]` must have shape \[4, 2\], got float32\[4, 1\]",
     lambda: step_of(Custom(enters=lambda h: (h[:, :1], h)))),
    (ValueError, r"parameters \(see `path` of `Stage`\) must have different names, got 'kernel' twice",
     lambda: step_of(OfStages((STAGE, STAGE)))),
    (ValueError, r"`enter\(state\)\[0\]` must have the structure \*, got \(\*, \*\).* define `enter`",
     lambda: step_of(OfStages((STAGE,), (2, 2)))),
    (TypeError, r"`dims\[0\]` must be an integer, got '5'", lambda: jaxrnn.TensorShape("5")),
    (ValueError, "`batch_size` must be at least 0", lambda: GRU.zero_state(-2, F32)),
    (TypeError, "`dtype` must be a dtype such as jnp.float32, got None", lambda: GRU.zero_state(4, None)),
    (ValueError, "`inputs` must hold at least one array", lambda: GRU.get_initial_state([])),
    (TypeError, "`forget_bias` must be a number, got None", lambda: LSTMCell(2, forget_bias=None)),
    (ValueError, "`num_proj` must be at least 1, got 0", lambda: LSTMCell(2, num_proj=0)),
    (ValueError, r"`cell_clip` must be in .0, inf., got -1", lambda: LSTMCell(2, cell_clip=-1)),
    (TypeError, "must be None, a name or a function, got 3", lambda: GRUCell(2, activation=3)),
    (ValueError, "`dtype` must be floating-point, got int32", lambda: GRUCell(2, dtype=jnp.int32)),
    (ValueError, r"must be \[batch, depth\], got float32\[4, 5, 3\]",
     lambda: GRUCell(2).init(jax.random.key(0), X)),
    (ValueError, "`batch_size` must be given, got None", lambda: GRU.zero_state(None, F32)),
    (ValueError, r"`batch_size` must be 4 as in `inputs`, got 3",
     lambda: GRU.get_initial_state(X[:, 0], batch_size=3)),
    (ValueError, "`dtype` must be given.*`batch_size` and `dtype`", lambda: GRU.get_initial_state(batch_size=4)),
    (TypeError, "`c` and `h` must have one dtype",
     lambda: jaxrnn.LSTMStateTuple(ZEROS, ZEROS.astype(np.float64)).dtype),
    (TypeError, "`fn` must be a function, got 3", lambda: FunctionCell(3, 2, 2)),
    (TypeError, "`init_fn` must be a function", lambda: FunctionCell(abs, 2, 2, 3)),
    (TypeError, "must be an integer, got 'two'", lambda: FunctionCell(abs, {"a": "two"}, 2)),
    (ValueError, r"`output_size\[1\]` must be an integer, got None", lambda: FunctionCell(abs, 2, (2, None))),
    (ValueError, "must be at least 0, got -1", lambda: jaxrnn.TensorShape([-1])),
    (ValueError, r"`dims\[0\]` must be an integer, got None", lambda: jaxrnn.TensorShape([None])),
    # The order of Flax, and arguments that a cell does not have
    (ValueError, r"^`inputs` must be one array \[batch, depth\] for one step, got LSTMStateTuple\(c=.*\)\.$",
     lambda: LSTM(jaxrnn.LSTMStateTuple(ZEROS, ZEROS), X[:, 0])),
    (TypeError, r"^`scope` must be a string, got key<fry>\[\]. To bind a random key, call `cell.bind\(params, key\)`.$",
     lambda: GRU(X[:, 0], ZEROS, jax.random.key(0))),
    (TypeError, "missing 1 required positional argument: 'params'",
     lambda: GRUCell.bind(GRU.params)),
    # Wrappers
    (ValueError, "`seed` must be at most 9223372036854775807", lambda: jaxrnn.DropoutWrapper(GRUCell(2), seed=2**70)),
    (ValueError, "`dtype` must be floating-point, got int32",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), 0.5, variational_recurrent=True, input_size=3, dtype=jnp.int32)),
    (TypeError, "`input_size` must be an integer, got 'x'",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), input_size="x")),
    (ValueError, "must hold at least one cell", lambda: MultiRNNCell([])),
    (TypeError, "must be a list or tuple", lambda: MultiRNNCell(GRUCell(2))),
    (TypeError, r"`cells\[1\]` must be an RNNCell.*Pass the unbound `cells\[1\].cell`", lambda: MultiRNNCell([GRUCell(2), GRU])),
    (ValueError, "must have one vector as its state if",
     lambda: MultiRNNCell([FunctionCell(keep, jaxrnn.TensorShape([5, 5]), 3)], state_is_tuple=False)),
    (ValueError, r"`cells\[0\]` must have one vector as its state if",
     lambda: MultiRNNCell([LSTMCell(2)], state_is_tuple=False)),
    (ValueError, "a tuple of length 2, with one state per cell, got float32", lambda: STACK(X[:, 0], ZEROS)),
    (TypeError, "`cell` must be an RNNCell", lambda: jaxrnn.ResidualWrapper(abs)),
    (TypeError, "`residual_fn` must be a function", lambda: jaxrnn.ResidualWrapper(GRUCell(2), 3)),
    (ValueError, r"`inputs` must have shape \[4, 2\], got float32\[4, 3\]. To combine an output",
     lambda: bound(jaxrnn.ResidualWrapper(GRUCell(2)))(X[:, 0], ZEROS)),
    (ValueError, "Received invalid value: 3", lambda: jaxrnn.DeviceWrapper(GRUCell(2), 3).zero_state(4, F32)),
    (RuntimeError, "Unknown backend", lambda: jaxrnn.DeviceWrapper(GRUCell(2), "/gpu:9").zero_state(4, F32)),
    (ValueError, r"`device` must name one of the devices \[0, .* got 'cpu:-1'",
     lambda: jaxrnn.DeviceWrapper(GRUCell(2), "cpu:-1").zero_state(4, F32)),
    (ValueError, r"must be in \[0, 1\]", lambda: jaxrnn.DropoutWrapper(GRUCell(2), float("nan"))),
    (TypeError, "`output_keep_prob` must be a number.*Pass a Python number",
     lambda: jax.jit(lambda p: jaxrnn.DropoutWrapper(GRUCell(2), output_keep_prob=p))(0.5)),
    (TypeError, "`dropout_state_filter_visitor` must be a function",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), dropout_state_filter_visitor=3)),
    (ValueError, "`mask_per_row` must be False without `variational_recurrent`",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), 0.5, mask_per_row=True)),
    (ValueError, "`dtype` must be given, got None. Pass the dtype of the inputs",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), variational_recurrent=True)),
    (ValueError, "`input_size` must be given, got None. Pass the depth",
     lambda: jaxrnn.DropoutWrapper(GRUCell(2), 0.5, variational_recurrent=True, dtype=F32)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "given"), DRIVER)
def test_dynamic_rnn_refuses(error, words, given):

    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        dynamic_rnn(**({"cell": GRU, "inputs": X, "dtype": F32} | given))


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()


KEYED = GRU.cell, STACK.cell, FunctionCell(keep, 2, 2), jaxrnn.DropoutWrapper(GRU.cell)


@pytest.mark.parametrize("cell", KEYED, ids=lambda cell: type(cell).__name__)
def test_refuses_a_string_as_a_key(cell):
    words = "^`key` must be a random key, got 'k'"
    with pytest.raises(TypeError, match=words):
        cell.apply({}, X[:, 0], ZEROS, key="k")


def test_the_cells_own_error_says_where_it_was_raised():
    with pytest.raises(
        ValueError, match=r"must have shape \[4, 2\], got float32\[3, 2\]"
    ) as caught:
        dynamic_rnn(GRU, X, initial_state=ZEROS[1:])
    notes = "".join(caught.value.__notes__)
    assert "Raised by one step of `cell`" in notes
    assert "inputs float32[4, 3] and state float32[3, 2]" in notes


def test_a_wrong_depth_names_the_layer_of_a_stack():
    with pytest.raises(ValueError, match="for inputs of depth 4") as caught:
        dynamic_rnn(STACK, np.ones((4, 5, 4), np.float32), dtype=F32)
    assert "Raised by `cells[0]`" in "".join(caught.value.__notes__)


def test_a_dtype_that_jax_replaces_is_warned_of():
    x, key = jnp.asarray(X), jax.random.key(0)
    with jax.enable_x64(False):
        for wide in (jnp.float64, np.float64, "float64", np.dtype("float64")):
            with pytest.warns(
                UserWarning,
                match="`dtype` is float64, but JAX uses float32. Pass float32, or",
            ):
                dynamic_rnn(GRU, x, dtype=wide)
        for call in (
            lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, GRU, x, dtype="float64"),
            lambda: jaxrnn.static_bidirectional_rnn(GRU, GRU, list(x), dtype="float64"),
            lambda: jaxrnn.stack_bidirectional_rnn(
                [GRU], [GRU], list(x), dtype="float64"
            ),
            lambda: jaxrnn.memory_plan(GRUCell(2), (1, 2, 3), [False], dtype="float64"),
        ):
            with pytest.warns(UserWarning, match="`dtype` is float64") as caught:
                call()
            assert [w.filename for w in caught] == [__file__]
        dynamic_rnn(GRU, x, dtype=float)
        GRUCell(2).init(key, X[:, 0].astype(np.float64))
        GRUCell(2).get_initial_state(X[:, 0].astype(np.float64))
    wide = helpers.bound(GRUCell(2, dtype="float64"), 3)
    dynamic_rnn(wide, x.astype(float), dtype="float64")
