"""Cells of users: functions, subclasses, and matrix memories with their own rules."""

import dataclasses
import functools
import re
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, assert_same, differentiated, draw, drawn, refusals

import jaxrnn
from jaxrnn import (
    FunctionCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
    RNNCell,
    TensorShape,
    contrib,
    extend,
    lite,
)
from jaxrnn._run.loops import loops_of
from jaxrnn.extend import fields

# Cells of functions.

X, H = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)


def keep(params, inputs, state, key=None):
    return inputs, state


def product(params, inputs, state, key=None):
    state = jnp.tanh(inputs @ params["w"] + state)
    return {"h": state, "pairs": state[:, :, None] * state[:, None]}, state


def init(key, inputs, dtype=None):
    return {"w": jax.random.normal(key, (inputs.shape[-1], 2), dtype or inputs.dtype)}


STATES = {
    "vector": (H, 2),
    "matrix": (H[:, None], TensorShape([1, 2])),
    "nest": (LSTMStateTuple(H, {"n": X}), LSTMStateTuple(2, {"n": 3})),
}


@pytest.mark.parametrize(("state", "size"), STATES.values(), ids=STATES)
def test_sizes_are_those_of_the_state(state, size):
    for given in state, jax.eval_shape(lambda: state):
        cell = FunctionCell.like(keep, X, given, is_random=True)
        assert cell == FunctionCell(keep, size, 3, is_random=True)
        assert type(cell.state_size) is type(size)


def test_the_output_depends_on_the_parameters():
    want = FunctionCell(product, 2, {"h": 2, "pairs": TensorShape([2, 2])}, init)
    cell = FunctionCell.like(product, X, H, init)
    assert cell == want
    bound = cell.bind(cell.init(jax.random.key(0), X))
    outputs, _ = jaxrnn.dynamic_rnn(bound, np.stack([X] * 3, 1), dtype=jnp.float32)
    assert outputs["pairs"].shape == (4, 3, 2, 2)
    params = {"w": np.ones((3, 2), np.float32)}
    unfilled = FunctionCell.like(product, X, H, params=params)
    assert_same(unfilled.bind(params)(X, H), want.bind(params)(X, H))


@pytest.mark.parametrize(
    ("step", "inputs", "state", "name"),
    [
        (lambda p, x, s, key=None: (x, jnp.concatenate([s, s], 1)), X, H, "new_state"),
        (lambda p, x, s, key=None: (x, (s,)), X, H, "new_state"),
        (keep, X, np.zeros((3, 2)), "state"),
        (keep, (X, X[:3]), H, "inputs[1]"),
        (lambda p, x, s, key=None: (x[0], s), X, H, "output"),
    ],
)
def test_a_step_that_no_driver_could_run_is_refused(step, inputs, state, name):
    with pytest.raises(ValueError, match=f"`{re.escape(name)}`"):
        FunctionCell.like(step, inputs, state)


# Subclasses. One that overrides a method in vain is refused when it is defined.

MESSAGE = r"^Mine defines `{}`, but `{}` of \w+ does not use it\. Derive the class from"


def override(cls, name, value=lambda self, *args, **kwargs: None):
    return type("Mine", (cls,), {name: value})


OVERRIDDEN = jaxrnn.LSTMCell, jaxrnn.MinGRUCell, MultiRNNCell, contrib.NASCell
OVERRIDDEN += contrib.HighwayWrapper, extend.BareMemoryCell


@pytest.mark.parametrize("cls", OVERRIDDEN, ids=lambda cls: cls.__name__)
def test_no_override_of_a_step_is_bypassed(cls):
    """A class that may override its step runs whole sequences in a scan."""
    for name in ("apply", "step"):
        if cls.choose_loop is not RNNCell.choose_loop:
            with pytest.raises(TypeError, match=MESSAGE.format(name, r"\w+")):
                override(cls, name)
        else:
            mine = override(cls, name)
            assert mine.choose_loop is RNNCell.choose_loop
            assert loops_of(mine) is None
    for name in ("call", "__call__"):
        if cls.apply is not RNNCell.apply:
            with pytest.raises(TypeError, match=MESSAGE.format(name, "apply")):
                override(cls, name)


