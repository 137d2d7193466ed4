"""What messages advise is followed, and the call then runs; other calls are refused.

`test_code_in_messages.py` checks the code in all messages without running it.
"""

import dataclasses
import functools

import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import usual_promotion
from jax.nn.initializers import normal, zeros

import jaxrnn
import jaxrnn.initializers as init
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, convert, dynamic_rnn
from jaxrnn.export import BidirectionalStreamer, Streamer
from jaxrnn.memory import Offload, Recompute

F32, C64, I32 = jnp.float32, jnp.complex64, jnp.int32
X = np.ones((4, 5, 3), np.float32)
X0 = X[:, 0]
STEPS = list(X.swapaxes(0, 1))
KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), F32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
PAIR = (ZEROS, ZEROS)
H0, H3 = np.zeros(2, np.float32), X[0, 0]
PACKED = jaxrnn.pack_sequences([X[0], X[1, :3], X[2, :2]])
WINDOW, PART = (jaxrnn.windows(long, 3)[1] for long in (X, PACKED))
bound = functools.partial(helpers.bound, dtype="float32")
GRU, LSTM, MIN_GRU = bound(GRUCell(2)), bound(LSTMCell(2)), bound(jaxrnn.MinGRUCell(2))
MASKED = np.ma.asarray(X)
STACK = bound(jaxrnn.MultiRNNCell([GRUCell(2), GRUCell(2)]))
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


def run_step(step, *sizes):
    return run(cell_of(step, *sizes).bind({}), X)


def keep(x, s):
    return x, s


def saving(saver):
    return jaxrnn.static_state_saving_rnn(cell_of(keep).bind({}), STEPS[:1], saver, "s")


def in_nnx(cell=GRU.cell, kind="RNN", depth=3, **options):
    cells = [cell] * (2 if kind == "Bidirectional" else 1)
    return getattr(jaxrnn.nnx, kind)(*cells, depth, rngs=nnx.Rngs(0), **options)


both_in_nnx = functools.partial(in_nnx, kind="Bidirectional")


def in_linen(*args, cell=GRU.cell, options=(), **kwargs):
    module = jaxrnn.linen.RNN(cell, **dict(options))
    return module.init_with_output({"params": KEY, "dropout": KEY}, *args, **kwargs)


def raw(finished=lambda time: time >= 5, limit=None):
    """`raw_rnn` over all steps."""

    def loop_fn(time, output, cell_state, loop_state):
        state = ZEROS if cell_state is None else cell_state
        inputs = jnp.asarray(X)[:, jnp.minimum(time, 4)]
        return finished(time), inputs, state, output, None

    return jaxrnn.raw_rnn(GRU, loop_fn, max_time=limit)


def decoded(state):
    embed = lambda ids: jnp.zeros((4, 3), F32)
    project = lambda output: jnp.zeros((4, 5), F32)
    return jaxrnn.decode.Model(LSTM, embed, project, state, [1] * 4, 0)


SCALAR = jaxrnn.TensorShape([])
KEEPING = cell_of(keep, (3, SCALAR), 3).bind({})
SHARED, COUNTS = (X0, np.float32(0)), (X0, np.zeros(4, np.int32))
LONGER = cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1))).bind({})
ROTATING = cell_of(lambda x, s: (x, s.astype(C64))).bind({})
NOISY = jaxrnn.DropoutWrapper(GRUCell(2), 0.5)
COMPLEX = GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params))


@dataclasses.dataclass(frozen=True, eq=False)
class Mutable(jaxrnn.RNNCell):
    """A cell with a hyperparameter that may not be hashable."""

    sizes: object
    state_size = output_size = 3

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state


def without_x64(dtype):
    with jax.enable_x64(False):
        return run(GRU, X, dtype=dtype)


def drop(cell=NOISY.cell, initial_state=None, **options):
    cell = jaxrnn.DropoutWrapper(cell, **options)
    return run(bound(cell).cell.bind(bound(cell).params, KEY), X, None, initial_state)


