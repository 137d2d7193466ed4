"""A matrix memory of a user, from the parts that `jaxrnn.extend` offers.

The rule is Mamba-2's, with a chunk, and without one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, draw, refusals
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import TensorShape, extend
from jaxrnn.extend import fields

matrix = lambda state: state


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


class Chunks(Steps):
    """The same rule, also for chunks."""

    def chunk(self, chunk):
        q, k, v, g = chunk.values
        keep, pairs = jnp.exp(chunk.sums(g)), jnp.exp(chunk.sums_between(g))
        new = jnp.einsum("bnts,bnsv->bntv", chunk.scores(q, k, pairs), v)
        h = keep[..., None] * chunk.read(q, matrix) + new
        return h, chunk.memory(matrix, keep, pairs, k, v)


class SumsOverResets(Chunks):
    """A chunk that is right without resets."""

    def chunk(self, chunk):
        q, k, v, g = chunk.values
        scores = jnp.einsum("bntk,bnsk->bnts", q, k)
        total = jnp.cumsum(g, axis=-1)
        pairs = jnp.exp(total[..., :, None] - total[..., None, :])
        h = jnp.einsum("bnts,bnsv->bntv", jnp.tril(scores * pairs), v)
        keep = jnp.exp(total)
        h += keep[..., None] * chunk.read(q, matrix)
        return h, chunk.memory(matrix, keep, jnp.tril(pairs), k, v)


@fields.dataclass
class Memory(extend.BareMemoryCell):
    rule = Chunks()

    def scaled(self, values):
        return values._replace(g=jnp.clip(values.g, -87.0, 0.0))


@fields.dataclass
class Scanned(Memory):
    rule = Steps()


@fields.dataclass
class Wrong(Memory):
    rule = SumsOverResets()


SIZES = 4, 3, 2  # The number of heads, and the sizes of keys and values.
ROWS, TIME, LENGTHS = 3, 11, np.array([11, 0, 6])
RESETS = np.random.default_rng(0).random((ROWS, TIME)) < 0.3
ONE_STEP = jax.tree.map(
    lambda size: jax.ShapeDtypeStruct((4, *size), jnp.float32),
    Memory(*SIZES).input_sizes,
)


def inputs_of(cell):
    drawn = [draw(ROWS, TIME, *size, seed=i) for i, size in enumerate(cell.input_sizes)]
    return Inputs(*drawn[:3], -np.abs(drawn[3]))


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


LOOPS = [(Memory, "chunks", ""), (Scanned, "scan", "Steps has no `chunk`")]


@pytest.mark.loops
@pytest.mark.parametrize(("kind", "loop", "reason"), LOOPS)
def test_explain_says_whether_a_rule_has_a_chunk(kind, loop, reason):
    cell = kind(*SIZES)
    found = jaxrnn.explain(cell.bind({}), inputs_of(cell), dtype=float)
    assert (found.loop, found.reason) == (loop, reason)
    because = f", because {reason}" if reason else ""
    assert f"loop: {loop}{because}\n" in repr(found)


def test_time_is_not_divided_without_a_transition():
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Explicit,))
    place = NamedSharding(mesh, P(None, "time"))
    cell = Memory(*SIZES)
    inputs = jax.tree.map(lambda x: jax.device_put(x[:, :8], place), inputs_of(cell))
    with pytest.raises(ValueError, match="got Memory"):
        jaxrnn.dynamic_rnn(cell.bind({}), inputs, dtype=float)


@pytest.mark.loops
def test_a_wrong_chunk_is_told_from_its_step():
    message = (
        r"breaks `starts_again_at_resets`\. .*\. "
        r"Drivers run `SumsOverResets\.chunk`; the loop runs `SumsOverResets\.step`\.\n"
    )
    with pytest.raises(AssertionError, match=message):
        jaxrnn.testing.check_cell(Wrong(*SIZES), ONE_STEP)


def rule_of(base=Chunks, **members):
    """A rule that overrides members of the base class."""
    return type("Mine", (base,), members)


def memory_of(rule):
    return type("Memory", (extend.BareMemoryCell,), {"rule": rule})(*SIZES)


class OtherStep:
    step = Steps.step


class KeyFirst(NamedTuple):
    k: Any
    q: Any


class WithTransition(Chunks):
    def transition(self):
        return None


only_step = {"step": Steps.step, "sizes": Steps.sizes}
of_keys = KeyFirst(0.0, 0.0)
as_lists = lambda self, heads, key, value: (Inputs(*[[heads]] * 4), [heads, key, value])
one_size = lambda self, heads, key, value: TensorShape([heads, key, value])
REFUSALS = [
    ("`step`, but `chunk`", lambda: rule_of(step=Steps.step)),
    ("`step`, but `chunk`", lambda: type("Mine", (OtherStep, Chunks), {})),
    ("`chunk`, but `transition`", lambda: rule_of(WithTransition, chunk=Chunks.chunk)),
    ("`Mine.Inputs`", lambda: rule_of(extend.MatrixRule, **only_step)),
    ("`Mine.Inputs`", lambda: rule_of(Steps, Inputs=tuple)),
    ("`Mine.idle`", lambda: rule_of(extend.MatrixRule, Inputs=Inputs, **only_step)),
    ("`Mine.idle`", lambda: rule_of(Steps, idle=(0.0,) * 4)),
    ("`Mine.idle`", lambda: rule_of(idle=Steps.idle._replace(g=None))),
    ("`Mine.idle`", lambda: rule_of(idle=Steps.idle._replace(g=np.zeros(4)))),
    ("`Memory.rule`", lambda: memory_of(Chunks)),
    ("`Bare.rule`", lambda: type("Bare", (extend.BareMemoryCell,), {})(*SIZES)),
    (
        "`Mine.Inputs`",
        lambda: memory_of(rule_of(Steps, Inputs=KeyFirst, idle=of_keys)()),
    ),
    ("`Mine.sizes`", lambda: memory_of(rule_of(sizes=as_lists)()).input_sizes),
    ("`Mine.sizes`", lambda: memory_of(rule_of(sizes=one_size)()).state_size),
]
test_a_rule_is_refused_when_it_is_defined_or_first_used = refusals(
    REFUSALS, columns="message call"
)


def test_a_rule_may_override_all_that_belongs_together():
    members = {
        "step": Steps.step,
        "chunk": Chunks.chunk,
        "transition": lambda self: None,
    }
    assert memory_of(rule_of(WithTransition, **members)()).state_size == (4, 3, 2)


def run_chunk(change, **options):
    """A run of a memory whose chunk returns `change(h, states)`."""

    def chunk(self, chunk):
        return change(*Chunks.chunk(self, chunk))

    cell = memory_of(rule_of(Chunks, chunk=chunk)())
    options = {"return_states": True} | options
    return jaxrnn.dynamic_rnn(cell.bind({}), inputs_of(cell), dtype=float, **options)


def run_scaled(change):
    members = {"rule": Chunks(), "scaled": lambda self, values: change(values)}
    cell = type("Memory", (extend.BareMemoryCell,), members)(*SIZES)
    return jaxrnn.dynamic_rnn(cell.bind({}), inputs_of(cell), dtype=float)


short = lambda values: values._replace(q=values.q[..., :1])
one_row = lambda values: values._replace(g=values.g[0])
test_scaled_keeps_the_shapes_of_values = refusals([
    (ValueError, "`scaled`", lambda: run_scaled(lambda values: None)),
    (ValueError, "`scaled.q`", lambda: run_scaled(short)),
    (ValueError, "`scaled.g`", lambda: run_scaled(one_row)),
])  # fmt: skip


results_of_a_chunk = refusals(
    [
        (ValueError, "`h`", lambda: run_chunk(lambda h, s: (h[:, 0], s))),
        (ValueError, "`h`", lambda: run_chunk(lambda h, s: (h.swapaxes(1, 2), s))),
        (TypeError, "`h`", lambda: run_chunk(lambda h, s: (h > 0, s))),
        (ValueError, "`states`", lambda: run_chunk(lambda h, s: (h, s[:, 0]))),
        (ValueError, "`states`", lambda: run_chunk(lambda h, s: (h, s[:, :, -1:]))),
        (ValueError, "`states`", lambda: run_chunk(lambda h, s: (h, (s, s)))),
        (
            ValueError,
            "`states`",
            lambda: run_chunk(lambda h, s: (h, s[..., :1]), mask=RESETS),
        ),
        (ValueError, "`chunk`", lambda: run_chunk(lambda h, s: h)),
    ]
)
test_results_of_a_chunk_are_those_of_steps = pytest.mark.loops(results_of_a_chunk)
