"""What messages advise is followed, and the call then runs; other calls are refused.

Last, the names in the code of all messages exist.
"""

import ast
import builtins
import functools
import inspect
import keyword
import pathlib
import re

import flax.linen as nn
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import usual_promotion

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, LSTMStateTuple, convert, dynamic_rnn

F32, C64 = jnp.float32, jnp.complex64
X = np.ones((4, 5, 3), np.float32)
X0 = X[:, 0]
KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), F32)
MASK = X[..., 0] > 0
ZEROS = np.zeros((4, 2), np.float32)
PAIR = (ZEROS, ZEROS)
H3 = X[0, 0]
PACKED = jaxrnn.pack_sequences([X[0], X[1, :3], X[2, :2]])
bound = functools.partial(helpers.bound, dtype="float32")
GRU, LSTM = bound(GRUCell(2)), bound(LSTMCell(2))
run = functools.partial(dynamic_rnn, dtype=F32)
gru = functools.partial(run, GRU, X)
two_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, X)
lite = functools.partial(jaxrnn.lite.dynamic_rnn, GRU, dtype=F32)


def cell_of(step, state_size=3, output_size=3, **options):
    fn = lambda p, x, s, key=None: step(x, s)
    return jaxrnn.FunctionCell(fn, state_size, output_size, **options)


def run_step(step, *sizes):
    return run(cell_of(step, *sizes).bind({}), X)


def keep(x, s):
    return x, s


def in_nnx(cell=GRU.cell, kind="RNN", depth=3, **options):
    cells = [cell] * (2 if kind == "Bidirectional" else 1)
    return getattr(jaxrnn.nnx, kind)(*cells, depth, rngs=nnx.Rngs(0), **options)


both_in_nnx = functools.partial(in_nnx, kind="Bidirectional")


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


LONGER = cell_of(lambda x, s: (x, jnp.concatenate([x, s], 1))).bind({})
ROTATING = cell_of(lambda x, s: (x, s.astype(C64))).bind({})
COMPLEX = GRU.cell.bind(jax.tree.map(lambda p: p.astype(C64), GRU.params))


def without_x64(dtype):
    with jax.enable_x64(False):
        return run(GRU, X, dtype=dtype)


TORCH = convert.to_torch(LSTM, at="lstm")
(KERAS,) = convert.to_keras(LSTM)
load_torch, load_keras = convert.from_torch, convert.from_keras


def in_jit(**declared):
    """Calls an nnx module, over which a function closes, under `jax.jit`."""
    rnn = in_nnx(cell_of(keep, **declared))
    return jax.jit(lambda x, key: rnn(x, rngs=key))


# Each row: the advice, as in the message; the call that fails; calls that follow it.
ADVICE = [
    # Drivers
    ("Pass `cell.bind(params)`", lambda: run(GRU.cell, X), lambda: run(GRU.cell.bind(GRU.params), X)),
    ("Convert a Flax cell with `as_cell`", lambda: run(nn.GRUCell(2), X), lambda: run(bound(jaxrnn.linen.as_cell(nn.GRUCell(2))), X)),
    ("pass `dtype=jnp.float32`", lambda: dynamic_rnn(GRU, X), lambda: dynamic_rnn(GRU, X, dtype=jnp.float32)),
    ("`inputs.reshape(-1, *inputs.shape[-2:])`, or use a module `RNN`", lambda: run(GRU, X[None]), lambda: (run(GRU, X[None].reshape(-1, *X.shape[-2:])), in_nnx()(X[None]))),
    ("check `time_major`", lambda: gru([1] * 5), lambda: gru([1] * 5, time_major=True)),
    ("Pass `mask.T`, or check `time_major`", lambda: gru(mask=MASK.T), lambda: gru(mask=MASK)),
    ("Cast lengths to jnp.int32. Pass a mask as `mask=`, a state as `initial_state=`", lambda: gru(np.ones(4)), lambda: (gru(np.ones(4).astype(jnp.int32)), gru(mask=MASK), gru(initial_state=ZEROS))),
    ("`return output, (c, h)`", lambda: run_step(lambda x, s: (x, *s), (3, 3)), lambda: run_step(keep, (3, 3))),
    ("accept `resets=jaxrnn.resets_of_done(done, last_done)`", lambda: gru(done=MASK), lambda: gru(resets=jaxrnn.resets_of_done(MASK, MASK[:, 0]))),
    ("Pass `max_time`", lambda: jax.jit(lambda: raw()[0].stack())(), lambda: jax.jit(lambda: raw(limit=5)[0].stack())()),
    ("the module: `cell.get_cells()`", lambda: run(in_nnx(), X), lambda: run(in_nnx().get_cells(), X)),
    # Packs and export
    ("Pass `packed.inputs`, with `packed.lengths` and `resets=packed.resets`.", lambda: run(GRU, PACKED), lambda: run(GRU, PACKED.inputs, PACKED.lengths, resets=PACKED.resets)),
    ("pass `sequence_length`; otherwise, pass `list(inputs)`", lambda: jaxrnn.pack_sequences(X), lambda: (jaxrnn.pack_sequences(X, sequence_length=[1] * 4), jaxrnn.pack_sequences(list(X)))),
    ("pass `jnp.ones(4, bool)`", lambda: jaxrnn.resets_of_done(MASK), lambda: jaxrnn.resets_of_done(MASK, jnp.ones(4, bool))),
    # Cells and wrappers
    ("Pass the dtype of the inputs, `dtype=jnp.float32`.", lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype="bfloat16"), lambda: dynamic_rnn(LSTM, X, [1] * 4, dtype=F32)),
    ("Create a state with `cell.zero_state` and `dtype=jnp.float32`.", lambda: GRU(X0, ZEROS.astype(np.float16)), lambda: GRU(X0, GRU.zero_state(4, F32))),
    # Convert and decode
    ("For Keras 3, pass `jax.nn.hard_sigmoid`.", lambda: load_keras(KERAS, recurrent_activation="hard_sigmoid"), lambda: run(load_keras(KERAS, recurrent_activation=jax.nn.hard_sigmoid), X)),
    ("Pass the name of a module as `at`: 'lstm.'", lambda: load_torch(TORCH), lambda: run(load_torch(TORCH, at="lstm."), X)),
    ("Pass `LSTMStateTuple(c=c, h=h)`", lambda: decoded(PAIR), lambda: decoded(LSTMStateTuple(*PAIR))),
    # Modules
    ("For one step of each row, pass `inputs[:, None]`.", lambda: in_nnx()(X0, initial_state=ZEROS), lambda: in_nnx()(X0[:, None], initial_state=ZEROS)),
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


