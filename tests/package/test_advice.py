"""What messages advise is followed, and the call then runs."""

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
from jaxrnn import (
    GRUCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
    TensorShape,
    contrib,
    dynamic_rnn,
)
from jaxrnn.export import BidirectionalStreamer, Streamer
from jaxrnn.memory import Offload, Recompute

F32, C64, I32 = jnp.float32, jnp.complex64, jnp.int32
X = np.ones((4, 5, 3), np.float32)
STEPS = list(X.swapaxes(0, 1))
SEQUENCES = [X[0], X[1, :3], X[2, :2]]
KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), F32)
MASK = X[..., 0] > 0
IDS = MASK.astype(int)
ZEROS = np.zeros((4, 2), np.float32)
H0, H3 = np.zeros(2, np.float32), X[0, 0]
PACKED = jaxrnn.pack_sequences(SEQUENCES)
bound = functools.partial(helpers.bound, dtype="float32")
GRU, LSTM = bound(GRUCell(2)), bound(LSTMCell(2))
MIN_GRU = bound(jaxrnn.MinGRUCell(2))
PORTED = jaxrnn.linen.RNN(jaxrnn.CudnnCompatibleGRUCell(2)).init(KEY, X)
PORTED_TWICE = jaxrnn.linen.Bidirectional(*[jaxrnn.CudnnCompatibleGRUCell(2)] * 2).init(
    KEY, X
)
STACK = bound(MultiRNNCell([GRUCell(2), GRUCell(2)]))
run = functools.partial(dynamic_rnn, dtype=F32)
gru = functools.partial(run, GRU, X)
run_steps = functools.partial(jaxrnn.static_rnn, dtype=F32)
static = functools.partial(jaxrnn.static_rnn, GRU, STEPS)
of_state = functools.partial(dynamic_rnn, GRU, X, None)
packed = functools.partial(jaxrnn.packed_rnn, GRU, dtype=F32)
two_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, X)
stacked = jaxrnn.stack_bidirectional_dynamic_rnn
plan = functools.partial(jaxrnn.memory_plan, strategies=[False])


CUDNN = jaxrnn.CudnnCompatibleGRUCell(2)
RENAMED = nn.Sequential([jaxrnn.linen.RNN(CUDNN)])
NESTED = {"params": {"layers_0": PORTED["params"]}}
UNNAMED = [
    (
        "`variables['params']['layers_0']` must have 'gru_cell', which holds the parameters of a cell, got ['cudnn_compatible_gru_cell']",
        lambda cell: nn.Sequential([jaxrnn.linen.RNN(cell)]).apply(NESTED, X),
        CUDNN,
        GRU.cell,
    ),
    (
        "'gru_cell', the parameters of the module's cell, got ['cudnn_compatible_gru_cell']",
        lambda cell: jaxrnn.linen.Bidirectional(cell, cell).apply(PORTED_TWICE, X),
        CUDNN,
        GRU.cell,
    ),
    (
        "`variables['params']` must have 'layers_0', which holds the parameters of a cell, got ['rnn']",
        lambda name: RENAMED.apply({"params": {name: PORTED["params"]}}, X),
        "layers_0",
        "rnn",
    ),
]


def cell_of(step, state_size=3, output_size=3, **options):
    return jaxrnn.FunctionCell(
        lambda p, x, s, key=None: step(x, s), state_size, output_size, **options
    )


def run_step(step, *sizes, **options):
    return dynamic_rnn(
        cell_of(step, *sizes).bind({}), **{"inputs": X, "dtype": F32, **options}
    )


def keep(x, s):
    return x, s


def by_name(x, s):
    return x["a"] + x["b"], s


def saving(saver, step=keep):
    return jaxrnn.static_state_saving_rnn(cell_of(step).bind({}), STEPS[:1], saver, "s")


def in_nnx(cell=GRU.cell, kind="RNN", depth=3, **options):
    cells = [cell] * (2 if kind == "Bidirectional" else 1)
    return getattr(jaxrnn.nnx, kind)(*cells, depth, rngs=nnx.Rngs(0), **options)


def in_linen(*args, cell=GRU.cell, options=(), **kwargs):
    module = jaxrnn.linen.RNN(cell, **dict(options))
    return module.init_with_output({"params": KEY, "dropout": KEY}, *args, **kwargs)


def at_end(time):
    return time >= 5


def at_ends(time):
    return jnp.broadcast_to(time >= 5, (4,))


def loop_fn(
    state=ZEROS, emit=None, emit_later=None, loop=None, later=None, finished=at_end
):
    """A loop function of `raw_rnn` over all steps, parts of which may be replaced."""

    def call(time, output, cell_state, loop_state):
        done, next_input = finished(time), jnp.asarray(X)[:, jnp.minimum(time, 4)]
        if output is None:
            return done, next_input, state, emit, loop
        output = output if emit_later is None else emit_later(output)
        return done, next_input, cell_state, output, later

    return call


def raw(*, cell=GRU, max_time=None, **parts):
    return jaxrnn.raw_rnn(cell, loop_fn(**parts), max_time=max_time)