TORCH = convert.to_torch(LSTM, at="lstm")
(KERAS,) = convert.to_keras(LSTM)
MODEL = [np.ones((9, 3), np.float32), *KERAS, ZEROS[:2], H0]  # Three layers.
(NODE,) = convert.to_onnx_nodes(LSTM)
NODES = [NODE | {"name": f"LSTM_{i}", "reads": None} for i in range(2)]
load_torch, load_keras = convert.from_torch, convert.from_keras


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
    ("pass `dtype=jnp.float32`", lambda: dynamic_rnn(GRU, X), lambda: dynamic_rnn(GRU, X, dtype=jnp.float32)),
    ("`inputs.reshape(-1, *inputs.shape[-2:])`, or use a module `RNN`", lambda: run(GRU, X[None]), lambda: (run(GRU, X[None].reshape(-1, *X.shape[-2:])), in_nnx()(X[None]))),
    ("check `time_major`", lambda: gru([1] * 5), lambda: gru([1] * 5, time_major=True)),
    ("Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`", lambda: gru(np.ones(4)), lambda: (gru(np.ones(4).astype(jnp.int32)), gru(mask=MASK), gru(initial_state=ZEROS))),
    ("`return output, (c, h)`", lambda: run_step(lambda x, s: (x, *s), (3, 3)), lambda: run_step(keep, (3, 3))),
    ("accept `resets=jaxrnn.resets_of_done(done, last_done)`", lambda: gru(done=MASK), lambda: gru(resets=jaxrnn.resets_of_done(MASK, MASK[:, 0]))),
    ("use `Offload(Recompute(64))`", lambda: Offload(64), lambda: Offload(Recompute(64))),
    ("split an array x [batch, time, ...] with `list(jnp.swapaxes(x, 0, 1))`", lambda: run_steps(GRU, X), lambda: run_steps(GRU, list(jnp.swapaxes(X, 0, 1)))),
    ("such as `time >= lengths`", lambda: raw(finished=lambda time: 1), lambda: raw(finished=lambda time: time >= np.full(4, 5, np.int32))),
    ("Pass `max_time`", lambda: jax.jit(lambda: raw()[0].stack())(), lambda: jax.jit(lambda: raw(limit=5)[0].stack())()),
    ("pass `seq_axis=1` and `batch_axis=0`", lambda: jaxrnn.reverse_sequence(X, [1] * 4, 0, 0), lambda: jaxrnn.reverse_sequence(X, [1] * 4, seq_axis=1, batch_axis=0)),
    ("Swap the first two axes of the inputs", lambda: lite(X, time_major=False), lambda: lite(X.swapaxes(0, 1))),
    ("the module: `cell.get_cells()`", lambda: run(in_nnx(), X), lambda: run(in_nnx().get_cells(), X)),
    # Packs and export
    ("Pass `packed.inputs`, with `packed.lengths` and `resets=packed.resets`.", lambda: run(GRU, PACKED), lambda: run(GRU, PACKED.inputs, PACKED.lengths, resets=PACKED.resets)),
    ("run the pack `window.inputs`: pass its `inputs`, with its `lengths` and `resets`.", lambda: run(GRU, PART), lambda: run(GRU, PART.inputs.inputs, PART.inputs.lengths, resets=PART.inputs.resets)),
    ("pass `sequence_length`; otherwise, pass `list(inputs)`", lambda: jaxrnn.pack_sequences(X), lambda: (jaxrnn.pack_sequences(X, sequence_length=[1] * 4), jaxrnn.pack_sequences(list(X)))),
    ("Call this function outside jit, grad and vmap", lambda: jax.jit(lambda x: jaxrnn.pack_sequences(x, [1] * 4).inputs)(X), lambda: jax.jit(lambda p: p.inputs)(jaxrnn.pack_sequences(X, [1] * 4))),
    ("`BidirectionalStreamer`", lambda: Streamer((GRU, GRU), 4), lambda: BidirectionalStreamer([GRU], [GRU], 5, 0, 4)(X)),
    ("pass `jnp.ones(4, bool)`", lambda: jaxrnn.resets_of_done(MASK), lambda: jaxrnn.resets_of_done(MASK, jnp.ones(4, bool))),
    # Cells and wrappers
    ("Call `cell.bind(params)(inputs, state)`", lambda: GRUCell(2)(X0, ZEROS), lambda: GRUCell(2).bind(GRU.params)(X0, ZEROS)),
    ("such as `x.shape[0]`. Under jit, a number needs `static_argnames`", lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(4), lambda: (jax.jit(lambda x: GRU.zero_state(x.shape[0], F32))(X), jax.jit(lambda n: GRU.zero_state(n, F32), static_argnames="n")(n=4))),
    ("in a custom cell, `input_rows`", lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros), F32), lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros, input_rows=3), F32)),
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype="bfloat16"), lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype=F32)),
    ("Create a state with `cell.zero_state` and `dtype=jnp.float32`.", lambda: GRU(X0, ZEROS.astype(np.float16)), lambda: GRU(X0, GRU.zero_state(4, F32))),
    ("Pass the unbound `cells[1].cell`", lambda: jaxrnn.MultiRNNCell([GRUCell(2), GRU]), lambda: jaxrnn.MultiRNNCell([GRUCell(2), GRU.cell])),
    ("pass a `residual_fn`", lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2))), X), lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2), lambda x, y: x[:, :2] + y)), X)),
    # Convert and decode
    ("For Keras 3, pass `jax.nn.hard_sigmoid`.", lambda: load_keras(KERAS, recurrent_activation="hard_sigmoid"), lambda: run(load_keras(KERAS, recurrent_activation=jax.nn.hard_sigmoid), X)),
    ("Pass the name of a module as `at`: 'lstm.'", lambda: load_torch(TORCH), lambda: run(load_torch(TORCH, at="lstm."), X)),
    ("Pass a list with `layer.get_weights()` of each recurrent layer", lambda: load_keras(MODEL), lambda: run(load_keras([KERAS]), X)),
    ("Pass `LSTMStateTuple(c=c, h=h)`", lambda: decoded(PAIR), lambda: decoded(LSTMStateTuple(*PAIR))),
    # Modules
    ("For one step of each row, pass `inputs[:, None]`.", lambda: in_nnx()(X0, initial_state=ZEROS), lambda: in_nnx()(X0[:, None], initial_state=ZEROS)),
    ("with `in_features=3` of an nnx module", lambda: in_nnx(depth=4)(X), lambda: in_nnx(depth=3)(X)),
    ("a dict of tuples such as {'bias': ('hidden',)}", lambda: in_linen(X, options={"axis_names": "bias"}), lambda: in_linen(X, options={"axis_names": {"bias": ("hidden",)}})),
    ("To add the outputs, pass `jnp.add`", lambda: both_in_nnx(merge="sum")(X), lambda: both_in_nnx(merge=jnp.add)(X)),
    ("Pass `rngs=key`", lambda: in_jit()(X, None), lambda: (in_jit()(X, KEY), in_jit(is_random=False)(X, None))),
]  # fmt: skip