REFUSALS = [
    # A plain pair in place of an `LSTMStateTuple`
    (UserWarning, "`initial_state`", lambda: run(LSTM, X, None, PAIR)),
    (TypeError, "`initial_state`", lambda: run(LSTM, X, [1] * 4, PAIR)),
    (UserWarning, "`state`", lambda: LSTM(X0, PAIR)),
    # Drivers
    (UserWarning, "`dtype`", lambda: without_x64("float64")),
    (ValueError, "`inputs`", lambda: gru.func(GRU, X.astype(int), dtype=F32)),
    (ValueError, "^`inputs` must", lambda: two_ways.func(GRU, GRU, PACKED)),
    (TypeError, "`jnp.broadcast_to", lambda: run(LONGER, X, initial_state=H3)),
    (TypeError, "`new_state`", lambda: run(ROTATING, X)),
    (TypeError, "`return_states`", lambda: jax.jit(lambda b: gru(return_states=b))(True)),
    (TypeError, "`cell_bw`", lambda: two_ways.func(GRU, GRU.cell, X)),
    # Cells
    (TypeError, "`key`", lambda: GRUCell(2).init(0, STEP)),
    # Converters and modules
    (ValueError, "`initial_state`", lambda: both_in_nnx()(X, initial_state=ZEROS)),
    (TypeError, "'bias'", lambda: in_nnx().set_cells(COMPLEX)),
]  # fmt: skip
test_refuses = helpers.refusals(REFUSALS)


# The names in the code that messages show in backquotes exist: renaming an argument, a
# function or a method without its advice fails here.

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "jaxrnn").rglob("*.py"))
HOLE = "any_value"  # Stands for what an f-string inserts.
NAMES = "contrib convert decode export extend initializers linen lite memory nnx "
NAMES += "testing typing"
MODULES = [jaxrnn, jaxrnn.extend.fields, *(getattr(jaxrnn, n) for n in NAMES.split())]

# Names that are not jaxrnn's: of what users hold, of a loop function's arguments and
# results, and of other libraries.
OTHERS = set(
    "batch bound h0 k1 k2 kernel layer model module node packed rate table times variables y "
    "cell_output emit_output loop_state next_cell_state next_input window "
    "callback in_specs jax jax_enable_x64 jaxrnn jnp np P register_dataclass "
    "static_argnames topologies "
    "R Inputs get_weights install legacy_seq2seq number_over_rows onnx orthogonal pip "
    "recurrent_activation tf".split()
)
EXISTING = {*OTHERS, *NAMES.split(), *keyword.kwlist, *vars(builtins)}
for owner in (jax, jnp, jax.lax, np, nnx, dict, np.ma.MaskedArray, np.ndarray):
    EXISTING |= {*dir(owner)}
for module in MODULES:
    for name in module.__all__:
        value = getattr(module, name)
        calls = [getattr(value, each, None) for each in dir(value)]
        calls = [call for call in [value, *calls] if inspect.isfunction(call)]
        calls += [value] if inspect.isclass(value) else []
        EXISTING |= {name, *dir(value)}
        EXISTING |= {a for call in calls for a in inspect.signature(call).parameters}


def strings(node):
    """The strings below a node that are no docstrings; a hole is what is inserted."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        texts = [getattr(part, "value", HOLE) for part in node.values]
        yield "".join(text if isinstance(text, str) else HOLE for text in texts)
        children = [each for each in node.values if not isinstance(each, ast.Constant)]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        children = []  # A docstring.
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from strings(child)


def wrong(source):
    """The names that do not exist, by the code in backquotes."""
    found = {}
    for text in strings(ast.parse(source)):
        for code in re.findall("`([^`]*)`", text):
            # What strings hold is free, as are the names of two libraries.
            own = re.sub(r"'[^']*'|\b(onnx|tf)(\.\w+)+", "", code)
            names = {n for n in re.findall(r"[A-Za-z_]\w*", own) if HOLE not in n}
            if names - EXISTING and not (ROOT / code).is_file():
                found[code] = names - EXISTING
    return found


def test_names_in_messages_exist():
    assert {file.name: w for file in FILES if (w := wrong(file.read_text()))} == {}


@pytest.mark.parametrize("code", ["seq_axs=1", "jnp.asaray", "{name}.bnd(params)"])
def test_a_wrong_name_is_found(code):
    source = f'''"""A `docstring`."""\nfail(f"Pass `{code}`.")'''
    assert wrong(source)