LONGER = cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1))).bind({})
SHORTENED = cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1)[:, :3])).bind({})
SUM = cell_of(lambda x, s: (x[0] + x[1], s)).bind({})
TWO = cell_of(lambda x, s: ((x, x.argmax(-1).astype(I32)), s), 3, (3, TensorShape([])))
TWO = TWO.bind({})
EMIT_TWO = (jax.ShapeDtypeStruct((3,), F32), jax.ShapeDtypeStruct((), I32))
PAIR = cell_of(keep, (3, TensorShape([])), 3).bind({})
SHARED, COUNTS = (X[:, 0], np.float32(0)), (X[:, 0], np.zeros(4, np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(jaxrnn.AffineCell):
    """A custom cell with two states, of which it may enter the first."""

    enters: bool
    state_size = (2, 2)
    output_size = 2

    def enter(self, state):
        return state if self.enters else super().enter(state)

    @property
    def stages(self):
        return (jaxrnn.Stage(lambda p, z, carry: (z, (z, carry)), 2, 2, normal()),)


@dataclasses.dataclass(frozen=True, eq=False)
class Mutable(jaxrnn.RNNCell):
    """A cell with a hyperparameter that may not be hashable."""

    sizes: object
    state_size = output_size = 3

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state


def turn(params, inputs, state, key=None):
    state = state.astype(C64) * C64(1j) + inputs.astype(C64)
    return state.real, state


TURNING = jaxrnn.FunctionCell(turn, 3, 3)
MLSTM = bound(jaxrnn.MLSTMCell(2))
RESIDUAL = bound(jaxrnn.ResidualWrapper(LSTMCell(3)))
fused = jaxrnn.contrib.LSTMBlockFusedCell(2).bind(LSTM.params)


def decoded(state):
    embed = lambda ids: jnp.zeros((4, 3), F32)
    project = lambda output: jnp.zeros((4, 5), F32)
    return jaxrnn.decode.greedy(LSTM, embed, project, state, [1] * 4, 0, 2)


# What a plain pair is called, and must be; the warnings of the calls are errors here.
STRUCTURE = (
    "must have the structure LSTMStateTuple(c=*, h=*), got (*, *), where * is an array"
)
INITIAL, WARNED = (
    ("initial_state", STRUCTURE),
    (
        "initial_state",
        "has a plain pair, which is read as `(c, h)`, as in TensorFlow; PyTorch and Keras use (h, c)",
    ),
)
PLAIN_PAIRS = [
    (WARNED, lambda s: run(LSTM, X, None, s)),
    (
        WARNED,
        lambda s: run(
            bound(MultiRNNCell([GRUCell(2), LSTMCell(2)])), X, None, (ZEROS, s)
        ),
    ),
    (WARNED, lambda s: run(LSTM, X, None, list(s) if type(s) is tuple else s)),
    (WARNED, lambda s: jaxrnn.static_rnn(LSTM, STEPS, s)),
    (WARNED, lambda s: jaxrnn.bidirectional_dynamic_rnn(GRU, LSTM, X, None, ZEROS, s)),
    (WARNED, lambda s: in_nnx(LSTM.cell)(X, initial_state=s)),
    (WARNED, lambda s: in_linen(X, cell=LSTM.cell, initial_state=s)),
    (WARNED, lambda s: fused(X.swapaxes(0, 1), s, sequence_length=[1] * 4)),
    (INITIAL, lambda s: run(LSTM, X, [1] * 4, s)),
    (INITIAL, lambda s: run(LSTM, X, None, s, mask=MASK)),
    (INITIAL, lambda s: jaxrnn.static_rnn(LSTM, STEPS, s, F32, [1] * 4)),
    (INITIAL, lambda s: in_nnx(LSTM.cell)(X, [1] * 4, initial_state=s)),
    (
        INITIAL,
        lambda s: jaxrnn.packed_rnn(LSTM, PACKED, jax.tree.map(lambda x: x[:3], s)),
    ),
    (("reset_state", STRUCTURE), lambda s: run(LSTM, X, resets=MASK, reset_state=s)),
    (("state", STRUCTURE), lambda s: jaxrnn.export.Streamer(LSTM, 4).reset(s)),
]


# Each row: the advice, as in the message; the call that fails; the call that follows it.
DRIVERS = [
    ("Pass `cell.bind(params)`, or an object that implements `jaxrnn.RNNCellLike`", lambda: run(GRU.cell, X),
     lambda: (run(GRU.cell.bind(GRU.params), X), gru())),
    ("For one layer, pass `cell[0]`; for several, pass a bound `MultiRNNCell`. If each layer has two directions, pass the cells to `stack_bidirectional_dynamic_rnn`",
     lambda: run([GRU], X), lambda: (run([GRU][0], X), run(STACK, X), stacked([GRU], [GRU], X, dtype=F32))),
    ("Pass lengths as `sequence_length=`", lambda: stacked([GRU], [GRU], X, [3], dtype=F32), lambda: stacked([GRU], [GRU], X, dtype=F32, sequence_length=[3] * 4)),
    *((f"{got}. Ported parameters need a cell of the same kind, and modules with the names of the parameters, such as `RNN(cell, name='rnn')`",
       lambda call=call, other=other: call(other), lambda call=call, own=own: call(own)) for got, call, own, other in UNNAMED),
    ("Convert a Flax cell with `as_cell`", lambda: run(nn.GRUCell(2), X), lambda: run(bound(jaxrnn.linen.as_cell(nn.GRUCell(2))), X)),
    ("For a zero state of float32, pass `dtype=jnp.float32`", lambda: dynamic_rnn(GRU, X), gru),
    ("Pass the dtype of the outputs", lambda: dynamic_rnn(PAIR, X, None, COUNTS), lambda: dynamic_rnn(PAIR, X, None, COUNTS, F32)),
    ("Did you mean `dtype`?", lambda: run(GRU, X, dtyp=F32), gru),
    ("Use `resets`", lambda: gru(is_first=MASK), lambda: gru(resets=MASK)),
    ("`dynamic_rnn` and `RNN` accept `resets=jaxrnn.resets_of_done(done, last_done)`", lambda: gru(done=MASK),
     lambda: (gru(resets=jaxrnn.resets_of_done(MASK, MASK[:, 0])), in_nnx(GRU.cell)(X, resets=jaxrnn.resets_of_done(MASK, MASK[:, 0])))),
    ("`dynamic_rnn` and `RNN` accept `resets=jaxrnn.resets_of_segments(segment_ids)`", lambda: in_nnx(GRU.cell)(X, segment_ids=IDS),
     lambda: (gru(resets=jaxrnn.resets_of_segments(IDS)), in_nnx(GRU.cell)(X, resets=jaxrnn.resets_of_segments(IDS)))),
    ("accept `resets=starts`, or `resets=starts >= 0` for the numbers of a pack", lambda: gru(starts=MASK),
     lambda: (gru(resets=MASK), run(GRU, PACKED.inputs, PACKED.lengths, resets=PACKED.starts >= 0))),
    ("Convert numbers with `done > 0`", lambda: jaxrnn.resets_of_done(IDS, MASK[:, 0]), lambda: jaxrnn.resets_of_done(IDS > 0, MASK[:, 0])),
    ("Check `time_major`", lambda: jaxrnn.resets_of_done(MASK, MASK[0]), lambda: jaxrnn.resets_of_done(MASK, MASK[0], time_major=True)),
    # Inputs
    ("For one sequence [time, depth], pass `inputs[None]`", lambda: run(GRU, X[0]), lambda: run(GRU, X[0][None])),
    ("pass `inputs[:, None]`", lambda: run(GRU, X[0], time_major=True), lambda: run(GRU, X[0][:, None], time_major=True)),
    ("For one number per step, pass `inputs['b'][..., None]`", lambda: run_step(by_name, inputs={"a": X, "b": X[..., 0]}),
     lambda: run_step(by_name, inputs={"a": X, "b": X[..., 0][..., None]})),
    ("Cast the array, or embed integer ids", lambda: run(GRU, X.astype(int)), lambda: run(GRU, X.astype(int).astype(np.float32))),
    ("To make one array, call `jnp.asarray`; for sequences of different lengths, use `pack_sequences`",
     lambda: run(GRU, X.tolist()), lambda: (run(GRU, jnp.asarray(X.tolist(), F32)), packed(PACKED))),
    ("Concatenate several inputs along their last axis. For sequences of different lengths, use `pack_sequences`",
     lambda: run(GRU, (X, X)), lambda: (run(bound(GRUCell(2), 6), np.concatenate((X, X), -1)), packed(PACKED))),
    ("Pass `inputs.filled(0)`", lambda: run(GRU, np.ma.asarray(X)), lambda: run(GRU, np.ma.asarray(X).filled(0))),
    ("Use `packed_rnn`", lambda: run(GRU, PACKED), lambda: packed(PACKED)),
    # Lengths
    ("Pass `sequence_length.filled(0)`", lambda: gru(np.ma.ones(4, int)), lambda: gru(np.ma.ones(4, int).filled(0))),
    ("check `time_major`", lambda: run(GRU, X, [1] * 5), lambda: run(GRU, X, [1] * 5, time_major=True)),
    ("The inputs have 5 steps: check `time_major`", lambda: run(GRU, X, initial_state=np.zeros((5, 2), F32)),
     lambda: run(GRU, X, initial_state=np.zeros((5, 2), F32), time_major=True)),
    ("pass `jnp.broadcast_to(h0, (4, 5))`", lambda: run(bound(GRUCell(5)), X, initial_state=np.zeros(5, F32)),
     lambda: run(bound(GRUCell(5)), X, initial_state=jnp.broadcast_to(np.zeros(5, F32), (4, 5)))),
    ("The inputs have 5 steps: check `time_major`", lambda: run(LSTM, X, initial_state=LSTM.zero_state(5, F32), resets=MASK),
     lambda: run(LSTM, X, initial_state=LSTM.zero_state(5, F32), resets=MASK, time_major=True)),
    ("Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`, and a dtype as `dtype=`",
     lambda: gru(np.ones(4)), lambda: (gru(np.ones(4).astype(jnp.int32)), gru(mask=MASK), gru(initial_state=ZEROS))),
    # States
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: of_state(H0), lambda: of_state(jnp.broadcast_to(H0, (4, 2)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`", lambda: run_step(lambda x, s: (x, x + s[None]), initial_state=H3),
     lambda: run_step(lambda x, s: (x, x + s), initial_state=jnp.broadcast_to(H3, (4, 3)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`", lambda: run(LONGER, X, initial_state=H3), lambda: run(SHORTENED, X, initial_state=jnp.broadcast_to(H3, (4, 3)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`", lambda: run_step(keep, initial_state=H3, sequence_length=[1] * 4),
     lambda: run_step(keep, initial_state=jnp.broadcast_to(H3, (4, 3)), sequence_length=[1] * 4)),
    ("Create a state with `cell.zero_state`", lambda: run(LSTM, X, None, ZEROS), lambda: run(LSTM, X, None, LSTM.zero_state(4, F32))),
    *((f"`{name}` {must}. Pass `LSTMStateTuple(c, h)`", lambda call=call: call((ZEROS, ZEROS)), lambda call=call: call(LSTMStateTuple(ZEROS, ZEROS)))
      for (name, must), call in PLAIN_PAIRS),
    ("Pass `LSTMStateTuple(c, h)`", lambda: raw(cell=LSTM, state=(ZEROS, ZEROS)), lambda: raw(cell=LSTM, state=LSTMStateTuple(ZEROS, ZEROS))),
    ("Pass `LSTMStateTuple(c, h)`", lambda: decoded((ZEROS, ZEROS)), lambda: decoded(LSTMStateTuple(ZEROS, ZEROS))),
    ("Pass `MLSTMState(c, n, m)`", lambda: run(MLSTM, X, [1] * 4, tuple(MLSTM.zero_state(4, F32))), lambda: run(MLSTM, X, [1] * 4, jaxrnn.MLSTMState(*MLSTM.zero_state(4, F32)))),
    ("start from a state like the new one", lambda: run_step(lambda x, s: (x, s * C64(1j))),
     lambda: run_step(lambda x, s: (x, s * C64(1j)), initial_state=np.ones((4, 3), C64))),
    ("A state of several arrays is one nest: `return output, (c, h)`", lambda: run_step(lambda x, s: (x, *s), (3, 3)), lambda: run_step(keep, (3, 3))),
    ("Create the state with `dtype=jnp.float32`", lambda: of_state(ZEROS.astype(float)), lambda: of_state(GRU.zero_state(4, dtype=F32))),
    ("and `dtype=jnp.float32`", lambda: run(MIN_GRU, X, None, ZEROS.astype(np.float16)), lambda: run(MIN_GRU, X, dtype=jnp.float32)),
    ("create the cell with `dtype=jnp.float32`", lambda: run(GRUCell(2, dtype="float64").bind(GRU.params), X), lambda: run(GRUCell(2, dtype=jnp.float32).bind(GRU.params), X)),
    ("or cast the inputs", lambda: run(GRU, X.astype(float)), lambda: run(GRU, X.astype(float).astype(F32))),
    # Outputs
    ("Pass `dtype=jnp.bfloat16`, or cast in the cell", lambda: run_step(lambda x, s: (x.astype(jnp.bfloat16), s)),
     lambda: (run_step(lambda x, s: (x.astype(jnp.bfloat16), s), initial_state=X[:, 0], dtype=jnp.bfloat16),
              run_step(lambda x, s: (x.astype(jnp.bfloat16).astype(F32), s)))),
    ("Pass `dtype=jnp.float32`", lambda: run_step(lambda x, s: (s.real, s), dtype=C64),
     lambda: run_step(lambda x, s: (s.real, s), dtype=jnp.float32, initial_state=np.ones((4, 3), C64))),
    ("For outputs of several dtypes, use `raw_rnn`", lambda: run(TWO, X, dtype=I32), lambda: raw(cell=TWO, state=X[:, 0], emit=EMIT_TWO)),
    # Masks and resets
    ("Convert numbers with `mask > 0`; pass lengths as `sequence_length`", lambda: gru(mask=MASK.astype("f")),
     lambda: (gru(mask=MASK.astype("f") > 0), gru(sequence_length=np.array([3] * 4)))),
    ("Make it an output of the cell, or pass `sequence_length` instead of `mask`", lambda: dynamic_rnn(PAIR, X, None, SHARED, F32, mask=MASK),
     lambda: (run_step(lambda x, s: ((x, s[:, 0]), s), 3, (3, TensorShape([])), mask=MASK), dynamic_rnn(PAIR, X, MASK.sum(-1), SHARED, F32))),
    ("Convert numbers with `resets > 0`", lambda: gru(resets=MASK.astype(int)), lambda: gru(resets=MASK.astype(int) > 0)),
    ("`dynamic_rnn` and `RNN` accept `resets`", lambda: two_ways(reset_state=ZEROS), lambda: (gru(resets=MASK), in_nnx()(X, resets=MASK))),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: gru(resets=MASK, reset_state=H0), lambda: gru(resets=MASK, reset_state=jnp.broadcast_to(H0, (4, 2)))),
    ("use `pack_sequences` and `packed_rnn`", lambda: gru(resets=MASK, reset_state=X[..., :2]), lambda: packed(PACKED, np.zeros((3, 2), F32))),
    ("Pass a `reset_state`", lambda: run(PAIR, X, None, SHARED, resets=MASK), lambda: run(PAIR, X, None, SHARED, resets=MASK, reset_state=SHARED)),
    # Options
    ("close over the value or name the argument in `static_argnames`",
     lambda: jax.jit(lambda b: gru(return_states=b))(True), lambda: jax.jit(lambda: gru(return_states=True))()),
    ("Omit `implementation` to use XLA's loop", lambda: run(MIN_GRU, X, implementation="native"), lambda: run(MIN_GRU, X)),
    ("For example, use `Offload(Recompute(64))`", lambda: Offload(64), lambda: Offload(Recompute(64))),
    ("Pass float32, or set `jax_enable_x64`", lambda: without_x64("float64"),
     lambda: (without_x64("float32"), dynamic_rnn(bound(GRUCell(2), dtype="float64"), X.astype(float), dtype="float64"))),
]  # fmt: skip


def without_key(params, inputs, state):
    return inputs, state


def sweep(cell):
    """The outputs for two numbers, under `vmap`; `cell` makes a bound cell of one."""
    return jax.vmap(lambda b: run(cell(b), X)[0])(jnp.arange(2, dtype=F32))


def more_bias(b):
    """An LSTM with `b` added to the bias of the forget gate, the third of i, j, f, o."""
    bias = LSTM.params["bias"].reshape(4, 2).at[2].add(b).ravel()
    return LSTMCell(2, forget_bias=0).bind(LSTM.params | {"bias": bias})


def explained(x):
    mesh = jax.make_mesh((5,), ("time",), (jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec(None, "time")
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
        return jaxrnn.explain(MIN_GRU, sharded, dtype=F32)


PART = jax.ShapeDtypeStruct((4, 1, 3), F32)
MANY = np.stack([X, X])  # [batch, agents, time, depth]
IN_NEST = cell_of(lambda x, s: (x[0] + x[1], s)).bind({})
LINEN = jaxrnn.linen.RNN(GRUCell(2))
VARIABLES = {"params": {"gru_cell": GRU.params}}
KEYED = cell_of(lambda x, s: (x, s), TensorShape([])).bind({})
KEYS = jax.random.split(KEY, 4)
ATTENTION = contrib.AttentionWrapper(GRUCell(2), contrib.LuongAttention(2, 3))
MEMORY = ATTENTION.initial_state(X)
WIDE = bound(GRUCell(2), dtype="float64")


def count(x, s):
    return x, (s[0], s[1] + 1)


COUNTING = cell_of(count, (3, TensorShape([]))).bind({})

EDGES = [
    ("For one step of each row, pass `inputs[:, None]`.", lambda: in_nnx()(X[:, 0], initial_state=ZEROS),
     lambda: in_nnx()(X[:, 0][:, None], initial_state=ZEROS, resets=MASK[:, 0][:, None])),
    ("For one step of each row, pass `inputs[:, None]` and `resets[:, None]`", lambda: in_nnx()(X[:, 0], resets=MASK[:, :1]), lambda: in_nnx()(X[:, 0][:, None], resets=MASK[:, :1])),
    ("For one step of each row, pass `inputs[None]`.", lambda: in_linen(X[:, 0], initial_state=ZEROS, options={"time_major": True}),
     lambda: in_linen(X[:, 0][None], initial_state=ZEROS, resets=MASK[:, 0][None], options={"time_major": True})),
    ("Merge the batch axes, as in `inputs.reshape(-1, *inputs.shape[-2:])`, or use a module `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`", lambda: run(GRU, MANY),
     lambda: (run(GRU, MANY.reshape(-1, *MANY.shape[-2:])), in_nnx()(MANY), in_linen(MANY))),
    ("For one number per step, pass `inputs[1][..., None]`", lambda: run(IN_NEST, (X, X[..., 0])), lambda: run(IN_NEST, (X, X[..., 0][..., None]))),
    ("Pass the bound cells of the module: `cell.cells_of(variables)`", lambda: run(LINEN, X), lambda: run(LINEN.cells_of(VARIABLES), X)),
    ("Write `def step(params, inputs, state, key=None)`", lambda: jaxrnn.FunctionCell(without_key, 3, 3),
     lambda: run(jaxrnn.FunctionCell(lambda params, inputs, state, key=None: (inputs, state), 3, 3).bind({}), X)),
    ("create a cell for each number, outside of `vmap` and `jit`", lambda: sweep(lambda b: LSTMCell(2, forget_bias=b).bind(LSTM.params)),
     lambda: [run(LSTMCell(2, forget_bias=b).bind(LSTM.params), X) for b in (0.0, 1.0)]),
    ("for `forget_bias`, pass 0 and add the number to the bias of the forget gate", lambda: sweep(lambda b: LSTMCell(2, forget_bias=b).bind(LSTM.params)), lambda: sweep(more_bias)),
    ("To explain its run, pass the types of the steps of one device, without a sharding", lambda: explained(X), lambda: jaxrnn.explain(MIN_GRU, PART, dtype=F32)),
    ("Pass the keys after a reset to `dynamic_rnn`, a module `RNN` or a stream", lambda: run(KEYED, X, None, KEYS, resets=MASK),
     lambda: (run(KEYED, X, None, KEYS, resets=MASK, reset_state=KEYS), in_nnx(KEYED.cell)(X, initial_state=KEYS, resets=MASK, reset_state=KEYS),
              Streamer(KEYED, 4, initial_state=KEYS)(X[:, 0], resets=MASK[:, 0], reset_state=KEYS))),
    ("create the stream with this state as `initial_state`", lambda: Streamer(COUNTING, 4).reset(COUNTS), lambda: Streamer(COUNTING, 4, initial_state=COUNTS)(X[:, 0])),
    ("create a stream with `dtype=jnp.float64`", lambda: Streamer(WIDE, 4)(np.float64(X[:, 0])), lambda: Streamer(WIDE, 4, dtype=jnp.float64)(np.float64(X[:, 0]))),
    ("create a stream with `dtype=jnp.float64`", lambda: BidirectionalStreamer([WIDE], [WIDE], 5, 0, 4)(np.float64(X)), lambda: BidirectionalStreamer([WIDE], [WIDE], 5, 0, 4, jnp.float64)(np.float64(X))),
    ("`initial_state` must be given, because it holds the memory. Create a state with `cell.initial_state(memory)`",
     lambda: Streamer(bound(ATTENTION), 4), lambda: Streamer(bound(ATTENTION), 4, initial_state=MEMORY)(X[:, 0])),
]  # fmt: skip

OTHER_DRIVERS = [
    ("Pass `cell_bw.bind(params)`", lambda: two_ways.func(GRU, GRU.cell, X), lambda: two_ways.func(GRU, GRU.cell.bind(GRU.params), X, dtype=F32)),
    ("`initial_state` is `initial_state_bw`", lambda: two_ways(initial_state_fw=ZEROS), lambda: two_ways(initial_state_fw=ZEROS, initial_state_bw=ZEROS)),
    # Lists of steps
    ("or split an array x [batch, time, ...] with `list(jnp.swapaxes(x, 0, 1))`", lambda: run_steps(GRU, X), lambda: run_steps(GRU, list(jnp.swapaxes(X, 0, 1)))),
    ("pass `inputs[0][1][:, None]`", lambda: run_steps(SUM, [(X[:, 0], X[:, 0, 0])]), lambda: run_steps(SUM, [(X[:, 0], X[:, 0, 0][:, None])])),
    ("For one row, pass `inputs[None]`", lambda: run_steps(GRU, [*X[0]]), lambda: run_steps(GRU, [x[None] for x in X[0]])),
    ("Each entry of `inputs` is one step of all rows", lambda: run_steps(GRU, SEQUENCES), lambda: run_steps(GRU, STEPS)),
    ("pass `jnp.broadcast_to(h0, (4, 3))`", lambda: run_steps(LONGER, STEPS, H3), lambda: run_steps(SHORTENED, STEPS, jnp.broadcast_to(H3, (4, 3)))),
    ("Pass a `jaxrnn.StateSaver`", lambda: saving({"s": X[:, 0]}), lambda: saving(jaxrnn.StateSaver({"s": X[:, 0]}))),
    ("Return a state with the structure of `cell.state_size`", lambda: saving(jaxrnn.StateSaver({"s": X[:, 0]}), lambda x, s: (x, (s,))),
     lambda: saving(jaxrnn.StateSaver({"s": X[:, 0]}), keep)),
    ("Use `dynamic_rnn` or, for outputs of several dtypes, `raw_rnn`", lambda: jaxrnn.static_rnn(TWO, [X[:, 0]] * 50, X[:, 0]),
     lambda: (run(GRU, np.ones((4, 50, 3), np.float32)), raw(cell=TWO, state=X[:, 0], emit=EMIT_TWO))),
    ("Use `packed_rnn`", lambda: run_steps(GRU, PACKED), lambda: packed(PACKED)),
    # `raw_rnn`
    ("Return a comparison, such as `time >= lengths`", lambda: raw(finished=lambda time: 1), lambda: raw(finished=lambda time: time >= 5)),
    ("Pass `max_time`, the largest number of steps", lambda: jax.jit(lambda: raw()[0].stack())(), lambda: jax.jit(lambda: raw(max_time=5)[0].stack())()),
    ("return arrays without a batch axis, `()` to emit nothing, or None to emit outputs of `cell.output_size`",
     lambda: raw(emit_later=lambda y: y[:, :1]),
     lambda: (raw(emit_later=lambda y: y[:, :1], emit=np.zeros(1, np.float32)), raw(emit=(), emit_later=lambda y: ()), raw(emit=None))),
    ("such as `jnp.zeros([])`", lambda: raw(emit=0, emit_later=lambda y: y[:, 0]), lambda: raw(emit=jnp.zeros([], F32), emit_later=lambda y: y[:, 0])),
    ("Return the same structure as at time 0", lambda: raw(later=X), lambda: raw(later=X, loop=X)),
    ("return `jnp.zeros(batch, bool)` at time 0", lambda: raw(finished=lambda time: time >= 5 if time == 0 else np.ones(4, bool)),
     lambda: raw(finished=lambda time: jnp.zeros(4, bool) if time == 0 else np.ones(4, bool))),
    ("apply `jnp.broadcast_to` at time 0", lambda: raw(cell=cell_of(lambda x, s: (x, x + s[None])).bind({}), state=H3),
     lambda: raw(cell=cell_of(lambda x, s: (x, x + s)).bind({}), state=jnp.broadcast_to(H3, (4, 3)))),
    ("apply `jnp.broadcast_to`", lambda: raw(state=H0, finished=at_ends), lambda: raw(state=jnp.broadcast_to(H0, (4, 2)), finished=at_ends)),
    ("use `if` only for `cell_output is None`",
     lambda: jax.jit(lambda: raw(finished=lambda time: True if time >= 5 else False, max_time=6)[1])(),
     lambda: jax.jit(lambda: raw(finished=lambda time: jnp.where(time >= 5, True, False), max_time=6)[1])()),
    # Packs
    ("Pass `packed.packed`", lambda: packed(jaxrnn.windows(PACKED, 2)[0]), lambda: packed(jaxrnn.windows(PACKED, 2)[0].packed)),
    ("pass `jnp.broadcast_to(h0, (3, 2))`", lambda: packed(PACKED, H0), lambda: packed(PACKED, jnp.broadcast_to(H0, (3, 2)))),
    ("Join packs with `concat_packed`; run a stack of packs with `jax.vmap`", lambda: packed(jaxrnn.stack_packed([PACKED] * 2)),
     lambda: (packed(jaxrnn.concat_packed([PACKED] * 2)), jax.vmap(packed)(jaxrnn.stack_packed([PACKED] * 2)))),
    ("For padded inputs, pass `sequence_length`; otherwise, pass `list(inputs)`", lambda: jaxrnn.pack_sequences(X),
     lambda: (jaxrnn.pack_sequences(X, sequence_length=[1] * 4), jaxrnn.pack_sequences(list(X)))),
    ("Call this function outside jit, grad and vmap, and pass its result in", lambda: jax.jit(lambda x: jaxrnn.pack_sequences(x, [1] * 4).inputs)(X), lambda: jax.jit(packed)(jaxrnn.pack_sequences(X, [1] * 4))),
    # Windows
    # `reverse_sequence` and `lite`
    ("pass `seq_axis=1` and `batch_axis=0`", lambda: jaxrnn.reverse_sequence(X, [1] * 4, 0, 0), lambda: jaxrnn.reverse_sequence(X, [1] * 4, seq_axis=1, batch_axis=0)),
    ("Swap the first two axes of the inputs", lambda: jaxrnn.lite.dynamic_rnn(GRU, X, dtype=F32, time_major=False), lambda: jaxrnn.lite.dynamic_rnn(GRU, X.swapaxes(0, 1), dtype=F32)),
    ("Use `packed_rnn`", lambda: jaxrnn.lite.dynamic_rnn(GRU, PACKED, dtype=F32), lambda: packed(PACKED)),
    ("For nests, use `jaxrnn.dynamic_rnn`", lambda: jaxrnn.lite.dynamic_rnn(GRU, {"a": X}, dtype=F32), lambda: run_step(by_name, inputs={"a": X, "b": X})),
    # `memory_plan`
    ("Pass the bound cells of the module: `cell.get_cells()`", lambda: plan(in_nnx(), X), lambda: plan(in_nnx().get_cells(), X)),
    ("a list of strategies", lambda: plan(LSTMCell(2), X, strategies=Recompute()), lambda: plan(LSTMCell(2), X, strategies=[Recompute()])),
    ("Pass `dtype=jnp.float32`", lambda: plan(TURNING, X, dtype=C64), lambda: plan(TURNING, X, dtype=jnp.float32)),
    ("such as `jaxrnn.LSTMCell(64)`", lambda: plan(3, X), lambda: plan(jaxrnn.LSTMCell(64), X)),
]  # fmt: skip


def array(*size, **options):
    return jaxrnn.TensorArray(F32, *size, **options)


def drop(**options):
    cell = bound(jaxrnn.DropoutWrapper(GRUCell(2), **options))
    return run(cell.cell.bind(cell.params, KEY), X)


COUNTER = cell_of(
    lambda x, s: (x, (s[0], s[1] + 1)), (3, TensorShape([])), is_random=False
)


def first_of_pair(state):
    return (True, False) if isinstance(state, tuple) else True


def drop_in_counter(**options):
    cell = jaxrnn.DropoutWrapper(COUNTER, state_keep_prob=0.5, **options)
    return dynamic_rnn(cell.bind({}, KEY), X, None, COUNTS, F32)


def at_zero(cell):
    (law,) = (x for x in jaxrnn.testing.LAWS if x.__name__ == "ignores_padding")
    law(jaxrnn.testing.make_setup(cell, STEP))


def without_x64(dtype):
    with jax.enable_x64(False):
        return run(GRU, X, dtype=dtype)


def root(least):
    def step(params, inputs, state, key=None):
        return state + jnp.sqrt((params * inputs) ** 2 + least), state

    return jaxrnn.FunctionCell(
        step, 3, 3, lambda key, inputs, dtype: jnp.ones((), dtype)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Staged(jaxrnn.AffineCell):
    stages: object = ()
    state_size = output_size = 2


STAGE = jaxrnn.Stage(lambda p, z, h: (z, z), 2, 2)
ONE_RESULT = jaxrnn.Stage(lambda p, z, h: z, 2, 2)


class NoHash(Mutable):
    __eq__ = lambda self, other: self is other
    __hash__ = object.__hash__


def doubled(cell, *names):
    """A subclass that overrides methods."""

    def apply(self, params, inputs, state, key=None):
        output, state = cell.apply(self, params, inputs, state, key)
        return 2 * output, state

    methods = {"apply": apply, "call": apply, "choose_loop": jaxrnn.RNNCell.choose_loop}
    return type("Doubled", (cell,), {name: methods[name] for name in names})


@dataclasses.dataclass(frozen=True, eq=False)
class DoubledOutputs(jaxrnn.RNNCell):
    """A wrapper that doubles the outputs of a cell."""

    cell: jaxrnn.RNNCell
    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def init(self, key, inputs, dtype=None):
        return self.cell.init(key, inputs, dtype)

    def apply(self, params, inputs, state, key=None):
        output, state = self.cell.apply(params, inputs, state, key)
        return 2 * output, state


CELLS = [
    ("Use tuples instead of lists, and put arrays into the parameters", lambda: Mutable({1}).bind({}),
     lambda: (run(Mutable((1,)).bind({}), X), run(Mutable(None).bind({"x": X}), X))),
    ("Call `cell.bind(params)(inputs, state)`", lambda: GRUCell(2)(X[:, 0], ZEROS), lambda: GRUCell(2).bind(GRU.params)(X[:, 0], ZEROS)),
    ("Pass the inputs of one step", lambda: GRUCell(2).init(KEY, X), lambda: GRUCell(2).init(KEY, X[:, 0])),
    ("with this cell's `init`", lambda: run(GRU.cell.bind({}), X), lambda: run(GRU.cell.bind(GRU.cell.init(KEY, STEP)), X)),
    ("with this cell's `init`", lambda: run(GRU, X[..., :2]), lambda: run(GRU.cell.bind(GRU.cell.init(KEY, X[:, 0, :2])), X[..., :2])),
    ("with this cell's `init`", lambda: GRU.cell.apply(None, X[:, 0], ZEROS), lambda: GRU.cell.apply(GRU.cell.init(KEY, STEP), X[:, 0], ZEROS)),
    ("Pass the number of rows of the inputs", lambda: GRU.zero_state(None, F32), lambda: GRU.zero_state(4, F32)),
    ("Pass the number of rows of the inputs, such as `x.shape[0]`. Under jit, a number needs `static_argnames`", lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(4),
     lambda: (jax.jit(lambda x: GRU.zero_state(x.shape[0], F32))(X), jax.jit(lambda n: GRU.zero_state(n, F32), static_argnames="n")(n=4))),
    ("Pass `inputs`, or `batch_size` and `dtype`", lambda: GRU.get_initial_state(batch_size=4), lambda: GRU.get_initial_state(batch_size=4, dtype=F32)),
    ("call `cell.bind(params, key)`", lambda: GRU(X[:, 0], ZEROS, KEY), lambda: GRU.cell.bind(GRU.params, KEY)(X[:, 0], ZEROS)),
    ("Pass the index of one step, which jit may trace", lambda: GRU.at_step(np.arange(3)), lambda: jax.jit(lambda t: GRU.at_step(t)(X[:, 0], ZEROS))(1)),
    ("Create a key with `jax.random.key(0)`", lambda: GRUCell(2).init(0, STEP), lambda: GRUCell(2).init(jax.random.key(0), STEP)),
    ("To use several keys, apply `jax.vmap`", lambda: GRUCell(2).init(jax.random.split(KEY), STEP), lambda: jax.vmap(lambda k: GRUCell(2).init(k, STEP))(jax.random.split(KEY))),
    ("use `jaxrnn.contrib.InputProjectionWrapper`", lambda: bound(jaxrnn.LRUCell(4)), lambda: run(bound(jaxrnn.contrib.InputProjectionWrapper(jaxrnn.LRUCell(4), 4)), X)),
    ("return a pair: (operand, carry), or (output, new_state) if last", lambda: run(bound(Staged((ONE_RESULT,))), X), lambda: run(bound(Staged((STAGE,))), X)),
    ("One stage in parentheses needs a comma to be a tuple", lambda: bound(Staged(STAGE)), lambda: run(bound(Staged((STAGE,))), X)),
    ("For a vector, pass an int; for two axes, pass `TensorShape([5, 5])`", lambda: cell_of(keep, "5"), lambda: (cell_of(keep, 3), cell_of(keep, TensorShape([5, 5])))),
    ("Pass the result of `as_cell` to `jaxrnn.dynamic_rnn`", lambda: jaxrnn.nnx.as_cell(Counts(), 3).cell.init(KEY, STEP), lambda: run(jaxrnn.nnx.as_cell(Counts(), 3), X)),
    # Initializers
    ("in a custom cell, `input_rows`", lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros), F32),
     lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros, input_rows=3), F32)),
    ("in a custom cell, the number of gates", lambda: init.chrono(9)(KEY, (2,), F32), lambda: init.chrono(9)(KEY, jaxrnn.ParamSpec((2,), zeros, blocks=2), F32)),
    ("Pass `chrono` as the `bias` of `by_part`, or as `bias_initializer`", lambda: LSTMCell(2, initializer=init.chrono(9)).init(KEY, STEP),
     lambda: (LSTMCell(2, initializer=init.by_part(normal(), normal(), bias=init.chrono(9))).init(KEY, STEP), GRUCell(2, bias_initializer=init.chrono(9)).init(KEY, STEP))),
    # Custom cells
    ("or define `enter`", lambda: run(bound(Affine(False)), X), lambda: run(bound(Affine(True)), X)),
    ("Derive the class from `jaxrnn.RNNCell` instead, and define `init` and `apply`", lambda: doubled(GRUCell, "call"), lambda: run(bound(doubled(Mutable, "apply")(3)), X)),
    ("The class may be a wrapper, which holds another cell in a field and calls its `init` and `apply`", lambda: doubled(LSTMCell, "apply"), lambda: run(bound(DoubledOutputs(GRUCell(2))), X)),
    ("Or also define `choose_loop`", lambda: doubled(GRUCell, "apply"), lambda: run(bound(doubled(GRUCell, "apply", "choose_loop")(2)), X)),
    # Wrappers
    ("Pass the unbound `cells[1].cell`", lambda: MultiRNNCell([GRUCell(2), GRU]), lambda: MultiRNNCell([GRUCell(2), GRU.cell])),
    ("Create a cell from a function with `FunctionCell`, from several cells with `MultiRNNCell`, and from a Flax cell with `as_cell`", lambda: jaxrnn.ResidualWrapper([GRUCell(3)] * 2),
     lambda: MultiRNNCell([cell_of(keep), MultiRNNCell([GRUCell(3)]), jaxrnn.linen.as_cell(nn.GRUCell(2))])),
    ("Pass the dict that `init` returned", lambda: run(STACK.cell.bind(GRU.params), X), lambda: run(STACK.cell.bind(STACK.cell.init(KEY, STEP)), X)),
    ("Pass the dict that `init` returned", lambda: run(jaxrnn.TemporalConvWrapper(GRUCell(2), 3).bind(GRU.params), X), lambda: run(bound(jaxrnn.TemporalConvWrapper(GRUCell(2), 3)), X)),
    ("pass a `residual_fn`", lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2))), X), lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2), lambda x, y: x[:, :2] + y)), X)),
    ("To use only the newest inputs, omit the wrapper", lambda: jaxrnn.PastInputsWrapper(GRUCell(2), 3, width=1), gru),
    ("Create the wrapper with the depth of the inputs", lambda: bound(jaxrnn.PastInputsWrapper(GRUCell(2), 4)), lambda: run(bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3)), X)),
    ("Create a state with `cell.zero_state`", lambda: bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3))(X[:, 0], ZEROS), lambda: (lambda c: c(X[:, 0], c.zero_state(4, F32)))(bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3)))),
    ("Pass the dtype of the inputs", lambda: drop(variational_recurrent=True), lambda: drop(variational_recurrent=True, dtype=F32)),
    ("Pass the depth of the inputs", lambda: drop(input_keep_prob=0.5, variational_recurrent=True, dtype=F32), lambda: drop(input_keep_prob=0.5, variational_recurrent=True, dtype=F32, input_size=3)),
    ("exclude the leaf of a state with `dropout_state_filter_visitor`", drop_in_counter, lambda: drop_in_counter(dropout_state_filter_visitor=first_of_pair)),
    ("Pass a Python number", lambda: jax.jit(lambda p: drop(output_keep_prob=p))(0.5), lambda: jax.jit(lambda: drop(output_keep_prob=0.5))()),
    ("Read `c.dtype` or `h.dtype`", lambda: jaxrnn.LSTMStateTuple(ZEROS, ZEROS.astype(float)).dtype, lambda: jaxrnn.LSTMStateTuple(ZEROS, ZEROS.astype(float)).c.dtype),
    ("2 bools, one for each part of a nest", lambda: drop_in_counter(dropout_state_filter_visitor=lambda s: (True,)), lambda: drop_in_counter(dropout_state_filter_visitor=first_of_pair)),
    # Arguments of other libraries
    ("`dynamic_rnn` accepts masks; `mask.sum(-1)` gives lengths", lambda: static(mask=MASK), lambda: (gru(mask=MASK), static(None, F32, MASK.sum(-1)))),
    ("Use `reverse_sequence`, or pass `reverse` to the module `RNN`", lambda: gru(go_backwards=True), lambda: (run(GRU, jaxrnn.reverse_sequence(X, [5] * 4, 1)), in_nnx(reverse=True)(X))),
    ("set it to zeros for no bias", lambda: jaxrnn.BasicRNNCell(2, use_bias=False), lambda: (lambda c: run(c.cell.bind({**c.params, "bias": jnp.zeros(2, F32)}), X))(bound(jaxrnn.BasicRNNCell(2)))),
]  # fmt: skip

