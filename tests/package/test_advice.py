"""What messages advise is followed, and the call then runs; other calls are refused.

`test_code_in_messages.py` checks the code in all messages without running it.
"""

import dataclasses
import functools
import operator
import pathlib

import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from flax import nnx
from helpers import usual_promotion
from jax.nn.initializers import normal, zeros

import jaxrnn
import jaxrnn.initializers as init
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, contrib, convert, dynamic_rnn
from jaxrnn.export import BidirectionalStreamer, Streamer
from jaxrnn.memory import Offload, Recompute

F32, C64, I32 = jnp.float32, jnp.complex64, jnp.int32
X = np.ones((4, 5, 3), np.float32)
X0 = X[:, 0]
STEPS = list(X.swapaxes(0, 1))
KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), F32)
MASK = X[..., 0] > 0
IDS = MASK.astype(int)
ZEROS = np.zeros((4, 2), np.float32)
PAIR = (ZEROS, ZEROS)
H0, H3 = np.zeros(2, np.float32), X[0, 0]
PACKED = jaxrnn.pack_sequences([X[0], X[1, :3], X[2, :2]])
WINDOW, PART = (jaxrnn.windows(long, 3)[1] for long in (X, PACKED))
# As of Grain, which counts the sequences of each row anew.
ANEW = PACKED._replace(
    segment_ids=PACKED.segment_ids - PACKED.segment_ids.min(1, keepdims=True) + 1
)
bound = functools.partial(helpers.bound, dtype="float32")
GRU, LSTM, MIN_GRU = bound(GRUCell(2)), bound(LSTMCell(2)), bound(jaxrnn.MinGRUCell(2))
MLSTM, MASKED = bound(jaxrnn.MLSTMCell(2)), np.ma.asarray(X)
STACK = bound(jaxrnn.MultiRNNCell([GRUCell(2), GRUCell(2)]))
WIDE = helpers.bound(GRUCell(2))
run = functools.partial(dynamic_rnn, dtype=F32)
gru = functools.partial(run, GRU, X)
run_steps = functools.partial(jaxrnn.static_rnn, dtype=F32)
two_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, X)
lite = functools.partial(jaxrnn.lite.dynamic_rnn, GRU, dtype=F32)
plan = functools.partial(jaxrnn.memory_plan, LSTM, X, dtype=F32)
array = functools.partial(jaxrnn.TensorArray, F32)


def cell_of(step, state_size=3, output_size=3, **options):
    fn = lambda p, x, s, key=None: step(x, s)
    return jaxrnn.FunctionCell(fn, state_size, output_size, **options)


def run_step(step, *sizes, **options):
    return run(cell_of(step, *sizes).bind({}), **{"inputs": X, **options})


def keep(x, s):
    return x, s


def count(x, s):
    return x, (s[0], s[1] + 1)


def saving(saver, step=keep):
    return jaxrnn.static_state_saving_rnn(cell_of(step).bind({}), STEPS[:1], saver, "s")


def in_nnx(cell=GRU.cell, kind="RNN", depth=3, **options):
    cells = [cell] * (2 if kind == "Bidirectional" else 1)
    return getattr(jaxrnn.nnx, kind)(*cells, depth, rngs=nnx.Rngs(0), **options)


both_in_nnx = functools.partial(in_nnx, kind="Bidirectional")


def in_linen(*args, cell=GRU.cell, options=(), **kwargs):
    module = jaxrnn.linen.RNN(cell, **dict(options))
    return module.init_with_output({"params": KEY, "dropout": KEY}, *args, **kwargs)


def raw(
    *, cell=GRU, state=ZEROS, emit=None, change=lambda y: y, finished=None, limit=None
):
    """`raw_rnn` over all steps."""

    def loop_fn(time, output, cell_state, loop_state):
        done = time >= 5 if finished is None else finished(time)
        output = emit if output is None else change(output)
        cell_state = state if cell_state is None else cell_state
        return done, jnp.asarray(X)[:, jnp.minimum(time, 4)], cell_state, output, None

    return jaxrnn.raw_rnn(cell, loop_fn, max_time=limit)


def decoded(state):
    embed = lambda ids: jnp.zeros((4, 3), F32)
    project = lambda output: jnp.zeros((4, 5), F32)
    return jaxrnn.decode.Model(LSTM, embed, project, state, [1] * 4, 0)