class Doubled:
    """A mixin with another `apply`."""

    def apply(self, params, inputs, state, key=None):
        output, state = super(type(self), self).apply(params, inputs, state, key)
        return 2 * output, state


class Wrapper(contrib.InputProjectionWrapper):
    """Another step and loop of a wrapper."""

    apply = Doubled.apply

    def choose_loop(self, params, run):
        return extend.Choice.scan("the outputs are doubled")


class FromOnes(LSTMCell):
    """Another zero state, which the class declares."""

    starts_from_zeros = False

    def zero_state(self, batch_size, dtype):
        return jax.tree.map(jnp.ones_like, super().zero_state(batch_size, dtype))


def test_a_class_that_also_overrides_what_is_used():
    """Sequences are run with the steps of the class."""
    x = jnp.ones((2, 4, 3))
    inner = jaxrnn.GRUCell(2)
    cells = Wrapper(inner, 3), contrib.InputProjectionWrapper(inner, 3)
    params = drawn(cells[0], x[:, 0])
    run = lambda cell: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
    (mine, state), (outputs, want) = map(run, cells)
    assert_near((mine, state), (2 * outputs, want), tolerance=1e-12)
    cell = FromOnes(3)
    params = drawn(cell, x[:, 0])
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind(params), x)
    resets = jnp.ones((2, 4), bool)
    ones = cell.zero_state(2, x.dtype)
    got = run(resets=resets, dtype=x.dtype)
    assert_near(got, run(None, ones, resets=resets, reset_state=ones), tolerance=1e-12)


test_overrides_that_nothing_uses_are_refused = refusals([
    (TypeError, "`zero_state`", lambda: override(jaxrnn.GRUCell, "zero_state")),
    (TypeError, "`get_init", lambda: override(MultiRNNCell, "get_initial_state")),
])  # fmt: skip


# Matrix memories. The rule is Mamba-2's, with a chunk, and without one.


class Inputs(NamedTuple):
    q: Any
    k: Any
    v: Any
    g: Any


