"""What messages advise is followed, and the call then runs."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bound as bind, usual_promotion
from jax.experimental import checkify
from jax.nn.initializers import normal, zeros
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
import jaxrnn.contrib
import jaxrnn.extend
import jaxrnn.initializers as init
import jaxrnn.linen
import jaxrnn.lite
import jaxrnn.nnx
import jaxrnn.testing
from jaxrnn import (
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    TensorArray,
    TensorShape,
    dynamic_rnn,
)
from jaxrnn.memory import Offload, Recompute

F32, C64, I32 = jnp.float32, jnp.complex64, jnp.int32
X = np.ones((4, 5, 3), np.float32)
STEPS = list(X.swapaxes(0, 1))
SEQUENCES = [X[0], X[1, :3], X[2, :2]]
KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), F32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
H0 = np.zeros(2, np.float32)
ATTENTION = jaxrnn.contrib.LuongAttention(4, memory_depth=3)
ATTENTION = bind(
    jaxrnn.contrib.AttentionWrapper(GRUCell(4), ATTENTION, 2), 3, "float32"
)
MEMORY = ATTENTION.cell.initial_state(X)
PACKED = jaxrnn.pack_sequences(SEQUENCES)


def bound(cell):
    return bind(cell, X.shape[-1], "float32")


GRU, LSTM = bound(GRUCell(2)), bound(LSTMCell(2))
MODULE = jaxrnn.nnx.RNN(LSTMCell(2), 3, rngs=nnx.Rngs(0))
STACK = bound(MultiRNNCell([GRUCell(2), GRUCell(2)]))
run = functools.partial(dynamic_rnn, dtype=F32)
gru = functools.partial(run, GRU, X)
static = functools.partial(jaxrnn.static_rnn, GRU, STEPS)
of_state = functools.partial(dynamic_rnn, GRU, X, None)
packed = functools.partial(jaxrnn.packed_rnn, GRU, dtype=F32)
two_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, X, dtype=F32)
plan = functools.partial(jaxrnn.memory_plan, strategies=[False])


def cell_of(step, state_size=3, output_size=3, **options):
    return FunctionCell(
        lambda p, x, s, key=None: step(x, s), state_size, output_size, **options
    )


def run_step(step, *sizes, **options):
    return dynamic_rnn(
        cell_of(step, *sizes).bind({}), **{"inputs": X, "dtype": F32, **options}
    )


def keep(x, s):
    return x, s


def in_nnx(cell=None, kind="RNN", depth=3, **options):
    cells = [GRUCell(2) if cell is None else cell] * (
        2 if kind == "Bidirectional" else 1
    )
    return getattr(jaxrnn.nnx, kind)(*cells, depth, rngs=nnx.Rngs(0), **options)


def in_linen(*args, cell=None, kind=jaxrnn.linen.RNN, options=(), **kwargs):
    module = kind(GRUCell(2) if cell is None else cell, **dict(options))
    return module.init_with_output({"params": KEY, "dropout": KEY}, *args, **kwargs)


def loop_fn(
    first=None, state=ZEROS, emit=None, emit_later=None, loop=None, later=None, n=5,
    finished=None, steps=X, rows=False,
):  # fmt: skip
    """A loop function of `raw_rnn` over all steps, parts of which may be replaced."""

    def call(time, output, cell_state, loop_state):
        done = time >= n if finished is None else finished(time)
        if rows:
            done = jnp.broadcast_to(done, (4,))
        if output is None:
            return done, steps[:, 0] if first is None else first, state, emit, loop
        output = output if emit_later is None else emit_later(output)
        next_input = jnp.asarray(steps)[:, jnp.minimum(time, 4)]
        return done, next_input, cell_state, output, later

    return call


def raw(*, cell=GRU, max_time=None, **parts):
    return jaxrnn.raw_rnn(cell, loop_fn(**parts), max_time=max_time)


def checked(**parts):
    """Runs the loop under `checkify`, and raises the error that it reports."""
    error, emitted = checkify.checkify(jax.jit(lambda: raw(**parts)[0].stack()))()
    error.throw()
    return emitted


def two_outputs(x, s):
    return (x, x.argmax(-1).astype(I32)), s


TWO = cell_of(two_outputs, 3, (3, TensorShape([]))).bind({})
EMIT_TWO = (jax.ShapeDtypeStruct((3,), F32), jax.ShapeDtypeStruct((), I32))
PAIR = cell_of(keep, (3, TensorShape([])), 3).bind({})
SHARED = (X[:, 0], np.float32(0))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(jaxrnn.AffineCell):
    """A custom cell, whose parts may be wrong."""

    given: object = None
    enters: object = None
    size: object = 2
    state_size = property(lambda self: self.size)
    output_size = 2

    def enter(self, state):
        return super().enter(state) if self.enters is None else self.enters(state)

    @property
    def stages(self):
        return (stage(),) if self.given is None else self.given


def stage(columns=2, update=lambda p, z, carry: (z, z), **options):
    return jaxrnn.Stage(update, 2, columns, normal(), **options)


def affine(**parts):
    return run(bound(Affine(**parts)), X)


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(jaxrnn.LinearRecurrenceCell):
    """A custom recurrence, whose parts may be wrong."""

    a: object = 0.5
    size: object = 3
    state_size = property(lambda self: self.size)
    output_size = 3

    def param_specs(self, depth):
        return {"bias": jaxrnn.ParamSpec((depth,), zeros)}

    def coefficients(self, params, inputs):
        b = inputs + params["bias"][None]
        if self.a is None:
            return b, b
        of_b = lambda a: jax.tree.map(lambda _: b, a)
        a = jax.tree.map(lambda a: a * jnp.ones_like(b), self.a)
        return a, of_b(a), None

    def output(self, params, state, rest):
        return jax.tree.leaves(state)[0]


def linear(a, size=3):
    return run(bound(Linear(a, size)), X)


COMPLEX_STATE = jaxrnn.ComplexState(0.5, 0.5)


@dataclasses.dataclass(frozen=True, eq=False)
class Mutable(jaxrnn.RNNCell):
    """A cell with a hyperparameter that may not be hashable."""

    sizes: object
    state_size = output_size = 3

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return inputs, state


def many(values):
    """An initializer; `values` are the entries of each array."""
    return lambda key, shape, dtype: jnp.full(shape, values)


# Each row: the advice, as in the message; the call that fails; the call that follows it.
DRIVERS = [
    ("Pass `cell.bind(params)`", lambda: run(GRU.cell, X), lambda: run(GRU.cell.bind(GRU.params), X)),
    ("For one layer, pass `cell[0]`", lambda: run([GRU], X), lambda: run([GRU][0], X)),
    ("For several layers, pass a bound `MultiRNNCell`", lambda: run([GRU, GRU], X), lambda: run(STACK, X)),
    ("or an object that implements `jaxrnn.RNNCellLike`", lambda: run(3, X), gru),
    ("Convert a Flax cell with `as_cell`", lambda: run(nn.GRUCell(2), X),
     lambda: run(bound(jaxrnn.linen.as_cell(nn.GRUCell(2))), X)),
    ("For a zero state of float32, pass `dtype=jnp.float32`", lambda: dynamic_rnn(GRU, X), gru),
    ("Pass the dtype of the outputs", lambda: dynamic_rnn(PAIR, X, None, (X[:, 0], np.zeros(4, np.int32))),
     lambda: dynamic_rnn(PAIR, X, None, (X[:, 0], np.zeros(4, np.int32)), F32)),
    ("Did you mean `dtype`?", lambda: run(GRU, X, dtyp=F32), gru),
    ("Use `resets`", lambda: gru(done=MASK), lambda: gru(resets=MASK)),
    ("Use `sequence_length`", lambda: gru(seq_lengths=[1] * 4), lambda: gru(sequence_length=[1] * 4)),
    # Inputs
    ("For one sequence [time, depth], pass `inputs[None]`", lambda: run(GRU, X[0]), lambda: run(GRU, X[0][None])),
    ("pass `inputs[:, None]`", lambda: run(GRU, X[0], time_major=True),
     lambda: run(GRU, X[0][:, None], time_major=True)),
    ("For one number per step, pass `inputs[..., None]`", lambda: run(bind(GRUCell(2), 1, "float32"), X[..., 0]),
     lambda: run(bind(GRUCell(2), 1, "float32"), X[..., 0][..., None])),
    ("For one number per step, pass `inputs['b'][..., None]`",
     lambda: run_step(lambda x, s: (x["a"] + x["b"], s), inputs={"a": X, "b": X[..., 0]}),
     lambda: run_step(lambda x, s: (x["a"] + x["b"], s), inputs={"a": X, "b": X[..., :1]})),
    ("Embed integer ids",
     lambda: run_step(lambda x, s: (x.astype(F32) + s, s), inputs=np.ones((4, 5), np.int32)),
     lambda: run_step(lambda x, s: (x.astype(F32) + s, s), inputs=np.ones((4, 5), np.int32)[..., None])),
    ("Cast the array, or embed integer ids", lambda: run(GRU, X.astype(int)),
     lambda: run(GRU, X.astype(int).astype(np.float32))),
    ("To make one array, call `jnp.asarray`", lambda: run(GRU, X.tolist()), lambda: run(GRU, jnp.asarray(X.tolist(), F32))),
    ("for sequences of different lengths, use `pack_sequences`", lambda: run(GRU, SEQUENCES),
     lambda: packed(jaxrnn.pack_sequences(SEQUENCES))),
    ("for sequences of different lengths, use `pack_sequences`", lambda: run(GRU, [x[None] for x in SEQUENCES]),
     lambda: packed(jaxrnn.pack_sequences(SEQUENCES))),
    ("Concatenate several inputs along their last axis", lambda: run(GRU, (X, X)),
     lambda: run(bind(GRUCell(2), 6, "float32"), np.concatenate((X, X), -1))),
    ("use `pack_sequences`", lambda: run(GRU, [X[:1], X[:1]]), lambda: packed(jaxrnn.pack_sequences([*X]))),
    ("Pass `inputs.filled(0)`", lambda: run(GRU, np.ma.asarray(X)), lambda: run(GRU, np.ma.asarray(X).filled(0))),
    ("Use `packed_rnn`", lambda: run(GRU, PACKED), lambda: packed(PACKED)),
    ("Call `.stack()`", lambda: run(GRU, TensorArray(F32, 1, element_shape=(4, 3))),
     lambda: run(GRU, TensorArray(F32, 4, element_shape=(5, 3)).stack())),
    # Lengths
    ("check `time_major`", lambda: run(GRU, X, [1] * 5), lambda: run(GRU, X, [1] * 5, time_major=True)),
    ("a state as `initial_state=`", lambda: dynamic_rnn(GRU, X, ZEROS), lambda: dynamic_rnn(GRU, X, initial_state=ZEROS)),
    ("a dtype as `dtype=`", lambda: dynamic_rnn(GRU, X, F32), lambda: dynamic_rnn(GRU, X, dtype=F32)),
    ("Pass a mask as `mask=`", lambda: gru(MASK), lambda: gru(mask=MASK)),
    ("Cast lengths to jnp.int32", lambda: gru(np.ones(4)), lambda: gru(np.ones(4).astype(jnp.int32))),
    ("Pass `sequence_length.filled(0)`", lambda: gru(np.ma.ones(4, int)), lambda: gru(np.ma.ones(4, int).filled(0))),
    # States
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: of_state(H0), lambda: of_state(jnp.broadcast_to(H0, (4, 2)))),
    ("broadcast it to 4 rows", lambda: of_state(H0[None]), lambda: of_state(jnp.broadcast_to(H0[None], (4, 2)))),
    ("pass `jnp.broadcast_to(h0, (4, 2))`",
     lambda: dynamic_rnn(LSTM, X, None, jaxrnn.LSTMStateTuple(ZEROS, H0)),
     lambda: dynamic_rnn(LSTM, X, None, jaxrnn.LSTMStateTuple(ZEROS, jnp.broadcast_to(H0, (4, 2))))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`",
     lambda: run_step(lambda x, s: (x, x + s[None]), initial_state=X[0, 0]),
     lambda: run_step(lambda x, s: (x, x + s), initial_state=jnp.broadcast_to(X[0, 0], (4, 3)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`",
     lambda: run_step(lambda x, s: (x, jnp.concatenate([x, s], 1)), initial_state=X[0, 0]),
     lambda: run_step(lambda x, s: (x, jnp.concatenate([x, s], 1)[:, :3]), initial_state=jnp.broadcast_to(X[0, 0], (4, 3)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`",
     lambda: run_step(keep, initial_state=X[0, 0], sequence_length=[1] * 4),
     lambda: run_step(keep, initial_state=jnp.broadcast_to(X[0, 0], (4, 3)), sequence_length=[1] * 4)),
    ("Create a state with `cell.zero_state`", lambda: dynamic_rnn(LSTM, X, None, ZEROS),
     lambda: dynamic_rnn(LSTM, X, None, LSTM.zero_state(4, F32))),
    ("with the structure of `cell.state_size`",
     lambda: dynamic_rnn(LSTM, X, [1] * 4, (ZEROS, ZEROS)),
     lambda: dynamic_rnn(LSTM, X, [1] * 4, LSTM.zero_state(4, F32))),
    ("start from a state like the new one", lambda: run_step(lambda x, s: (x, s * C64(1j))),
     lambda: run_step(lambda x, s: (x, s * C64(1j)), initial_state=np.ones((4, 3), C64))),
    ("A state of several arrays is one nest: `return output, (c, h)`",
     lambda: run_step(lambda x, s: (x, *s), (3, 3)), lambda: run_step(lambda x, s: (x, s), (3, 3))),
    ("Create the state with `dtype=jnp.float32`", lambda: of_state(ZEROS.astype(float)), lambda: of_state(GRU.zero_state(4, dtype=F32))),
    ("and `dtype=jnp.float32`",
     lambda: dynamic_rnn(bound(jaxrnn.MinGRUCell(2)), X, None, ZEROS.astype(np.float16)),
     lambda: dynamic_rnn(bound(jaxrnn.MinGRUCell(2)), X, dtype=jnp.float32)),
    ("create the cell with `dtype=jnp.float32`", lambda: run(GRUCell(2, dtype="float64").bind(GRU.params), X),
     lambda: run(GRUCell(2, dtype=jnp.float32).bind(GRU.params), X)),
    ("Cast the inputs", lambda: run(GRUCell(2, dtype="float32").bind(GRU.params), X.astype(float)), gru),
    ("or cast the inputs", lambda: run(GRU, X.astype(float)), lambda: run(GRU, X.astype(float).astype(F32))),
    # Outputs
    ("Pass `dtype=jnp.bfloat16`", lambda: run_step(lambda x, s: (x.astype(jnp.bfloat16), s), initial_state=X[:, 0]),
     lambda: run_step(lambda x, s: (x.astype(jnp.bfloat16), s), initial_state=X[:, 0], dtype=jnp.bfloat16)),
    ("Pass `dtype=jnp.int32`", lambda: run_step(lambda x, s: (s.astype(I32), s)),
     lambda: run_step(lambda x, s: (s.astype(I32), s), initial_state=X[:, 0], dtype=jnp.int32)),
    ("Pass `dtype=jnp.float32`", lambda: run_step(lambda x, s: (s.real, s), dtype=C64),
     lambda: run_step(lambda x, s: (s.real, s), dtype=jnp.float32, initial_state=np.ones((4, 3), C64))),
    ("or cast in the cell", lambda: run_step(lambda x, s: (x.astype(jnp.bfloat16), s)), lambda: run_step(lambda x, s: (x.astype(jnp.bfloat16).astype(F32), s))),
    ("For outputs of several dtypes, use `raw_rnn`", lambda: run(TWO, X, dtype=I32),
     lambda: raw(cell=TWO, state=X[:, 0], emit=EMIT_TWO)),
    # Masks and resets
    ("Convert numbers with `mask > 0`", lambda: gru(mask=MASK.astype("f")), lambda: gru(mask=MASK.astype("f") > 0)),
    ("pass lengths as `sequence_length`", lambda: gru(mask=np.array([3] * 4)), lambda: gru(np.array([3] * 4))),
    ("Make it an output of the cell",
     lambda: dynamic_rnn(PAIR, X, None, SHARED, F32, return_states=True),
     lambda: run_step(lambda x, s: ((x, s[:, 0]), s), 3, (3, TensorShape([])), return_states=True)),
    ("pass `sequence_length` instead of `mask`",
     lambda: dynamic_rnn(PAIR, X, None, SHARED, F32, mask=MASK), lambda: dynamic_rnn(PAIR, X, MASK.sum(-1), SHARED, F32)),
    ("Convert numbers with `resets > 0`", lambda: gru(resets=MASK.astype(int)), lambda: gru(resets=MASK.astype(int) > 0)),
    ("Pass a `reset_state`", lambda: dynamic_rnn(PAIR, X, None, SHARED, F32, resets=MASK),
     lambda: dynamic_rnn(PAIR, X, None, SHARED, F32, resets=MASK, reset_state=SHARED)),
    ("`dynamic_rnn` and `RNN` accept `resets`", lambda: two_ways(resets=MASK, reset_state=ZEROS), lambda: gru(resets=MASK, reset_state=ZEROS)),
    # Options
    ("close over the value or name the argument in `static_argnames`",
     lambda: jax.jit(lambda b: gru(return_states=b))(True), lambda: jax.jit(lambda: gru(return_states=True))()),
    ("Omit `implementation` to use XLA's loop", lambda: run(bound(jaxrnn.MinGRUCell(2)), X, implementation="native"),
     lambda: run(bound(jaxrnn.MinGRUCell(2)), X)),
    ("For example, use `Offload(Recompute(64))`", lambda: Offload(64), lambda: Offload(Recompute(64))),
    ("Pass float32", lambda: without_x64("float64"), lambda: without_x64("float32")),
    ("or set `jax_enable_x64`", lambda: without_x64("float64"), lambda: dynamic_rnn(bind(GRUCell(2), 3, "float64"), X.astype(float), dtype="float64")),
]  # fmt: skip

OTHER_DRIVERS = [
    ("`initial_state` is `initial_state_bw`", lambda: two_ways.func(GRU, GRU, X, initial_state_fw=ZEROS),
     lambda: two_ways.func(GRU, GRU, X, initial_state_fw=ZEROS, initial_state_bw=ZEROS)),
    ("Pass `cell_bw.bind(params)`", lambda: two_ways.func(GRU, GRU.cell, X, dtype=F32), two_ways),
    # Lists of steps
    ("or split an array x [batch, time, ...] with `list(jnp.swapaxes(x, 0, 1))`", lambda: static.func(GRU, X, dtype=F32),
     lambda: static.func(GRU, list(jnp.swapaxes(X, 0, 1)), dtype=F32)),
    ("pass `inputs[0][1][:, None]`",
     lambda: static.func(cell_of(lambda x, s: (x[0] + x[1], s)).bind({}), [(X[:, 0], X[:, 0, 0])], dtype=F32),
     lambda: static.func(cell_of(lambda x, s: (x[0] + x[1], s)).bind({}), [(X[:, 0], X[:, 0, 0][:, None])], dtype=F32)),
    ("For one row, pass `inputs[None]`", lambda: static.func(GRU, [*X[0]], dtype=F32), lambda: static.func(GRU, [x[None] for x in X[0]], dtype=F32)),
    ("For one number per row, pass `inputs[:, None]`", lambda: static.func(bind(GRUCell(2), 1, "float32"), [x[:, 0] for x in STEPS], dtype=F32),
     lambda: static.func(bind(GRUCell(2), 1, "float32"), [x[:, 0][:, None] for x in STEPS], dtype=F32)),
    ("Each entry of `inputs` is one step of all rows", lambda: static.func(GRU, SEQUENCES, dtype=F32), lambda: static(dtype=F32)),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: static(H0), lambda: static(jnp.broadcast_to(H0, (4, 2)))),
    ("pass `jnp.broadcast_to(h0, (4, 3))`",
     lambda: static.func(cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1))).bind({}), STEPS, X[0, 0]),
     lambda: static.func(cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1)[:, :3])).bind({}), STEPS, jnp.broadcast_to(X[0, 0], (4, 3)))),
    ("Pass a `jaxrnn.StateSaver`", lambda: jaxrnn.static_state_saving_rnn(GRU, STEPS, {"s": ZEROS}, "s"),
     lambda: jaxrnn.static_state_saving_rnn(GRU, STEPS, jaxrnn.StateSaver({"s": ZEROS}), "s")),
    ("Return a state with the structure of `cell.state_size`",
     lambda: jaxrnn.static_state_saving_rnn(cell_of(lambda x, s: (x, (s,))).bind({}), STEPS[:1], jaxrnn.StateSaver({"s": X[:, 0]}), "s"),
     lambda: jaxrnn.static_state_saving_rnn(cell_of(keep).bind({}), STEPS[:1], jaxrnn.StateSaver({"s": X[:, 0]}), "s")),
    ("Use `dynamic_rnn`", lambda: static.func(PAIR, [X[:, 0]] * 50, SHARED, F32), lambda: dynamic_rnn(PAIR, np.ones((4, 50, 3), np.float32), None, SHARED, F32)),
    ("for outputs of several dtypes, `raw_rnn`", lambda: static.func(TWO, [X[:, 0]] * 50, X[:, 0]), lambda: raw(cell=TWO, state=X[:, 0], emit=EMIT_TWO)),
    ("Use `packed_rnn`", lambda: static.func(GRU, PACKED, dtype=F32), lambda: packed(PACKED)),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: jaxrnn.static_state_saving_rnn(GRU, STEPS, jaxrnn.StateSaver({"s": H0}), "s"),
     lambda: jaxrnn.static_state_saving_rnn(GRU, STEPS, jaxrnn.StateSaver({"s": jnp.broadcast_to(H0, (4, 2))}), "s")),
    # `raw_rnn`
    ("Return a comparison, such as `time >= lengths`", lambda: raw(finished=lambda time: 1), lambda: raw(finished=lambda time: time >= 5)),
    ("Pass `max_time`, the largest number of steps", lambda: jax.jit(lambda: raw()[0].stack())(), lambda: jax.jit(lambda: raw(max_time=5)[0].stack())()),
    ("return arrays without a batch axis", lambda: raw(emit_later=lambda y: y[:, :1]), lambda: raw(emit_later=lambda y: y[:, :1], emit=np.zeros(1, np.float32))),
    ("`()` to emit nothing", lambda: raw(emit_later=lambda y: ()), lambda: raw(emit=(), emit_later=lambda y: ())),
    ("or None to emit outputs of `cell.output_size`", lambda: raw(emit=np.zeros(3, np.float32)), lambda: raw(emit=None)),
    ("such as `jnp.zeros([])`", lambda: raw(emit=0, emit_later=lambda y: y[:, 0]),
     lambda: raw(emit=jnp.zeros([], F32), emit_later=lambda y: y[:, 0])),
    ("Increase `max_time`", lambda: checked(max_time=3), lambda: checked(max_time=5)),
    ("Return the same structure as at time 0", lambda: raw(later=X), lambda: raw(later=X, loop=X)),
    ("Return the same structure as at time 0", lambda: raw(loop=X, later=(X,)), lambda: raw(loop=(X,), later=(X,))),
    ("return `jnp.zeros(batch, bool)` at time 0",
     lambda: raw(finished=lambda time: time >= 5 if time == 0 else np.ones(4, bool)), lambda: raw(finished=lambda time: jnp.zeros(4, bool) if time == 0 else np.ones(4, bool))),
    ("apply `jnp.broadcast_to` at time 0",
     lambda: raw(cell=cell_of(lambda x, s: (x, x + s[None])).bind({}), state=X[0, 0]),
     lambda: raw(cell=cell_of(lambda x, s: (x, x + s)).bind({}), state=jnp.broadcast_to(X[0, 0], (4, 3)))),
    ("apply `jnp.broadcast_to`", lambda: raw(state=H0, rows=True), lambda: raw(state=jnp.broadcast_to(H0, (4, 2)), rows=True)),
    ("use `if` only for `cell_output is None`",
     lambda: jax.jit(lambda: raw(finished=lambda time: True if time >= 5 else False, max_time=6)[1])(),
     lambda: jax.jit(lambda: raw(finished=lambda time: jnp.where(time >= 5, True, False), max_time=6)[1])()),
    # Packs
    ("Pass `packed.packed`", lambda: packed(jaxrnn.windows(PACKED, 2)[0]), lambda: packed(jaxrnn.windows(PACKED, 2)[0].packed)),
    ("pass `jnp.broadcast_to(h0, (3, 2))`", lambda: packed(PACKED, H0), lambda: packed(PACKED, jnp.broadcast_to(H0, (3, 2)))),
    ("run a stack of packs with `jax.vmap`", lambda: packed(jaxrnn.stack_packed([PACKED] * 2)), lambda: jax.vmap(packed)(jaxrnn.stack_packed([PACKED] * 2))),
    ("Join packs with `concat_packed`", lambda: packed(jax.tree.map(lambda x: np.concatenate([x, x]), PACKED)), lambda: packed(jaxrnn.concat_packed([PACKED] * 2))),
    ("Increase `row_length`", lambda: jaxrnn.pack_sequences(SEQUENCES, row_length=4), lambda: jaxrnn.pack_sequences(SEQUENCES, row_length=5)),
    ("Increase `rows` or `row_length`", lambda: jaxrnn.pack_sequences(SEQUENCES, rows=1), lambda: jaxrnn.pack_sequences(SEQUENCES, rows=2)),
    ("Create them with `packed_batches`", lambda: jaxrnn.stack_packed([PACKED, jaxrnn.pack_sequences(SEQUENCES, rows=3)]),
     lambda: jaxrnn.stack_packed([*jaxrnn.packed_batches(SEQUENCES * 3, rows=2, row_length=5, sequences=3)])),
    ("Pass arrays in the layout of this pack", lambda: PACKED.unpack(X), lambda: PACKED.unpack(packed(PACKED)[0])),
    ("For padded inputs, pass `sequence_length`", lambda: jaxrnn.pack_sequences(X), lambda: jaxrnn.pack_sequences(X, sequence_length=[1] * 4)),
    ("pass `list(inputs)`", lambda: jaxrnn.pack_sequences(iter(SEQUENCES)), lambda: jaxrnn.pack_sequences(list(iter(SEQUENCES)))),
    ("Convert a list to an array with `np.asarray`", lambda: jaxrnn.pack_sequences([[1.0, 2.0]]), lambda: jaxrnn.pack_sequences([np.asarray([1.0, 2.0])])),
    ("Increase `row_length`, or split the record", lambda: [*jaxrnn.packed_batches(SEQUENCES, rows=2, row_length=4)], lambda: [*jaxrnn.packed_batches(SEQUENCES, rows=2, row_length=5)]),
    ("Call this function outside jit, grad and vmap, and pass its result in", lambda: jax.jit(lambda x: jaxrnn.pack_sequences(x, [1] * 4).inputs)(X), lambda: jax.jit(packed)(jaxrnn.pack_sequences(X, [1] * 4))),
    # Windows
    ("Pass the number of steps of a window", lambda: jaxrnn.windows(X, 0), lambda: jaxrnn.windows(X, 2)),
    ("call `pack_sequences(inputs)` without lengths", lambda: jaxrnn.windows(SEQUENCES, 2), lambda: jaxrnn.windows(jaxrnn.pack_sequences(SEQUENCES), 2)),
    ("Pass the result of the previous window's `row_state`", lambda: jaxrnn.windows(PACKED, 2)[0].start_from(ZEROS, ZEROS[:1]), lambda: jaxrnn.windows(PACKED, 2)[0].start_from(ZEROS[:2], ZEROS[:1])),
    # `reverse_sequence` and `lite`
    ("pass `seq_axis=1` and `batch_axis=0`", lambda: jaxrnn.reverse_sequence(X, [1] * 4, 0, 0), lambda: jaxrnn.reverse_sequence(X, [1] * 4, seq_axis=1, batch_axis=0)),
    ("Swap the first two axes of the inputs", lambda: jaxrnn.lite.dynamic_rnn(GRU, X, dtype=F32, time_major=False), lambda: jaxrnn.lite.dynamic_rnn(GRU, X.swapaxes(0, 1), dtype=F32)),
    ("Use `packed_rnn`", lambda: jaxrnn.lite.dynamic_rnn(GRU, PACKED, dtype=F32), lambda: packed(PACKED)),
    ("For nests, use `jaxrnn.dynamic_rnn`", lambda: jaxrnn.lite.dynamic_rnn(GRU, {"a": X}, dtype=F32), lambda: run_step(lambda x, s: (x["a"], s), inputs={"a": X})),
    ("Shard the rows with `jax.sharding.reshard`", lambda: in_mesh(P(None, "d")), lambda: in_mesh(P(None, "d"), reshard=True)),
    ("Shard the rows, with `jax.sharding.reshard`", lambda: in_mesh(P(None, "d"), reverse=False), lambda: in_mesh(P(None, "d"), True, reverse=False)),
    # `memory_plan`
    ("Change the cell", lambda: plan(cell_of(lambda x, s: (x, s.astype(jnp.bfloat16))), X), lambda: plan(cell_of(keep), X)),
    ("Pass `dtype=jnp.complex64`", lambda: plan(cell_of(lambda x, s: (s * x * C64(1j), s)), X), lambda: plan(cell_of(lambda x, s: (s * x * C64(1j), s)), X, dtype=C64)),
    ("Pass the bound cells of the module: `cell.get_cells()`", lambda: plan(MODULE, X), lambda: plan(MODULE.get_cells(), X)),
    ("a list of strategies", lambda: plan(LSTMCell(2), X, strategies=Recompute()), lambda: plan(LSTMCell(2), X, strategies=[Recompute()])),
    ("such as `jaxrnn.LSTMCell(64)`", lambda: plan(3, X), lambda: plan(jaxrnn.LSTMCell(64), X)),
]  # fmt: skip

BPTT = jaxrnn.truncated_bptt(lambda w, s, x: (w * (s + x).sum(), s + x.sum()))
BPTT2 = jaxrnn.truncated_bptt(BPTT.loss, reach=2)
ONE = np.ones((), np.float32)
CARRY, CARRY2 = BPTT.init(ONE, X), BPTT2.init(ONE, X)


def bptt(loss, params=ONE, **options):
    made = jaxrnn.truncated_bptt(loss, **options)
    return made.value_and_grad(params, made.init(ONE, X), X)


def array(*size, **options):
    return TensorArray(F32, *size, **options)


def drop(cell=None, **options):
    cell = jaxrnn.DropoutWrapper(GRUCell(2) if cell is None else cell, **options)
    return run(bound(cell).cell.bind(bound(cell).params, KEY), X)


COUNTER = cell_of(
    lambda x, s: (x, (s[0], s[1] + 1)), (3, TensorShape([])), is_random=False
)
COUNTS = (X[:, 0], np.zeros(4, np.int32))


def drop_in_counter(**options):
    cell = jaxrnn.DropoutWrapper(COUNTER, state_keep_prob=0.5, **options)
    return dynamic_rnn(cell.bind({}, KEY), X, None, COUNTS, F32)


def at_zero(cell):
    (law,) = (x for x in jaxrnn.testing.LAWS if x.__name__ == "ignores_padding")
    law(jaxrnn.testing.make_setup(cell, STEP))


def in_mesh(spec, reshard=False, reverse=True):
    """Runs over, or reverses, an array that is sharded on an explicit mesh."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(np.ones((4, 4, 3), np.float32), NamedSharding(mesh, spec))
        if reshard:
            x = jax.sharding.reshard(x, P("d"))
        return jaxrnn.reverse_sequence(x, [1] * 4, 1) if reverse else run(GRU, x)