OTHERS = [
    # `testing`
    ("Keep the `__eq__` and `__hash__` of `RNNCell`", lambda: jaxrnn.testing.LAWS[0](jaxrnn.testing.make_setup(NoHash(3), STEP)), lambda: jaxrnn.testing.LAWS[0](jaxrnn.testing.make_setup(Mutable(3), STEP))),
    ("Check the step for divisions, roots and logarithms of 0", lambda: at_zero(root(0)), lambda: at_zero(root(1))),
    # `convert`
    ("For the inner cell alone, pass `cell.cell.cell.bind(cell.params)`", lambda: jaxrnn.convert.torch.save(RESIDUAL), lambda: jaxrnn.convert.torch.save(RESIDUAL.cell.cell.bind(RESIDUAL.params))),
    # `truncated_bptt`
    ("For BPTT(k2; k1), pass `k2 // k1`", lambda: jaxrnn.truncated_bptt(abs, reach=8 / 4), lambda: jaxrnn.truncated_bptt(abs, reach=8 // 4)),
    # `TensorArray`
    ("Read the array that `write` returned, or pass `element_shape`", lambda: array(1).read(0), lambda: (array(1).write(0, X).read(0), array(1, element_shape=(3,)).read(0))),
    ("To read zeros instead, pass `element_shape`", lambda: array(2, infer_shape=False).write(0, X).read(1), lambda: array(2, element_shape=X.shape).write(0, X).read(1)),
    ("Pass the number of elements; a traced index cannot extend an array", lambda: jax.jit(lambda t: array(0, dynamic_size=True).write(t, X))(0), lambda: jax.jit(lambda t: array(1, dynamic_size=True).write(t, X))(0)),
    ("create it with `dynamic_size=True`", lambda: array(1).write(1, X), lambda: array(1, dynamic_size=True).write(1, X)),
    ("create the array with `element_shape`", lambda: jax.jit(lambda t: array(2, infer_shape=False).write(t, X[0]))(0), lambda: jax.jit(lambda t: array(2, element_shape=X[0].shape).write(t, X[0]))(0)),
    ("Apply `jax.grad` to the whole function", lambda: array(1).grad("loss"), lambda: jax.grad(lambda x: array(1).write(0, x).read(0))(jnp.float32(1))),
]  # fmt: skip

TORCH = jaxrnn.convert.torch.save(LSTM, "lstm.")
MASKED = TORCH | {"lstm.bias_ih_l0": np.ma.asarray(TORCH["lstm.bias_ih_l0"])}
(KERAS,) = jaxrnn.convert.keras.save(LSTM)
MODEL = [np.ones((9, 3), np.float32), *KERAS, ZEROS[:2], H0]  # Three layers.
(GATES,) = jaxrnn.convert.onnx.save(LSTM)
GATES |= {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [1 / 6]}
load_torch, load_keras = jaxrnn.convert.torch.load, jaxrnn.convert.keras.load
load_onnx, nodes = jaxrnn.convert.onnx.load, jaxrnn.convert.onnx.nodes


def model(*operators, **more):
    """An ONNX model that runs these operators on its input, with the weights W and R."""
    onnx = pytest.importorskip("onnx")
    arrays = {key: GATES[key] for key in "WR"} | more
    made = [
        onnx.helper.make_node(kind, ["x", *others], [f"y{i}"], f"{kind}_{i}")
        for i, (kind, *others) in enumerate(operators)
    ]
    tensors = [onnx.numpy_helper.from_array(x, key) for key, x in arrays.items()]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, [None, None, 3])]
    return onnx.helper.make_model(
        onnx.helper.make_graph(made, "g", inputs, [], tensors)
    )