@pytest.mark.fast("*dtype=jnp*", "*max_time*", "*prefix*")
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
    # A plain pair in place of an `LSTMStateTuple`
    (UserWarning, "`initial_state`", lambda: run(LSTM, X, None, PAIR)),
    (TypeError, "`initial_state`", lambda: run(LSTM, X, [1] * 4, PAIR)),
    (UserWarning, "`initial_state`", lambda: run(bound(jaxrnn.MultiRNNCell([GRUCell(2), LSTMCell(2)])), X, None, (ZEROS, PAIR))),
    (UserWarning, "`initial_state`", lambda: Streamer(LSTM, 4, initial_state=PAIR)),
    (UserWarning, "`state`", lambda: LSTM(X0, PAIR)),
    # Drivers
    (ValueError, "`dtype`", lambda: dynamic_rnn(KEEPING, X, None, COUNTS)),
    (UserWarning, "`dtype`", lambda: without_x64("float64")),
    (ValueError, "`inputs`", lambda: gru.func(GRU, X.astype(int), dtype=F32)),
    (TypeError, "`inputs`", lambda: run(GRU, MASKED)),
    (ValueError, "^`inputs` must", lambda: two_ways.func(GRU, GRU, PACKED)),
    (ValueError, "^`inputs` must", lambda: run_steps(GRU, WINDOW)),
    (TypeError, "`jnp.broadcast_to", lambda: run(LONGER, X, initial_state=H3)),
    (TypeError, "`new_state`", lambda: run(ROTATING, X)),
    (ValueError, r"`initial_state\[1\]` must have shape", lambda: run(KEEPING, X, None, SHARED, resets=MASK)),
    (TypeError, "`return_states`", lambda: jax.jit(lambda b: gru(return_states=b))(True)),
    (TypeError, "`cell_bw`", lambda: two_ways.func(GRU, GRU.cell, X)),
    (TypeError, "`strategies`", lambda: plan(strategies=Recompute())),
    (TypeError, "^`swap_memory` must", lambda: plan(swap_memory=True)),
    (TypeError, r"`inputs\[1\]`", lambda: run_steps(GRU, [X0, X0.astype(np.float16)])),
    (TypeError, "`state_saver`", lambda: saving({"s": X0})),
    # Cells
    (TypeError, "unhashable", lambda: Mutable({1}).bind({})),
    (TypeError, "`fn`", lambda: jaxrnn.FunctionCell(lambda params, inputs, state: None, 3, 3)),
    (TypeError, "`key`", lambda: GRUCell(2).init(0, STEP)),
    (ValueError, "`blocks`", lambda: init.chrono(9)(KEY, (2,), F32)),
    (TypeError, "`output_keep_prob`", lambda: jax.jit(lambda p: drop(output_keep_prob=p))(0.5)),
    (ValueError, "`TensorArray`", lambda: array(1).read(0)),
    (ValueError, "`index`", lambda: array(2, infer_shape=False).write(0, X).read(1)),
    # Converters and modules
    (TypeError, "`lstm.bias_ih_l0`", lambda: load_torch(TORCH | {"lstm.bias_ih_l0": np.ma.asarray(TORCH["lstm.bias_ih_l0"])}, at="lstm")),
    (ValueError, r"`model\[1\]`", lambda: convert.from_onnx(NODES)),
    (ValueError, "`resets`", lambda: in_nnx()(X0, resets=MASK[:, :1])),
    (ValueError, "`cell`", lambda: in_nnx(NOISY, "Cell")),
    (ValueError, "`axis_names`", lambda: in_linen(X, options={"axis_names": {"kernal": (None, None)}})),
    (ValueError, "`initial_state`", lambda: both_in_nnx()(X, initial_state=ZEROS)),
    (ValueError, "^`inputs` must", lambda: in_linen(PACKED)),
    (TypeError, "'bias'", lambda: in_nnx().set_cells(COMPLEX)),
]  # fmt: skip
test_refuses = helpers.refusals(REFUSALS)