def without_x64(dtype):
    with jax.enable_x64(False):
        return run(GRU, X, dtype=dtype)


def root(least):
    def step(params, inputs, state, key=None):
        return state + jnp.sqrt((params * inputs) ** 2 + least), state

    return FunctionCell(step, 3, 3, lambda key, inputs, dtype: jnp.ones((), dtype))


class NoHash(Mutable):
    __eq__ = lambda self, other: self is other
    __hash__ = object.__hash__


CELLS = [
    ("Use tuples instead of lists", lambda: Mutable({1}).bind({}), lambda: run(Mutable((1,)).bind({}), X)),
    ("put arrays into the parameters", lambda: Mutable(X).bind({}), lambda: run(Mutable(None).bind({"x": X}), X)),
    ("Call `cell.bind(params)(inputs, state)`", lambda: GRUCell(2)(X[:, 0], ZEROS), lambda: GRUCell(2).bind(GRU.params)(X[:, 0], ZEROS)),
    ("Pass the inputs of one step", lambda: GRUCell(2).init(KEY, X), lambda: GRUCell(2).init(KEY, X[:, 0])),
    ("Pass the inputs of one step", lambda: GRU(X, ZEROS), lambda: GRU(X[:, 0], ZEROS)),
    ("Create a state with `cell.zero_state`", lambda: LSTM(X[:, 0], ZEROS), lambda: LSTM(X[:, 0], LSTM.zero_state(4, F32))),
    ("with this cell's `init`", lambda: run(GRU.cell.bind({}), X), lambda: run(GRU.cell.bind(GRU.cell.init(KEY, STEP)), X)),
    ("with this cell's `init`", lambda: GRU.cell.apply(None, X[:, 0], ZEROS), lambda: GRU.cell.apply(GRU.cell.init(KEY, STEP), X[:, 0], ZEROS)),
    ("with this cell's `init`", lambda: run(GRU, X[..., :2]), lambda: run(GRU.cell.bind(GRU.cell.init(KEY, X[:, 0, :2])), X[..., :2])),
    ("Pass the number of rows of the inputs", lambda: GRU.zero_state(None, F32), lambda: GRU.zero_state(4, F32)),
    ("such as `x.shape[0]`", lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(4), lambda: jax.jit(lambda x: GRU.zero_state(x.shape[0], F32))(X)),
    ("Under jit, a number needs `static_argnames`", lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(4), lambda: jax.jit(lambda n: GRU.zero_state(n, F32), static_argnames="n")(n=4)),
    ("Pass `inputs`, or `batch_size` and `dtype`", lambda: GRU.get_initial_state(batch_size=4), lambda: GRU.get_initial_state(batch_size=4, dtype=F32)),
    ("call `cell.bind(params, key)`", lambda: GRU(X[:, 0], ZEROS, KEY), lambda: GRU.cell.bind(GRU.params, KEY)(X[:, 0], ZEROS)),
    ("Pass the index of one step, which jit may trace", lambda: GRU.at_step(np.arange(3)), lambda: jax.jit(lambda t: GRU.at_step(t)(X[:, 0], ZEROS))(1)),
    ("Create a key with `jax.random.key(0)`", lambda: GRUCell(2).init(0, STEP), lambda: GRUCell(2).init(jax.random.key(0), STEP)),
    ("To use several keys, apply `jax.vmap`", lambda: GRUCell(2).init(jax.random.split(KEY), STEP), lambda: jax.vmap(lambda k: GRUCell(2).init(k, STEP))(jax.random.split(KEY))),
    ("use `jaxrnn.contrib.InputProjectionWrapper`", lambda: bound(jaxrnn.LRUCell(4)), lambda: run(bound(jaxrnn.contrib.InputProjectionWrapper(jaxrnn.LRUCell(4), 4)), X)),
    ("For a vector, pass an int", lambda: cell_of(keep, None), lambda: cell_of(keep, 3)),
    ("for two axes, pass `TensorShape([5, 5])`", lambda: cell_of(keep, "5"), lambda: cell_of(keep, TensorShape([5, 5]))),
    ("Pass the result of `as_cell` to `jaxrnn.dynamic_rnn`", lambda: jaxrnn.nnx.as_cell(nnx.GRUCell(3, 2, rngs=nnx.Rngs(0)), 3).cell.init(KEY, STEP),
     lambda: run(jaxrnn.nnx.as_cell(nnx.GRUCell(3, 2, rngs=nnx.Rngs(0)), 3), X)),
    # Initializers
    ("in a custom cell, `input_rows`",
     lambda: jaxrnn.ParamSpec((5, 2), init.by_part(normal(), normal())).initializer(KEY, jaxrnn.ParamSpec((5, 2), zeros), F32),
     lambda: init.by_part(normal(), normal())(KEY, jaxrnn.ParamSpec((5, 2), zeros, input_rows=3), F32)),
    ("in a custom cell, the number of gates", lambda: init.chrono(9)(KEY, (2,), F32), lambda: init.chrono(9)(KEY, jaxrnn.ParamSpec((2,), zeros, blocks=2), F32)),
    ("Pass `chrono` as the `bias` of `by_part`", lambda: LSTMCell(2, initializer=init.chrono(9)).init(KEY, STEP), lambda: LSTMCell(2, initializer=init.by_part(normal(), normal(), bias=init.chrono(9))).init(KEY, STEP)),
    ("or as `bias_initializer`", lambda: GRUCell(2, kernel_initializer=init.chrono(9)).init(KEY, STEP), lambda: GRUCell(2, bias_initializer=init.chrono(9)).init(KEY, STEP)),
    # Custom cells
    ("or define `enter`", lambda: affine(size=(2, 2)),
     lambda: affine(size=(2, 2), enters=lambda s: (s[0], s[1]), given=(stage(update=lambda p, z, carry: (z, (z, carry))),))),
    ("For a complex state, a, b and `state_size` are `ComplexState`s", lambda: linear(1j, jaxrnn.ComplexState(3, 3)), lambda: linear(COMPLEX_STATE, jaxrnn.ComplexState(3, 3))),
    ("For a complex state, a, b and `state_size` are `ComplexState`s", lambda: linear(1j), lambda: linear(COMPLEX_STATE, jaxrnn.ComplexState(3, 3))),
    # Wrappers
    ("Pass the unbound `cells[1].cell`", lambda: MultiRNNCell([GRUCell(2), GRU]), lambda: MultiRNNCell([GRUCell(2), GRU.cell])),
    ("Create a cell from a function with `FunctionCell`", lambda: MultiRNNCell([keep]), lambda: MultiRNNCell([cell_of(keep)])),
    ("from several cells with `MultiRNNCell`", lambda: jaxrnn.ResidualWrapper([GRUCell(3)] * 2), lambda: run(bound(jaxrnn.ResidualWrapper(MultiRNNCell([GRUCell(3), GRUCell(3)]))), X)),
    ("from a Flax cell with `as_cell`", lambda: MultiRNNCell([nn.GRUCell(2)]), lambda: MultiRNNCell([jaxrnn.linen.as_cell(nn.GRUCell(2))])),
    ("Pass the dict that `init` returned", lambda: run(STACK.cell.bind(GRU.params), X), lambda: run(STACK.cell.bind(STACK.cell.init(KEY, STEP)), X)),
    ("Pass the dict that `init` returned", lambda: run(jaxrnn.TemporalConvWrapper(GRUCell(2), 3).bind(GRU.params), X), lambda: run(bound(jaxrnn.TemporalConvWrapper(GRUCell(2), 3)), X)),
    ("pass a `residual_fn`", lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2))), X), lambda: run(bound(jaxrnn.ResidualWrapper(GRUCell(2), lambda x, y: x[:, :2] + y)), X)),
    ("To use only the newest inputs, omit the wrapper", lambda: jaxrnn.PastInputsWrapper(GRUCell(2), 3, width=1), gru),
    ("Create the wrapper with the depth of the inputs", lambda: bound(jaxrnn.PastInputsWrapper(GRUCell(2), 4)), lambda: run(bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3)), X)),
    ("Create a state with `cell.zero_state`", lambda: bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3))(X[:, 0], ZEROS), lambda: (lambda c: c(X[:, 0], c.zero_state(4, F32)))(bound(jaxrnn.PastInputsWrapper(GRUCell(2), 3)))),
    ("Pass the dtype of the inputs", lambda: drop(variational_recurrent=True), lambda: drop(variational_recurrent=True, dtype=F32)),
    ("Pass the depth of the inputs", lambda: drop(input_keep_prob=0.5, variational_recurrent=True, dtype=F32), lambda: drop(input_keep_prob=0.5, variational_recurrent=True, dtype=F32, input_size=3)),
    ("Set `input_keep_prob` to 1", lambda: run(jaxrnn.DropoutWrapper(cell_of(lambda x, s: (s, s)), 0.5).bind({}, KEY), X.astype(int)), lambda: run(jaxrnn.DropoutWrapper(cell_of(lambda x, s: (s, s)), 1).bind({}, KEY), X.astype(int))),
    ("exclude the leaf of a state with `dropout_state_filter_visitor`", drop_in_counter, lambda: drop_in_counter(dropout_state_filter_visitor=lambda s: (True, False) if isinstance(s, tuple) else True)),
    ("Pass a Python number", lambda: jax.jit(lambda p: drop(output_keep_prob=p))(0.5), lambda: jax.jit(lambda: drop(output_keep_prob=0.5))()),
    ("Read `c.dtype` or `h.dtype`", lambda: jaxrnn.LSTMStateTuple(ZEROS, ZEROS.astype(float)).dtype, lambda: jaxrnn.LSTMStateTuple(ZEROS, ZEROS.astype(float)).c.dtype),
    ("2 bools, one for each part of a nest", lambda: drop_in_counter(dropout_state_filter_visitor=lambda s: (True,)), lambda: drop_in_counter(dropout_state_filter_visitor=lambda s: (True, False) if isinstance(s, tuple) else True)),
    # Arguments of other libraries
    ("Pass it to `AttentionWrapper.initial_state`", lambda: gru(memory=X), lambda: dynamic_rnn(ATTENTION, X, None, ATTENTION.cell.initial_state(memory=X), F32)),
    ("`dynamic_rnn` accepts masks", lambda: static(mask=MASK), lambda: gru(mask=MASK)),
    ("`mask.sum(-1)` gives lengths", lambda: static(mask=MASK), lambda: static(None, F32, MASK.sum(-1))),
    ("`dynamic_rnn` and `RNN` accept `resets`", lambda: static(dones=MASK), lambda: (gru(resets=MASK), in_nnx()(X, resets=MASK))),
    ("Bind the parameters to the cell with `cell.bind(params)`", lambda: run(GRU.cell, X, params=GRU.params), lambda: run(GRU.cell.bind(GRU.params), X)),
    ("or `cell.bind(params, key)`", lambda: gru(rng=KEY), lambda: run(GRU.cell.bind(GRU.params, KEY), X)),
    ("For dropout, use `cell.bind(params, key)`", lambda: gru(training=True), lambda: run(GRU.cell.bind(GRU.params, KEY), X)),
    ("unless `time_major` is True", lambda: gru(batch_first=False), lambda: run(GRU, X.swapaxes(0, 1), time_major=True)),
    ("All outputs and the last state are returned", lambda: gru(return_sequences=True), gru),
    ("Use `reverse_sequence`", lambda: gru(reverse=True), lambda: run(GRU, jaxrnn.reverse_sequence(X, [5] * 4, 1))),
    ("pass `reverse` to the module `RNN`", lambda: gru(go_backwards=True), lambda: in_nnx(reverse=True)(X)),
    ("set it to zeros for no bias", lambda: jaxrnn.BasicRNNCell(2, use_bias=False), lambda: (lambda c: run(c.cell.bind({**c.params, "bias": jnp.zeros(2, F32)}), X))(bound(jaxrnn.BasicRNNCell(2)))),
    ("Use `CudnnCompatibleGRUCell`", lambda: GRUCell(2, reset_after=True), lambda: run(bound(jaxrnn.CudnnCompatibleGRUCell(2)), X)),
    ("`cell.init(key, inputs, dtype)`", lambda: GRUCell(2, param_dtype=F32), lambda: GRUCell(2).init(KEY, STEP, F32)),
    ("`init` reads the depth from the inputs", lambda: GRUCell(2, input_size=3), lambda: bound(GRUCell(2))),
    ("Stack cells with `MultiRNNCell([cell, ...])`", lambda: GRUCell(2, num_layers=2), lambda: MultiRNNCell([GRUCell(2), GRUCell(2)])),
    ("Run two cells with `bidirectional_dynamic_rnn`", lambda: GRUCell(2, bidirectional=True), two_ways),
    ("Use `DropoutWrapper(cell, output_keep_prob=1 - rate)`", lambda: GRUCell(2, dropout=0.1), lambda: drop(output_keep_prob=1 - 0.1)),
    ("Use `DropoutWrapper(cell, state_keep_prob=1 - rate)`", lambda: GRUCell(2, recurrent_dropout=0.1), lambda: drop(state_keep_prob=1 - 0.1)),
    ("Use `num_units`", lambda: GRUCell(hidden_size=2), lambda: GRUCell(num_units=2)),
    ("Use `jaxrnn` itself: for example, `jaxrnn.LSTMCell`", lambda: jaxrnn.rnn_cell, lambda: jaxrnn.LSTMCell),
    ("Run a cell such as `LSTMCell` with `dynamic_rnn`, or use the modules of `jaxrnn.linen` and `jaxrnn.nnx`", lambda: jaxrnn.LSTM, lambda: (run(LSTM, X), jaxrnn.linen.RNN, jaxrnn.nnx.RNN)),
]  # fmt: skip