class Steps(extend.MatrixRule):
    """Mamba-2's rule, only for single steps."""

    Inputs = Inputs
    idle = Inputs(0.0, 0.0, 0.0, 0.0)

    def sizes(self, heads, key, value):
        sizes = [heads, key], [heads, key], [heads, value], [heads]
        return Inputs(*map(TensorShape, sizes)), TensorShape([heads, key, value])

    def step(self, values, state):
        q, k, v, g = values
        state = jnp.exp(g)[..., None, None] * state + k[..., None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state


def matrix(state):
    return state


class Chunks(Steps):
    """The same rule, also for chunks."""

    def chunk(self, chunk):
        q, k, v, g = chunk.values
        keep, pairs = jnp.exp(chunk.sums(g)), jnp.exp(chunk.sums_between(g))
        new = jnp.einsum("bnts,bnsv->bntv", chunk.scores(q, k, pairs), v)
        h = keep[..., None] * chunk.read(q, matrix) + new
        return h, chunk.memory(matrix, keep, pairs, k, v)


@fields.dataclass
class Memory(extend.BareMemoryCell):
    rule = Chunks()

    def scaled(self, values):
        return values._replace(g=jnp.clip(values.g, -87.0, 0.0))


@fields.dataclass
class Scanned(Memory):
    rule = Steps()


SIZES = 4, 3, 2  # The number of heads, and the sizes of keys and values.
ROWS, TIME, LENGTHS = 3, 11, np.array([11, 0, 6])
RESETS = np.random.default_rng(0).random((ROWS, TIME)) < 0.3


def inputs_of(cell):
    parts = [draw(ROWS, TIME, *size, seed=i) for i, size in enumerate(cell.input_sizes)]
    return Inputs(*parts[:3], -np.abs(parts[3]))


@pytest.mark.slow
def test_chunks_are_steps_and_those_of_jaxrnn():
    """All states and all gradients, with lengths, resets and shared keys.

    `test_against_numpy.py` compares the memory of jaxrnn with a loop.
    """
    shared = {"num_key_heads": 2, "chunk_size": 4}
    cells = [kind(*SIZES, **shared) for kind in (Memory, Scanned)]
    cells.append(jaxrnn.LinearAttentionMemoryCell(*SIZES, scale=1.0, **shared))
    options = {"resets": RESETS, "return_states": True}

    def results(cell):
        def run(inputs, state, start):
            inputs = cell.rule.Inputs(*inputs)
            start = {"initial_state": state, "reset_state": start}
            run = jaxrnn.dynamic_rnn
            return run(cell.bind({}), inputs, LENGTHS, **start, **options)

        inputs = tuple(inputs_of(cell))
        return differentiated(run, inputs, *draw(2, ROWS, *cell.state_size))

    *got, want = map(results, cells)
    for own in got:
        assert_near(own, want, tolerance=1e-12)


def rule_of(base=Chunks, **members):
    """A rule that overrides members of the base class."""
    return type("Mine", (base,), members)


def memory_of(rule):
    return type("Memory", (extend.BareMemoryCell,), {"rule": rule})(*SIZES)


class WithTransition(Chunks):
    def transition(self):
        return None


only_step = {"step": Steps.step, "sizes": Steps.sizes}
test_a_rule_is_refused_when_it_is_defined_or_first_used = refusals(
    [
        ("`step`, but `chunk`", lambda: rule_of(step=Steps.step)),
        (
            "`chunk`, but `transition`",
            lambda: rule_of(WithTransition, chunk=Chunks.chunk),
        ),
        ("`Mine.Inputs`", lambda: rule_of(extend.MatrixRule, **only_step)),
        ("`Mine.idle`", lambda: rule_of(idle=Steps.idle._replace(g=np.zeros(4)))),
        ("`Memory.rule`", lambda: memory_of(Chunks)),
        ("`Bare.rule`", lambda: type("Bare", (extend.BareMemoryCell,), {})(*SIZES)),
    ],
    columns="message call",
)


def run_memory(**members):
    """The types of the results of a memory with other members."""
    cell = type("Memory", (extend.BareMemoryCell,), {"rule": Chunks()} | members)
    cell, options = cell(*SIZES), {"dtype": float, "mask": RESETS}
    options["return_states"] = True
    run = functools.partial(jaxrnn.dynamic_rnn, cell.bind({}), **options)
    return jax.eval_shape(run, inputs_of(cell))


def run_scaled(change):
    return lambda: run_memory(scaled=lambda self, values: change(values))


def run_chunk(change):
    """A run of a memory whose chunk returns `change(h, states)`."""
    members = {"chunk": lambda self, chunk: change(*Chunks.chunk(self, chunk))}
    return lambda: run_memory(rule=rule_of(Chunks, **members)())


test_results_of_own_functions_have_the_shapes_of_steps = pytest.mark.loops(
    refusals([
        (ValueError, "`scaled.g`", run_scaled(lambda x: x._replace(g=x.g[0]))),
        (ValueError, "`h`", run_chunk(lambda h, s: (h.swapaxes(1, 2), s))),
        (ValueError, "`states`", run_chunk(lambda h, s: (h, s[:, :, -1:]))),
        (ValueError, "`chunk`", run_chunk(lambda h, s: h)),
    ])
)  # fmt: skip


# Inputs that a layer before the cell has multiplied (`project_inputs=False`).

# Per cell: the kernels of the cell that multiplies, and the columns that each adds.
ADDED = {
    "rnn": (jaxrnn.BasicRNNCell(4), {"kernel": slice(4)}),
    "basic_lstm": (jaxrnn.BasicLSTMCell(4), {"kernel": slice(16)}),
    "lstm": (LSTMCell(4, True, num_proj=3), {"kernel": slice(16)}),
    "gru": (
        jaxrnn.GRUCell(4),
        {"gates/kernel": slice(8), "candidate/kernel": slice(8, 12)},
    ),
    "cudnn_gru": (
        jaxrnn.CudnnCompatibleGRUCell(4),
        {
            "gates/kernel": slice(8),
            "candidate/input_projection/kernel": slice(8, 12),
        },
    ),
    "slstm": (jaxrnn.SLSTMCell(4, 2), {"kernel": slice(16)}),
}


def with_identities(params, kernels):
    """The parameters with the identity's columns before the rows of each kernel."""
    size = max(columns.stop for columns in kernels.values())
    params = jax.tree.map(lambda x: x, params)
    for path, columns in kernels.items():
        *keys, name = path.split("/")
        inner = functools.reduce(dict.__getitem__, keys, params)
        rows = np.eye(size)[:, columns]
        inner[name] = jnp.concatenate([rows, inner[name]]) if name in inner else rows
    return params


@pytest.mark.fast("gru", "slstm")
@pytest.mark.parametrize(("cell", "kernels"), ADDED.values(), ids=ADDED)
def test_inputs_are_added_as_an_identity_adds_them(cell, kernels):
    size = max(columns.stop for columns in kernels.values())
    rng = np.random.default_rng(0)
    x, resets = rng.normal(size=(3, 5, size)), rng.random((3, 5)) < 0.3
    adding = dataclasses.replace(cell, project_inputs=False)
    params = drawn(adding, x[:, 0])

    def loss(cell, params, x):
        results = jaxrnn.dynamic_rnn(
            cell.bind(params), x, [5, 3, 0], dtype=x.dtype, resets=resets
        )
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(results))

    @jax.jit
    def both(params, x):
        multiplied = lambda p, x: loss(cell, with_identities(p, kernels), x)
        losses = functools.partial(loss, adding), multiplied
        return [jax.value_and_grad(f, (0, 1))(params, x) for f in losses]

    assert_near(*both(params, x), tolerance=1e-12)