def started():
    """A node with a trained initial state."""
    h = np.ones((1, 1, 2), np.float32)
    names = "LSTM", "W", "R", "", "", "h", "h"
    (node,) = nodes(model(names, h=h))
    return node


def run_started():
    node = started()
    h, c = (
        jnp.broadcast_to(node.pop(k)[0], (4, 2)) for k in ("initial_h", "initial_c")
    )
    return run(load_onnx(node), X, initial_state=jaxrnn.LSTMStateTuple(h=h, c=c))


def run_own_gates():
    node = {key: value for key, value in GATES.items() if key != "activation_alpha"}
    loaded = load_onnx(node)
    cell = dataclasses.replace(loaded.cell, recurrent_activation=jax.nn.hard_sigmoid)
    return run(cell.bind(loaded.params), X)


UNRELATED = ("LSTM", "W", "R"), ("LSTM", "W", "R")
CONVERTERS = [
    ("Pass `prefix='lstm.'`", lambda: load_torch(TORCH, "lstm"), lambda: run(load_torch(TORCH, prefix="lstm."), X)),
    ("Pass `state_dict['model']` with `prefix='lstm.'`", lambda: load_torch({"model": TORCH, "epoch": 3}), lambda: run(load_torch({"model": TORCH}["model"], prefix="lstm."), X)),
    ("Pass `lstm.bias_ih_l0.filled(0)`", lambda: load_torch(MASKED, "lstm."), lambda: load_torch(MASKED | {"lstm.bias_ih_l0": MASKED["lstm.bias_ih_l0"].filled(0)}, "lstm.")),
    ("Pass `layer.get_weights()` of each recurrent layer, not of the whole model", lambda: load_keras(MODEL), lambda: run(load_keras(KERAS), X)),
    ("Take the state out with `initial_h = node.pop('initial_h')`, and pass `jnp.broadcast_to(initial_h[0], (batch, units))` in the `initial_state`", lambda: load_onnx(started()), run_started),
    ("Load one stack at a time: `nodes(model, 'LSTM_0')` or `nodes(model, 'LSTM_1')`", lambda: load_onnx(nodes(model(*UNRELATED))), lambda: [run(load_onnx(nodes(model(*UNRELATED), f"LSTM_{i}")), X) for i in range(2)]),
    ("own `activation` or `recurrent_activation`", lambda: load_onnx(GATES), run_own_gates),
    ("Load the weights from the library that trained the model, for example with `convert.torch.load(module.state_dict())` or `convert.keras.load(layer.get_weights())`",
     lambda: nodes(model(("Gemm", "W"), ("Tanh",))), lambda: (load_torch(TORCH, "lstm."), load_keras(KERAS))),
]  # fmt: skip