OTHERS = [
    # `testing`
    ("Pass the unbound `cell.cell`", lambda: jaxrnn.testing.check_cell(GRU, STEP), lambda: jaxrnn.testing.LAWS[0](jaxrnn.testing.make_setup(GRU.cell, STEP))),
    ("pass `jax.ShapeDtypeStruct((4, 3), 'float32')`", lambda: jaxrnn.testing.check_cell(GRU.cell, 3), lambda: jaxrnn.testing.make_setup(GRU.cell, jax.ShapeDtypeStruct((4, 3), "float32"))),
    ("Pass a state like the result of `cell.zero_state`", lambda: jaxrnn.testing.check_cell(GRU.cell, STEP, state=H0), lambda: jaxrnn.testing.make_setup(GRU.cell, STEP, state=GRU.cell.zero_state(4, F32))),
    ("Keep the `__eq__` and `__hash__` of `RNNCell`", lambda: jaxrnn.testing.LAWS[0](jaxrnn.testing.make_setup(NoHash(3), STEP)), lambda: jaxrnn.testing.LAWS[0](jaxrnn.testing.make_setup(Mutable(3), STEP))),
    ("Check the step for divisions, roots and logarithms of 0", lambda: at_zero(root(0)), lambda: at_zero(root(1))),
    # `truncated_bptt`
    ("Create the carry with `init` of the same object", lambda: BPTT.value_and_grad(ONE, CARRY2, X), lambda: BPTT.value_and_grad(ONE, CARRY, X)),
    ("Pad shorter windows", lambda: BPTT2.value_and_grad(ONE, CARRY2, X[:, :3]), lambda: BPTT2.value_and_grad(ONE, CARRY2, np.pad(X[:, :3], ((0, 0), (0, 2), (0, 0))))),
    ("Return a state like the `state` that `loss` received", lambda: bptt(lambda w, s, x: (w, (s, s))), lambda: bptt(lambda w, s, x: (w, s))),
    ("For BPTT(k2; k1), pass `k2 // k1`", lambda: jaxrnn.truncated_bptt(BPTT.loss, reach=8 / 4), lambda: jaxrnn.truncated_bptt(BPTT.loss, reach=8 // 4)),
    # `TensorArray`
    ("Pass a Python integer", lambda: array(), lambda: array(3)),
    ("Call `.stack()`", lambda: np.asarray(array(1, element_shape=())), lambda: np.asarray(array(1, element_shape=()).stack())),
    ("Read the array that `write` returned", lambda: array(1).read(0), lambda: array(1).write(0, X).read(0)),
    ("or pass `element_shape`", lambda: array(1).read(0), lambda: array(1, element_shape=(3,)).read(0)),
    ("To read zeros instead, pass `element_shape`", lambda: array(2, infer_shape=False).write(0, X).read(1), lambda: array(2, element_shape=X.shape).write(0, X).read(1)),
    ("Pass the number of elements; a traced index cannot extend an array", lambda: jax.jit(lambda t: array(0, dynamic_size=True).write(t, X))(0), lambda: jax.jit(lambda t: array(1, dynamic_size=True).write(t, X))(0)),
    ("create it with `dynamic_size=True`", lambda: array(1).write(1, X), lambda: array(1, dynamic_size=True).write(1, X)),
    ("Use `jax.vmap`", lambda: jax.vmap(lambda x: array(1).write(0, x))(X).read(0), lambda: jax.vmap(lambda x: array(1).write(0, x).read(0))(X)),
    ("create the array with `element_shape`", lambda: jax.jit(lambda t: array(2, infer_shape=False).write(t, X[0]))(0), lambda: jax.jit(lambda t: array(2, element_shape=X[0].shape).write(t, X[0]))(0)),
    ("Apply `jax.grad` to the whole function", lambda: array(1).grad("loss"), lambda: jax.grad(lambda x: array(1).write(0, x).read(0))(ONE)),
]  # fmt: skip

LINEN_VARIABLES = jaxrnn.linen.RNN(GRUCell(2)).init(KEY, X)
NOISY = jaxrnn.DropoutWrapper(GRUCell(2), 0.5)


def apply(*args, **kwargs):
    return jaxrnn.linen.RNN(GRUCell(2)).apply(LINEN_VARIABLES, *args, **kwargs)


def set_cells(*cells, kind="RNN"):
    in_nnx(kind=kind).set_cells(*cells)


class Counts(nnx.RNNCellBase):
    """A cell of nnx that counts its steps in a variable, or in its carry."""

    def __init__(self, keeps):
        self.count = nnx.Variable(jnp.zeros((), F32)) if keeps else None

    def __call__(self, carry, inputs):
        return carry + 1, inputs

    def initialize_carry(self, input_shape, rngs=None):
        return jnp.zeros((*input_shape[:-1], 1), F32)


def nnx_dropout(key=None):
    """An nnx cell with dropout in a driver."""
    cell = jaxrnn.nnx.as_cell(Noisy(rngs=nnx.Rngs(0)), 3)
    return run(cell if key is None else cell.cell.bind(cell.params, key), X)


class Noisy(nnx.RNNCellBase):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, carry, inputs):
        return carry, self.dropout(inputs)

    def initialize_carry(self, input_shape, rngs=None):
        return jnp.zeros((*input_shape[:-1], 1), F32)


def in_eval():
    module = Noisy(rngs=nnx.Rngs(0))
    module.eval()
    return run(jaxrnn.nnx.as_cell(module, 3), X)


def in_jit(**declared):
    """Calls an nnx module, over which a function closes, under `jax.jit`."""
    rnn = in_nnx(cell_of(keep, **declared))
    return jax.jit(lambda x, key: rnn(x, rngs=key))


PAIRS = (ZEROS, ZEROS)

MODULES = [
    ("with `in_features=3` of an nnx module", lambda: in_nnx(depth=4)(X), lambda: in_nnx(depth=3)(X)),
    ("with `in_features=3` of an nnx module", lambda: in_nnx(kind="Bidirectional", depth=4)(X), lambda: in_nnx(kind="Bidirectional", depth=3)(X)),
    ("with `in_features=3` of an nnx module", lambda: nnx.RNN(in_nnx(kind="Cell", depth=4))(X), lambda: nnx.RNN(in_nnx(kind="Cell", depth=3))(X)),
    ("with this cell's `init`", lambda: apply(X[..., :2]), lambda: in_linen(X[..., :2])),
    ("Use `RNN` of `jaxrnn.linen` or `jaxrnn.nnx`", lambda: in_nnx(NOISY, "Cell"), lambda: (in_nnx(NOISY)(X), in_linen(X, cell=NOISY))),
    ("Keep values that change from step to step in the carry", lambda: jaxrnn.nnx.as_cell(Counts(True), 3), lambda: run(jaxrnn.nnx.as_cell(Counts(False), 3), X)),
    ("Pass the unbound `cell.cell`", lambda: in_nnx(GRU), lambda: in_nnx(GRU.cell)(X)),
    ("Construct the module with the attribute `cell` of the bound cell", lambda: jaxrnn.linen.RNN(GRUCell(3)).variables_of(GRU), lambda: jaxrnn.linen.RNN(GRU.cell).variables_of(GRU)),
    ("For several layers in one direction, pass one bound `MultiRNNCell`", lambda: set_cells(GRU, GRU), lambda: in_nnx(STACK.cell).set_cells(STACK)),
    ("keys that are names of parameters, of ['bias', 'kernel']", lambda: in_linen(X, options={"axis_names": {"kernal": (None, None)}}), lambda: in_linen(X, options={"axis_names": {"kernel": (None, None)}})),
    ("a dict of tuples such as {'bias': ('hidden',)}", lambda: in_linen(X, options={"axis_names": "bias"}), lambda: in_linen(X, options={"axis_names": {"bias": ("hidden",)}})),
    ("To add the outputs, pass `jnp.add`", lambda: in_nnx(kind="Bidirectional", merge="sum")(X), lambda: in_nnx(kind="Bidirectional", merge=jnp.add)(X)),
    ("a pair (state_fw, state_bw)", lambda: in_nnx(kind="Bidirectional")(X, initial_state=ZEROS), lambda: in_nnx(kind="Bidirectional")(X, initial_state=PAIRS)),
    ("`reset_state` must be None for a bidirectional module", lambda: in_nnx(kind="Bidirectional")(X, resets=MASK, reset_state=PAIRS), lambda: in_nnx(kind="Bidirectional")(X, resets=MASK)),
    ("To make one array, call `jnp.asarray`", lambda: in_nnx(depth=1)([[1.0]]), lambda: in_nnx(depth=1)(jnp.asarray([[1.0]]))),
    ("For one number per step, pass `inputs[..., None]`", lambda: in_nnx(depth=1)(X[..., 0], [1] * 4), lambda: in_nnx(depth=1)(X[..., 0][..., None], [1] * 4)),
    ("For sequences of different lengths, use `pack_sequences`", lambda: in_linen(SEQUENCES), lambda: jaxrnn.packed_rnn(in_nnx().get_cells(), jaxrnn.pack_sequences(SEQUENCES), dtype=F32)),
    ("for sequences of different lengths, use `pack_sequences`", lambda: in_nnx()(SEQUENCES, [5, 3, 2]), lambda: jaxrnn.packed_rnn(in_nnx().get_cells(), jaxrnn.pack_sequences(SEQUENCES), dtype=F32)),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: in_linen(X, initial_state=H0), lambda: in_linen(X, initial_state=jnp.broadcast_to(H0, (4, 2)))),
    ("pass `jnp.broadcast_to(h0, (4, 2))`", lambda: in_nnx(kind="Bidirectional")(X, initial_state=(H0, H0)), lambda: in_nnx(kind="Bidirectional")(X, initial_state=(jnp.broadcast_to(H0, (4, 2)),) * 2)),
    ("start from a state like the new one", lambda: in_linen(X, cell=cell_of(lambda x, s: (x, s * C64(1j))), options={"dtype": F32}), lambda: in_linen(X, cell=cell_of(lambda x, s: (x, s * C64(1j))), options={"dtype": F32}, initial_state=np.ones((4, 3), C64))),
    ("Pass `dtype=jnp.complex64`", lambda: in_nnx(cell_of(lambda x, s: (x * C64(1j), s)))(X), lambda: in_nnx(cell_of(lambda x, s: (x * C64(1j), s)), dtype=C64)(X)),
    ("Pass `dtype=jnp.float32`", lambda: in_nnx(cell_of(lambda x, s: (x.real, s)))(X.astype(C64)), lambda: in_nnx(cell_of(lambda x, s: (x.real, s)), dtype=jnp.float32)(X.astype(C64))),
    ("Pass `dtype=jnp.int32`", lambda: in_nnx(cell_of(lambda x, s: (x.astype(I32), s)))(X), lambda: in_nnx(cell_of(lambda x, s: (x.astype(I32), s)), dtype=jnp.int32)(X)),
    ("use `raw_rnn`", lambda: in_nnx(TWO.cell)(X), lambda: jaxrnn.raw_rnn(in_nnx(TWO.cell).get_cells(), loop_fn(state=X[:, 0], emit=EMIT_TWO), max_time=5)),
    ("Use `packed_rnn`", lambda: in_linen(PACKED), lambda: packed(PACKED)),
    ("Use `sequence_length`", lambda: in_nnx()(X, seq_lengths=[1] * 4), lambda: in_nnx()(X, sequence_length=[1] * 4)),
    ("Use `initial_state`", lambda: in_nnx()(X, initial_carry=ZEROS), lambda: in_nnx()(X, initial_state=ZEROS)),
    ("must be nnx.Rngs, for example `nnx.Rngs(0)`", lambda: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=0), lambda: jaxrnn.nnx.RNN(GRUCell(2), 3, rngs=nnx.Rngs(0))),
    ("Bind each cell to parameters from its `init` or from a converter", lambda: set_cells(GRU.cell.bind({})), lambda: set_cells(GRU.cell.bind(GRU.cell.init(KEY, STEP)))),
    ("Check that `in_features` is the size of the inputs", lambda: in_nnx(depth=4).set_cells(GRU), lambda: in_nnx(depth=3).set_cells(GRU)),
    ("Create the module with `param_dtype=jnp.complex64`", lambda: in_nnx(GRUCell(2, kernel_initializer=normal())).set_cells(GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params))),
     lambda: in_nnx(GRUCell(2, kernel_initializer=normal()), param_dtype=C64).set_cells(GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params)))),
    ("Pass `rngs=key`", lambda: in_jit()(X, None), lambda: in_jit()(X, KEY)),
    ("`is_random=False` to a cell without random numbers", lambda: in_jit()(X, None), lambda: in_jit(is_random=False)(X, None)),
    ("Pass `cell.cell.bind(cell.params, key)`", nnx_dropout, lambda: nnx_dropout(KEY)),
    ("call `module.eval()` first", nnx_dropout, in_eval),
    ("Pass the variables that `init` or `variables_of` returned", lambda: jaxrnn.linen.RNN(GRUCell(2)).cells_of({}), lambda: jaxrnn.linen.RNN(GRUCell(2)).cells_of(LINEN_VARIABLES)),
]  # fmt: skip


@pytest.mark.fast("*broadcast_to*", "*raw_rnn*", "*in_features*", "*dtype=jnp*")
@pytest.mark.parametrize(
    ("advice", "fails", "followed"),
    DRIVERS + OTHER_DRIVERS + CELLS + OTHERS + MODULES,
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_advice_can_be_followed(advice, fails, followed):
    with usual_promotion():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
            fails()
        text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
        assert advice in text
        followed()