def ported(change):
    cell = jaxrnn.GRUCell(2, project_inputs=False)
    return lambda: change(cell.bind(cell.init(jax.random.key(0), np.ones((1, 6)))))


test_inputs_to_add_fit_the_kernels = refusals([
    (ValueError, "`inputs` must be .batch, 6. with `project_inputs=False`",
     ported(lambda cell: cell(X, jnp.zeros((4, 2))))),
    (ValueError, "kernel.*\n.*`project_inputs=False`",
     ported(lambda cell: cell.cell.bind(jaxrnn.GRUCell(2).init(jax.random.key(0), X))(
         np.ones((4, 6), np.float32), H))),
    (ValueError, "`cell.project_inputs`", ported(jaxrnn.convert.to_torch)),
    (ValueError, "`project_inputs`",
     lambda: lite.TFLiteLSTMCell(2, project_inputs=False)),
])  # fmt: skip


# What the loop of a user's cell returns is compared with the types of a scan.

SEQUENCES = np.ones((2, 5, 3))


class Changed(jaxrnn.GRUCell):
    """A GRU whose loop returns other results than a scan."""

    apply = jaxrnn.GRUCell.apply
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
    params = cell.init(jax.random.key(0), SEQUENCES[:, 0])
    return jaxrnn.dynamic_rnn(
        cell.bind(params), SEQUENCES, dtype=SEQUENCES.dtype, **options
    )


def states_of(change, **options):
    """Like `call`, where `change` gets the states of all steps."""

    def of_all(outputs, state):
        return (outputs[0], change(outputs[1])), state

    return call(of_all, return_states=True, **options)


def test_a_loop_that_returns_what_a_scan_returns():
    results = states_of(lambda states: states, sequence_length=[5, 2])
    outputs, state, states = jax.device_get(results)
    assert_near(outputs[1, :2], states[1, :2], tolerance=0)
    assert_near(states[1, -1], state[1], tolerance=0)


test_results_of_own_loops_have_the_types_of_a_scan = pytest.mark.loops(
    refusals([
        (TypeError, "`outputs`", lambda: call(lambda y, s: (y.astype(jnp.int8), s))),
        (ValueError, "`outputs`", lambda: call(lambda y, s: (y[..., :1], s))),
        (ValueError, "`state`", lambda: call(lambda y, s: (y, s[:1]))),
        (ValueError, "`loop`", lambda: call(lambda y, s: y)),
        (ValueError, r"`outputs\[1\]`", lambda: states_of(lambda s: s[:, -1])),
    ])
)  # fmt: skip