NOISY = jaxrnn.DropoutWrapper(GRUCell(2), 0.5)


def set_cells(*cells):
    in_nnx().set_cells(*cells)


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


MODULES = [
    ("with `in_features=3` of an nnx module", lambda: in_nnx(depth=4)(X), lambda: in_nnx(depth=3)(X)),
    ("with `in_features=3` of an nnx module", lambda: nnx.RNN(in_nnx(kind="Cell", depth=4))(X), lambda: nnx.RNN(in_nnx(kind="Cell", depth=3))(X)),
    ("Pass the unbound `cell.cell`", lambda: in_nnx(GRU), lambda: in_nnx(GRU.cell)(X)),
    ("Use `sequence_length`", lambda: in_nnx()(X, seq_lengths=[1] * 4), lambda: in_nnx()(X, sequence_length=[1] * 4)),
    ("Use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`", lambda: in_nnx(NOISY, "Cell"), lambda: (in_nnx(NOISY)(X), in_linen(X, cell=NOISY))),
    ("Keep values that change from step to step in the carry", lambda: jaxrnn.nnx.as_cell(Counts(nnx.Variable(jnp.zeros((), F32))), 3), lambda: run(jaxrnn.nnx.as_cell(Counts(), 3), X)),
    ("Construct the module with the attribute `cell` of the bound cell", lambda: jaxrnn.linen.RNN(GRUCell(3)).variables_of(GRU), lambda: jaxrnn.linen.RNN(GRU.cell).variables_of(GRU)),
    ("For several layers in one direction, pass one bound `MultiRNNCell`", lambda: set_cells(GRU, GRU), lambda: in_nnx(STACK.cell).set_cells(STACK)),
    ("keys that are names of parameters, of ['bias', 'kernel']", lambda: in_linen(X, options={"axis_names": {"kernal": (None, None)}}), lambda: in_linen(X, options={"axis_names": {"kernel": (None, None)}})),
    ("a dict of tuples such as {'bias': ('hidden',)}", lambda: in_linen(X, options={"axis_names": "bias"}), lambda: in_linen(X, options={"axis_names": {"bias": ("hidden",)}})),
    ("To add the outputs, pass `jnp.add`", lambda: in_nnx(kind="Bidirectional", merge="sum")(X), lambda: in_nnx(kind="Bidirectional", merge=jnp.add)(X)),
    ("a pair (state_fw, state_bw)", lambda: in_nnx(kind="Bidirectional")(X, initial_state=ZEROS), lambda: in_nnx(kind="Bidirectional")(X, initial_state=(ZEROS, ZEROS))),
    ("`reset_state` must be None for a bidirectional module", lambda: in_nnx(kind="Bidirectional")(X, resets=MASK, reset_state=(ZEROS, ZEROS)), lambda: in_nnx(kind="Bidirectional")(X, resets=MASK)),
    ("For one number per step, pass `inputs[..., None]`", lambda: in_nnx(depth=1)(X[..., 0], [1] * 4), lambda: in_nnx(depth=1)(X[..., 0][..., None], [1] * 4)),
    ("To make one array, call `jnp.asarray`; for sequences of different lengths, use `pack_sequences`", lambda: in_nnx(depth=1)([[1.0]]),
     lambda: (in_nnx(depth=1)(jnp.asarray([[1.0]])), jaxrnn.packed_rnn(in_nnx().get_cells(), PACKED, dtype=F32))),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: in_linen(X, initial_state=H0), lambda: in_linen(X, initial_state=jnp.broadcast_to(H0, (4, 2)))),
    ("Pass `dtype=jnp.complex64`", lambda: in_nnx(cell_of(lambda x, s: (x * C64(1j), s)))(X), lambda: in_nnx(cell_of(lambda x, s: (x * C64(1j), s)), dtype=C64)(X)),
    ("Use `packed_rnn`", lambda: in_linen(PACKED), lambda: packed(PACKED)),
    ("must be nnx.Rngs, for example `nnx.Rngs(0)`", lambda: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=0), lambda: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=nnx.Rngs(0))),
    ("Bind each cell to parameters from its `init` or from a converter", lambda: set_cells(GRU.cell.bind({})), lambda: set_cells(GRU.cell.bind(GRU.cell.init(KEY, STEP)))),
    ("Check that `in_features` is the size of the inputs", lambda: in_nnx(depth=4).set_cells(GRU), lambda: in_nnx(depth=3).set_cells(GRU)),
    ("Create the module with `param_dtype=jnp.complex64`", lambda: in_nnx(GRUCell(2, kernel_initializer=normal())).set_cells(GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params))),
     lambda: in_nnx(GRUCell(2, kernel_initializer=normal()), param_dtype=C64).set_cells(GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params)))),
    ("Pass `rngs=key`", lambda: in_jit()(X, None), lambda: (in_jit()(X, KEY), in_jit(is_random=False)(X, None))),
    ("Pass `cell.cell.bind(cell.params, key)`, or call `module.eval()` first", nnx_dropout, lambda: (nnx_dropout(KEY), nnx_dropout(evaluates=True))),
    ("Pass the variables that `init` or `variables_of` returned", lambda: jaxrnn.linen.RNN(GRUCell(2)).cells_of({}), lambda: jaxrnn.linen.RNN(GRUCell(2)).cells_of(jaxrnn.linen.RNN(GRUCell(2)).init(KEY, X))),
]  # fmt: skip


@pytest.mark.fast("*broadcast_to*", "*raw_rnn*", "*in_features*", "*dtype=jnp*")
@pytest.mark.parametrize(
    ("advice", "fails", "followed"),
    DRIVERS + EDGES + OTHER_DRIVERS + CELLS + OTHERS + CONVERTERS + MODULES,
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_advice_can_be_followed(advice, fails, followed):
    with usual_promotion():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
            fails()
        text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
        assert advice in text
        followed()