def number_over_rows(packed):
    """Calls the function of the guide to packing."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "guide" / "packing.md"
    codes = [block["code"] for block in run_page.BLOCK.finditer(page.read_text())]
    [code] = [code for code in codes if code.startswith("def number_over_rows")]
    names = {"np": np}
    exec(code, names)
    return names["number_over_rows"](packed)


SCALAR = jaxrnn.TensorShape([])
COUNTING = cell_of(count, (3, SCALAR), is_random=False)
COUNTED = COUNTING.bind({})
KEEPING = cell_of(keep, (3, SCALAR), 3).bind({})
KEYED = cell_of(keep, SCALAR).bind({})
SUM = cell_of(lambda x, s: (x[0] + x[1], s)).bind({})
TWO = cell_of(lambda x, s: ((x, x.argmax(-1).astype(I32)), s), 3, (3, SCALAR)).bind({})
EMIT_TWO = (jax.ShapeDtypeStruct((3,), F32), jax.ShapeDtypeStruct((), I32))
SHARED, COUNTS = (X0, np.float32(0)), (X0, np.zeros(4, np.int32))
GROWING = cell_of(lambda x, s: (x, x + s[None])).bind({})
LONGER = cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1))).bind({})
ROTATING = cell_of(lambda x, s: (x, s.astype(C64))).bind({})
HALVED = cell_of(lambda x, s: (x.astype(jnp.bfloat16), s)).bind({})
MEMORY_CELL = contrib.AttentionWrapper(GRUCell(2), contrib.LuongAttention(2, 3))
NOISY = jaxrnn.DropoutWrapper(GRUCell(2), 0.5)
GRU_PARAMS = {"params": {"gru_cell": GRU.params}}
COMPLEX = GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(jaxrnn.AffineCell):
    """A custom cell."""

    stages: object = ()
    state_size = output_size = 2


class TwoStates(Affine):
    """A cell with two states, of which only a subclass may enter the first."""

    state_size = (2, 2)


class Enters(TwoStates):
    enter = lambda self, state: state


STAGE = jaxrnn.Stage(lambda p, z, h: (z, z), 2, 2)
OF_TWO = (jaxrnn.Stage(lambda p, z, h: (z, (z, h)), 2, 2, normal()),)
ONE_RESULT = jaxrnn.Stage(lambda p, z, h: z, 2, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Mutable(jaxrnn.RNNCell):
    """A cell with a hyperparameter that may not be hashable."""

    sizes: object
    state_size = output_size = 3

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state


class NoHash(Mutable):
    __eq__ = lambda self, other: self is other
    __hash__ = object.__hash__


def check(cell, law):
    [law] = [each for each in jaxrnn.testing.LAWS if each.__name__ == law]
    law(jaxrnn.testing.make_setup(cell, STEP))


def without_x64(dtype):
    with jax.enable_x64(False):
        return run(GRU, X, dtype=dtype)


def drop(cell=NOISY.cell, initial_state=None, **options):
    cell = jaxrnn.DropoutWrapper(cell, **options)
    return run(bound(cell).cell.bind(bound(cell).params, KEY), X, None, initial_state)


drop_counts = functools.partial(drop, COUNTING, COUNTS, state_keep_prob=0.5)


def first_of_pair(state):
    return (True, False) if isinstance(state, tuple) else True


TORCH = convert.to_torch(LSTM, at="lstm")
(KERAS,) = convert.to_keras(LSTM)
MODEL = [np.ones((9, 3), np.float32), *KERAS, ZEROS[:2], H0]  # Three layers.
(NODE,) = convert.to_onnx_nodes(LSTM)
STARTED = NODE | {"initial_h": np.ones((1, 1, 2), np.float32)}
NODES = [NODE | {"name": f"LSTM_{i}", "reads": None} for i in range(2)]
load_torch, load_keras = convert.from_torch, convert.from_keras
NNX_GRU = nnx.GRUCell(3, 2, rngs=nnx.Rngs(0))


def run_started():
    node = dict(STARTED)
    initial_h = node.pop("initial_h")
    h = jnp.broadcast_to(initial_h[0], (4, 2))
    return run(convert.from_onnx(node), X, None, LSTMStateTuple(ZEROS, h))


class Counts(nnx.RNNCellBase):
    """A cell of nnx that counts its steps in its carry, and may hold more."""

    def __init__(self, count=None, dropout=None):
        self.count, self.dropout = count, dropout

    def __call__(self, carry, inputs):
        return carry + 1, inputs if self.dropout is None else self.dropout(inputs)

    def initialize_carry(self, input_shape, rngs=None):
        return jnp.zeros((*input_shape[:-1], 1), F32)


def nnx_dropout(key=None, evaluates=False):
    """An nnx cell with dropout in a driver."""
    module = Counts(dropout=nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    if evaluates:
        module.eval()
    cell = jaxrnn.nnx.as_cell(module, 3)
    return run(cell if key is None else cell.cell.bind(cell.params, key), X)


def in_jit(**declared):
    """Calls an nnx module, over which a function closes, under `jax.jit`."""
    rnn = in_nnx(cell_of(keep, **declared))
    return jax.jit(lambda x, key: rnn(x, rngs=key))


# Each row: the advice, as in the message; the call that fails; calls that follow it.
ADVICE = [
    # Drivers
    ("Pass `cell.bind(params)`", lambda: run(GRU.cell, X), lambda: run(GRU.cell.bind(GRU.params), X)),
    ("For one layer, pass `cell[0]`; for several, pass a bound `MultiRNNCell`", lambda: run([GRU], X), lambda: (run([GRU][0], X), run(STACK, X))),
    ("Convert a Flax cell with `as_cell`", lambda: run(nn.GRUCell(2), X), lambda: run(bound(jaxrnn.linen.as_cell(nn.GRUCell(2))), X)),
    ("Create them with its `init`", lambda: run(jaxrnn.LSTMCell(2).bind(GRU.params), X), lambda: run(bound(jaxrnn.LSTMCell(2)), X)),
    ("pass `dtype=jnp.float32`", lambda: dynamic_rnn(GRU, X), lambda: dynamic_rnn(GRU, X, dtype=jnp.float32)),
    ("pass `inputs[None]`", lambda: run(GRU, X[0]), lambda: run(GRU, X[0][None])),
    ("`inputs.reshape(-1, *inputs.shape[-2:])`, or use a module `RNN`", lambda: run(GRU, X[None]), lambda: (run(GRU, X[None].reshape(-1, *X.shape[-2:])), in_nnx()(X[None]))),
    ("check `time_major`", lambda: gru([1] * 5), lambda: gru([1] * 5, time_major=True)),
    ("Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`", lambda: gru(np.ones(4)), lambda: (gru(np.ones(4).astype(jnp.int32)), gru(mask=MASK), gru(initial_state=ZEROS))),
    ("Create a state with `cell.zero_state`", lambda: run(LSTM, X, None, ZEROS), lambda: run(LSTM, X, None, LSTM.zero_state(4, F32))),
    ("`return output, (c, h)`", lambda: run_step(lambda x, s: (x, *s), (3, 3)), lambda: run_step(keep, (3, 3))),
    ("Pass `dtype=jnp.bfloat16`", lambda: run(HALVED, X), lambda: run(HALVED, X, None, X0, dtype=jnp.bfloat16)),
    ("For outputs of several dtypes, use `raw_rnn`", lambda: run(TWO, X, dtype=I32), lambda: raw(cell=TWO, state=X0, emit=EMIT_TWO)),
    ("Convert numbers with `mask > 0`; pass lengths as `sequence_length`", lambda: gru(mask=IDS), lambda: (gru(mask=IDS > 0), gru(sequence_length=IDS.sum(-1)))),
    ("run one sequence per row, with `initial_state`", lambda: gru(resets=MASK, reset_state=X[..., :2]), lambda: gru(initial_state=ZEROS)),
    ("accept `resets=jaxrnn.resets_of_done(done, last_done)`", lambda: gru(done=MASK), lambda: gru(resets=jaxrnn.resets_of_done(MASK, MASK[:, 0]))),
    ("Omit `implementation`", lambda: run(MIN_GRU, X, implementation="native"), lambda: run(MIN_GRU, X)),
    ("use `Offload(Recompute(64))`", lambda: Offload(64), lambda: Offload(Recompute(64))),
    ("split an array x [batch, time, ...] with `list(jnp.swapaxes(x, 0, 1))`", lambda: run_steps(GRU, X), lambda: run_steps(GRU, list(jnp.swapaxes(X, 0, 1)))),
    ("such as `time >= lengths`", lambda: raw(finished=lambda time: 1), lambda: raw(finished=lambda time: time >= np.full(4, 5, np.int32))),
    ("Return `cell.zero_state(batch, dtype)` then", lambda: raw(state=None), lambda: raw(state=GRU.zero_state(4, F32))),
    ("Pass `max_time`", lambda: jax.jit(lambda: raw()[0].stack())(), lambda: jax.jit(lambda: raw(limit=5)[0].stack())()),
    ("use `if` only for `cell_output is None`", lambda: jax.jit(lambda: raw(finished=lambda time: bool(time >= 5), limit=6)[1])(), lambda: jax.jit(lambda: raw(limit=6)[1])()),
    ("pass `seq_axis=1` and `batch_axis=0`", lambda: jaxrnn.reverse_sequence(X, [1] * 4, 0, 0), lambda: jaxrnn.reverse_sequence(X, [1] * 4, seq_axis=1, batch_axis=0)),
    ("Swap the first two axes of the inputs", lambda: lite(X, time_major=False), lambda: lite(X.swapaxes(0, 1))),
    ("the module: `cell.get_cells()`", lambda: run(in_nnx(), X), lambda: run(in_nnx().get_cells(), X)),
    # Packs and export
    ("Pass `packed.inputs`, with `packed.lengths` and `resets=packed.resets`.", lambda: run(GRU, PACKED), lambda: run(GRU, PACKED.inputs, PACKED.lengths, resets=PACKED.resets)),
    ("Pass `window.inputs`, with `sequence_length=window.sequence_length`.", lambda: run(GRU, WINDOW), lambda: run(GRU, WINDOW.inputs, sequence_length=WINDOW.sequence_length)),
    ("run the pack `window.inputs`: pass its `inputs`, with its `lengths` and `resets`.", lambda: run(GRU, PART), lambda: run(GRU, PART.inputs.inputs, PART.inputs.lengths, resets=PART.inputs.resets)),
    ("has `number_over_rows` for packs of other libraries", lambda: ANEW.at_ends(ANEW.inputs), lambda: number_over_rows(ANEW).at_ends(ANEW.inputs)),
    ("Pass a list, such as `strategies=[True]`.", lambda: plan(swap_memory=True), lambda: plan(strategies=[True])),
    ("pass `sequence_length`; otherwise, pass `list(inputs)`", lambda: jaxrnn.pack_sequences(X), lambda: (jaxrnn.pack_sequences(X, sequence_length=[1] * 4), jaxrnn.pack_sequences(list(X)))),
    ("Call this function outside jit, grad and vmap", lambda: jax.jit(lambda x: jaxrnn.pack_sequences(x, [1] * 4).inputs)(X), lambda: jax.jit(lambda p: p.inputs)(jaxrnn.pack_sequences(X, [1] * 4))),
    ("`BidirectionalStreamer`", lambda: Streamer((GRU, GRU), 4), lambda: BidirectionalStreamer([GRU], [GRU], 5, 0, 4)(X)),
    ("pass `jnp.ones(4, bool)`", lambda: jaxrnn.resets_of_done(MASK), lambda: jaxrnn.resets_of_done(MASK, jnp.ones(4, bool))),
    ("create a stream with their `dtype`", lambda: Streamer(WIDE, 4)(np.float64(X0)), lambda: Streamer(WIDE, 4, dtype=jnp.float64)(np.float64(X0))),
    ("Create a state with `cell.initial_state(memory)`", lambda: Streamer(bound(MEMORY_CELL), 4), lambda: Streamer(bound(MEMORY_CELL), 4, initial_state=MEMORY_CELL.initial_state(X))(X0)),
    # Cells and wrappers
    ("Call `cell.bind(params)(inputs, state)`", lambda: GRUCell(2)(X0, ZEROS), lambda: GRUCell(2).bind(GRU.params)(X0, ZEROS)),
    ("such as `x.shape[0]`. Under jit, a number needs `static_argnames`", lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(4), lambda: (jax.jit(lambda x: GRU.zero_state(x.shape[0], F32))(X), jax.jit(lambda n: GRU.zero_state(n, F32), static_argnames="n")(n=4))),
    ("in a custom cell, `input_rows`", lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros), F32), lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros, input_rows=3), F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(GRU, X, dtype="float64"), lambda: dynamic_rnn(GRU, X, dtype="float32")),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype="bfloat16"), lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype=F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(MLSTM, X, dtype="bfloat16"), lambda: dynamic_rnn(MLSTM, X, dtype=F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(STACK, X, dtype="bfloat16"), lambda: dynamic_rnn(STACK, X, dtype=F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: jaxrnn.static_rnn(GRU, STEPS, dtype="float64"), lambda: jaxrnn.static_rnn(GRU, STEPS, dtype=F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: two_ways(dtype="bfloat16"), lambda: two_ways(dtype=F32)),
    ("Pass `dtype=jnp.float32`", lambda: dynamic_rnn(MIN_GRU, X, dtype="float64"), lambda: dynamic_rnn(MIN_GRU, X, dtype=F32)),
    ("Create a state with `cell.zero_state` and `dtype=jnp.float32`.", lambda: GRU(X0, ZEROS.astype(np.float16)), lambda: GRU(X0, GRU.zero_state(4, F32))),
    ("or define `enter`", lambda: run(bound(TwoStates(OF_TWO)), X), lambda: run(bound(Enters(OF_TWO)), X)),
    ("Pass the unbound `cells[1].cell`", lambda: jaxrnn.MultiRNNCell([GRUCell(2), GRU]), lambda: jaxrnn.MultiRNNCell([GRUCell(2), GRU.cell])),
    ("Pass `jnp.tanh`.", lambda: jaxrnn.MultiRNNCell([GRUCell(2), np.tanh]), lambda: run(bound(jaxrnn.MultiRNNCell([GRUCell(2), jnp.tanh])), X)),
    ("Define a function that calls this object.", lambda: jaxrnn.MultiRNNCell([GRUCell(2), operator.methodcaller("sum", 1, keepdims=True)]), lambda: run(bound(jaxrnn.MultiRNNCell([GRUCell(2), lambda y: operator.methodcaller("sum", 1, keepdims=True)(y)])), X)),
    ("pass a `residual_fn`", lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2))), X), lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2), lambda x, y: x[:, :2] + y)), X)),
    ("exclude the leaf of a state with `dropout_state_filter_visitor`", drop_counts, lambda: drop_counts(dropout_state_filter_visitor=first_of_pair)),
    ("create it with `dynamic_size=True`", lambda: array(1).write(1, X), lambda: array(1, dynamic_size=True).write(1, X)),
    # Convert and decode
    ("For Keras 3, pass `jax.nn.hard_sigmoid`.", lambda: load_keras(KERAS, recurrent_activation="hard_sigmoid"), lambda: run(load_keras(KERAS, recurrent_activation=jax.nn.hard_sigmoid), X)),
    ("Pass the name of a module as `at`: 'lstm.'", lambda: load_torch(TORCH), lambda: run(load_torch(TORCH, at="lstm."), X)),
    ("Pass a list with `layer.get_weights()` of each recurrent layer", lambda: load_keras(MODEL), lambda: run(load_keras([KERAS]), X)),
    ("pass `nnx.state(module, nnx.Param)`", lambda: convert.from_flax(NNX_GRU), lambda: convert.from_flax(nnx.state(NNX_GRU, nnx.Param))),
    ("`initial_h = node.pop('initial_h')`, pass the dict to `from_onnx`, and pass `jnp.broadcast_to(initial_h[0], (batch, units))`", lambda: convert.from_onnx(STARTED), run_started),
    ("Pass `LSTMStateTuple(c=c, h=h)`", lambda: decoded(PAIR), lambda: decoded(LSTMStateTuple(*PAIR))),
    # Modules
    ("For one step of each row, pass `inputs[:, None]`.", lambda: in_nnx()(X0, initial_state=ZEROS), lambda: in_nnx()(X0[:, None], initial_state=ZEROS)),
    ("with `in_features=3` of an nnx module", lambda: in_nnx(depth=4)(X), lambda: in_nnx(depth=3)(X)),
    ("a dict of tuples such as {'bias': ('hidden',)}", lambda: in_linen(X, options={"axis_names": "bias"}), lambda: in_linen(X, options={"axis_names": {"bias": ("hidden",)}})),
    ("To add the outputs, pass `jnp.add`", lambda: both_in_nnx(merge="sum")(X), lambda: both_in_nnx(merge=jnp.add)(X)),
    ("Pass `rngs=key`", lambda: in_jit()(X, None), lambda: (in_jit()(X, KEY), in_jit(is_random=False)(X, None))),
    ("Pass `cell.cell.bind(cell.params, key)`, or call `module.eval()`", nnx_dropout, lambda: (nnx_dropout(KEY), nnx_dropout(evaluates=True))),
]  # fmt: skip


@pytest.mark.fast("*dtype=jnp*", "*max_time*", "*in_features*", "*prefix*", "*pack*")
@pytest.mark.parametrize(
    ("advice", "fails", "followed"), ADVICE, ids=lambda x: x if type(x) is str else ""
)
def test_advice_can_be_followed(advice, fails, followed):
    with usual_promotion():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
            fails()
        text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
        assert advice in text
        followed()


def test_time_major_is_not_blamed_for_a_state_of_one_row_and_one_step():
    with pytest.raises(ValueError, match="`state`") as caught:
        dynamic_rnn(GRU, X[:1, :1], None, X0[:1])
    text = "\n".join([str(caught.value), *caught.value.__notes__])
    assert "time_major" not in text


REFUSALS = [
    # Drivers: plain pairs of states
    (UserWarning, "`initial_state`", lambda: run(LSTM, X, None, PAIR)),
    (UserWarning, "`initial_state`", lambda: run(LSTM, X, None, list(PAIR))),
    (UserWarning, "`initial_state`", lambda: run(bound(jaxrnn.MultiRNNCell([GRUCell(2), LSTMCell(2)])), X, None, (ZEROS, PAIR))),
    (UserWarning, "`initial_state`", lambda: jaxrnn.static_rnn(LSTM, STEPS, PAIR)),
    (UserWarning, "`initial_state`", lambda: jaxrnn.bidirectional_dynamic_rnn(GRU, LSTM, X, None, ZEROS, PAIR)),
    (UserWarning, "`initial_state`", lambda: in_nnx(LSTM.cell)(X, initial_state=PAIR)),
    (UserWarning, "`initial_state`", lambda: in_linen(X, cell=LSTM.cell, initial_state=PAIR)),
    (UserWarning, "`initial_state`", lambda: contrib.LSTMBlockFusedCell(2).bind(LSTM.params)(X.swapaxes(0, 1), PAIR, sequence_length=[1] * 4)),
    (TypeError, "`initial_state`", lambda: run(LSTM, X, [1] * 4, PAIR)),
    (TypeError, "`initial_state`", lambda: run(LSTM, X, None, PAIR, mask=MASK)),
    (TypeError, "`initial_state`", lambda: jaxrnn.static_rnn(LSTM, STEPS, PAIR, F32, [1] * 4)),
    (TypeError, "`initial_state`", lambda: in_nnx(LSTM.cell)(X, [1] * 4, initial_state=PAIR)),
    (TypeError, "`initial_state`", lambda: run(MLSTM, X, [1] * 4, tuple(MLSTM.zero_state(4, F32)))),
    (UserWarning, "`initial_state`", lambda: Streamer(LSTM, 4, initial_state=PAIR)),
    (TypeError, "`initial_state`", lambda: contrib.BasicDecoder(LSTM, contrib.GreedyEmbeddingHelper(X0, [0], 0), PAIR)),
    # Plain pairs in one step
    (UserWarning, "`state`", lambda: LSTM(X0, PAIR)),
    (UserWarning, "`state`", lambda: jax.jit(LSTM.cell.apply)(LSTM.params, X0, list(PAIR))),
    (UserWarning, "`state`", lambda: bound(contrib.LayerNormBasicLSTMCell(2))(X0, PAIR)),
    (UserWarning, "`state`", lambda: bound(jaxrnn.MultiRNNCell([GRUCell(2), LSTMCell(2)]))(X0, (ZEROS, PAIR))),
    (UserWarning, "`state`", lambda: jaxrnn.DropoutWrapper(LSTM.cell, 0.5).bind(LSTM.params, KEY)(X0, PAIR)),
    (UserWarning, "`state`", lambda: in_nnx(LSTM.cell, "Cell")(PAIR, X0)),
    # Drivers: other arguments
    (ValueError, "`dtype`", lambda: dynamic_rnn(KEEPING, X, None, COUNTS)),
    (ValueError, "`dtype`", lambda: two_ways(initial_state_fw=ZEROS)),
    (UserWarning, "`dtype`", lambda: without_x64("float64")),
    (ValueError, "`inputs`", lambda: gru.func(GRU, X.astype(int), dtype=F32)),
    (ValueError, "`inputs`", lambda: run(GRU, (X, X))),
    (TypeError, "`inputs`", lambda: run(GRU, MASKED)),
    (ValueError, "^`inputs` must", lambda: run(GRU, PACKED)),
    (ValueError, "^`inputs` must", lambda: two_ways.func(GRU, GRU, PACKED)),
    (ValueError, "^`inputs` must", lambda: run(GRU, WINDOW)),
    (ValueError, "^`inputs` must", lambda: two_ways.func(GRU, GRU, WINDOW)),
    (ValueError, "^`inputs` must", lambda: run_steps(GRU, WINDOW)),
    (TypeError, "`inputs`", lambda: GRU(MASKED[:, 0], ZEROS)),
    (TypeError, "`sequence_length`", lambda: gru(np.ma.ones(4, int))),
    (TypeError, "`jnp.broadcast_to", lambda: run(LONGER, X, initial_state=H3)),
    (TypeError, "`new_state`", lambda: run(ROTATING, X)),
    (TypeError, r"`enter\(state\)\[0\]`", lambda: gru(None, ZEROS.astype(float))),
    (TypeError, "`state`", lambda: run(MIN_GRU, X, None, ZEROS.astype(np.float16))),
    (TypeError, "`inputs`", lambda: run(GRUCell(2, dtype="float64").bind(GRU.params), X)),
    (TypeError, r"`params\['candidate'\]\['bias'\]`", lambda: run(GRU, X.astype(float))),
    (TypeError, "`output`", lambda: run_step(lambda x, s: (s.real, s), dtype=C64)),
    (TypeError, "`resets`", lambda: gru(resets=IDS)),
    (ValueError, "`reset_state`", lambda: gru(resets=MASK, reset_state=H0)),
    (ValueError, r"`initial_state\[1\]` must have shape", lambda: run(KEEPING, X, None, SHARED, resets=MASK)),
    (ValueError, "`reset_state`", lambda: run(KEYED, X, None, jax.random.split(KEY, 4), resets=MASK)),
    (TypeError, "`return_states`", lambda: jax.jit(lambda b: gru(return_states=b))(True)),
    (TypeError, "`cell_bw`", lambda: two_ways.func(GRU, GRU.cell, X)),
    (TypeError, "`strategies`", lambda: plan(strategies=Recompute())),
    (TypeError, "^`swap_memory` must", lambda: plan(swap_memory=True)),
    (TypeError, "^`swap_memory` must", lambda: plan.func(LSTM, X, None, None, F32, 1, True)),
    (TypeError, "`output`", lambda: jaxrnn.memory_plan(cell_of(lambda x, s: (s.real, s)).bind({}), X, dtype=C64)),
    (ValueError, "`inputs`", lambda: lite(PACKED)),
    (TypeError, "`state`", lambda: BidirectionalStreamer([WIDE], [WIDE], 5, 0, 4)(np.float64(X))),
    # Lists of steps
    (ValueError, r"`inputs\[0\]\[1\]`", lambda: run_steps(SUM, [(X0, X[:, 0, 0])])),
    (ValueError, "`inputs`", lambda: run_steps(GRU, [*X[0]])),
    (ValueError, r"`inputs\[1\]`", lambda: run_steps(GRU, [X[0], X[1, :3]])),
    (ValueError, "^`inputs` must", lambda: run_steps(GRU, PACKED)),
    (ValueError, r"`inputs\[1\]`", lambda: run_steps(GRU, [X0, X0[:, :2]])),
    (ValueError, r"`inputs\[1\]`", lambda: run_steps(GRU, [X0, (X0,)])),
    (TypeError, r"`inputs\[1\]`", lambda: run_steps(GRU, [X0, X0.astype(np.float16)])),
    (TypeError, "`state_saver`", lambda: saving({"s": X0})),
    (ValueError, "`new_state`", lambda: saving(jaxrnn.StateSaver({"s": X0}), lambda x, s: (x, (s,)))),
    # `raw_rnn`
    (ValueError, "`emit_output`", lambda: raw(change=lambda y: y[:, :1])),
    (ValueError, "`finished`", lambda: raw(finished=lambda time: time >= 5 if time == 0 else np.ones(4, bool))),
    (ValueError, "`next_cell_state`", lambda: raw(cell=GROWING, state=H3)),
    (ValueError, "`initial_state`", lambda: raw(state=H0, finished=lambda time: time >= np.full(4, 5, np.int32))),
    # Cells
    (TypeError, "unhashable", lambda: Mutable({1}).bind({})),
    (TypeError, "`fn`", lambda: jaxrnn.FunctionCell(lambda params, inputs, state: None, 3, 3)),
    (ValueError, "`inputs`", lambda: GRUCell(2).init(KEY, X)),
    (ValueError, "`params`", lambda: run(GRU.cell.bind({}), X)),
    (ValueError, r"`params\['candidate'\]\['kernel'\]`", lambda: run(GRU, X[..., :2])),
    (TypeError, "`params`", lambda: GRU.cell.apply(None, X0, ZEROS)),
    (ValueError, "`batch_size`", lambda: GRU.zero_state(None, F32)),
    (ValueError, "`dtype`", lambda: GRU.get_initial_state(batch_size=4)),
    (TypeError, "`t`", lambda: GRU.at_step(np.arange(3))),
    (TypeError, "`key`", lambda: GRUCell(2).init(0, STEP)),
    (ValueError, r"`stages\[0\].update`", lambda: run(bound(Affine((ONE_RESULT,))), X)),
    (TypeError, "`stages`", lambda: bound(Affine(STAGE))),
    (ValueError, "`as_cell`", lambda: jaxrnn.nnx.as_cell(Counts(), 3).cell.init(KEY, STEP)),
    (TypeError, "`c` and `h`", lambda: LSTMStateTuple(ZEROS, ZEROS.astype(float)).dtype),
    (ValueError, "`blocks`", lambda: init.chrono(9)(KEY, (2,), F32)),
    (ValueError, "`chrono`", lambda: LSTMCell(2, initializer=init.chrono(9)).init(KEY, STEP)),
    (AssertionError, "`__eq__`", lambda: check(NoHash(3), jaxrnn.testing.LAWS[0].__name__)),
    (AssertionError, r"`gradients\[0\]`", lambda: check(jaxrnn.FunctionCell(lambda p, x, s, key=None: (s + jnp.sqrt((p * x) ** 2), s), 3, 3, lambda key, inputs, dtype: jnp.ones((), dtype)), "ignores_padding")),
    # Wrappers
    (ValueError, "`dtype`", lambda: drop(variational_recurrent=True)),
    (ValueError, "`input_size`", lambda: drop(input_keep_prob=0.5, variational_recurrent=True, dtype=F32)),
    (TypeError, "`output_keep_prob`", lambda: jax.jit(lambda p: drop(output_keep_prob=p))(0.5)),
    (ValueError, "`dropout_state_filter_visitor`", lambda: drop_counts(dropout_state_filter_visitor=lambda s: (True,))),
    # `TensorArray`
    (ValueError, "`TensorArray`", lambda: array(1).read(0)),
    (ValueError, "`index`", lambda: array(2, infer_shape=False).write(0, X).read(1)),
    (ValueError, "`size`", lambda: jax.jit(lambda t: array(0, dynamic_size=True).write(t, X))(0)),
    (TypeError, "`index`", lambda: jax.jit(lambda t: array(2, infer_shape=False).write(t, X[0]))(0)),
    (NotImplementedError, "`jax.grad`", lambda: array(1).grad("loss")),
    # Converters
    (TypeError, "`lstm.bias_ih_l0`", lambda: load_torch(TORCH | {"lstm.bias_ih_l0": np.ma.asarray(TORCH["lstm.bias_ih_l0"])}, at="lstm")),
    (ValueError, r"`model\[1\]`", lambda: convert.from_onnx(NODES)),
    (ValueError, r"`model\['activation_alpha'\]`", lambda: convert.from_onnx(NODE | {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [1 / 6]})),
    # Modules
    (ValueError, r"`variables\['params'\]\['layers_0'\]`", lambda: nn.Sequential([jaxrnn.linen.RNN(GRU.cell)]).apply({"params": {"layers_0": {"other": {}}}}, X)),
    (ValueError, "'gru_cell'", lambda: jaxrnn.linen.Bidirectional(GRU.cell, GRU.cell).apply({"params": {"fw": {"other": {}}, "bw": {"other": {}}}}, X)),
    (ValueError, "`resets`", lambda: in_nnx()(X0, resets=MASK[:, :1])),
    (ValueError, "`initial_state`", lambda: in_linen(X0, initial_state=ZEROS, options={"time_major": True})),
    (ValueError, r"`params\['candidate'\]\['kernel'\]`", lambda: nnx.RNN(in_nnx(kind="Cell", depth=4))(X)),
    (TypeError, "`cell`", lambda: in_nnx(GRU)),
    (ValueError, "`cell`", lambda: in_nnx(NOISY, "Cell")),
    (ValueError, "`module`", lambda: jaxrnn.nnx.as_cell(Counts(nnx.Variable(jnp.zeros((), F32))), 3)),
    (ValueError, "`cells`", lambda: jaxrnn.linen.RNN(GRUCell(3)).variables_of(GRU)),
    (ValueError, "`cells`", lambda: in_nnx().set_cells(GRU, GRU)),
    (ValueError, "`axis_names`", lambda: in_linen(X, options={"axis_names": {"kernal": (None, None)}})),
    (ValueError, "`initial_state`", lambda: both_in_nnx()(X, initial_state=ZEROS)),
    (ValueError, "`reset_state`", lambda: both_in_nnx()(X, resets=MASK, reset_state=PAIR)),
    (ValueError, "`state`", lambda: in_linen(X, initial_state=H0)),
    (TypeError, "`output`", lambda: in_nnx(cell_of(lambda x, s: (x.astype(C64), s)))(X)),
    (ValueError, "^`inputs` must", lambda: in_linen(PACKED)),
    (ValueError, "^`inputs` must", lambda: in_linen(WINDOW)),
    (ValueError, "^`inputs` must", lambda: in_nnx()(WINDOW)),
    (TypeError, "`rngs`", lambda: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=0)),
    (ValueError, "`params`", lambda: in_nnx().set_cells(GRU.cell.bind({}))),
    (TypeError, "'bias'", lambda: in_nnx().set_cells(COMPLEX)),
    (ValueError, "`variables`", lambda: jaxrnn.linen.RNN(GRUCell(2)).cells_of({})),
]  # fmt: skip
test_refuses = helpers.refusals(REFUSALS)
