"""A matrix memory of a user, from the parts that `jaxrnn.extend` offers.

The rule is Mamba-2's, with a chunk, and without one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, draw

import jaxrnn
from jaxrnn import TensorShape, extend
from jaxrnn.extend import fields
from jaxrnn.testing import _laws as laws, check_cell

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
        total = chunk.sums(g)
        keep, pairs = jnp.exp(total), chunk.pairs(total, -total)
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


def run(cell, inputs, **options):
    options = {"resets": RESETS, "dtype": float} | options
    return jaxrnn.dynamic_rnn(cell.bind({}), inputs, LENGTHS, **options)


@pytest.mark.parametrize("kind", [Memory, Scanned])
def test_a_memory_is_the_loop_of_its_equation(kind):
    """With lengths and resets, and keys that two heads share."""
    cell = kind(*SIZES, num_key_heads=2, chunk_size=4)
    inputs = inputs_of(cell)
    got, last = run(cell, inputs)
    want, want_last = np.zeros(got.shape), np.zeros(last.shape)
    for row, head in np.ndindex(ROWS, SIZES[0]):
        s = want_last[row, head]
        for t in range(LENGTHS[row]):
            q, k = (x[row, t, head // 2] for x in inputs[:2])
            v, g = (x[row, t, head] for x in inputs[2:])
            s[:] = (0 if RESETS[row, t] else np.exp(g) * s) + np.outer(k, v)
            want[row, t, head] = q @ s
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(last, want_last, atol=1e-12)


def test_a_chunk_has_the_states_and_gradients_of_steps():
    cells = [kind(*SIZES, chunk_size=4) for kind in (Memory, Scanned)]
    results = [
        differentiated(lambda x, cell=cell: run(cell, x, return_states=True), x)
        for cell, x in ((cell, inputs_of(cell)) for cell in cells)
    ]
    assert_near(*results, tolerance=1e-12)


@pytest.mark.parametrize(
    ("kind", "loop", "reason"),
    [(Memory, "chunks", ""), (Scanned, "scan", "Steps has no `chunk`")],
)
def test_explain_says_whether_a_rule_has_a_chunk(kind, loop, reason, capsys):
    cell = kind(*SIZES)
    found = jaxrnn.explain(cell.bind({}), inputs_of(cell), dtype=float)
    assert (found.loop, found.reason) == (loop, reason)
    assert (
        f"loop: {loop}{', because ' * bool(reason)}{reason}" in capsys.readouterr().out
    )


def test_a_wrong_chunk_is_told_from_its_step():
    message = (
        r"breaks `starts_again_at_resets`\. .*\. "
        r"Drivers run `SumsOverResets\.chunk`; the loop runs `SumsOverResets\.step`\.\n"
    )
    setup = laws.make_setup(Wrong(*SIZES), ONE_STEP)
    laws.runs_as_a_loop(setup)
    with pytest.raises(AssertionError, match=message):
        laws._check_law(laws.starts_again_at_resets, setup)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Memory, Scanned])
def test_the_laws_of_a_memory(kind):
    check_cell(kind(*SIZES, chunk_size=2), ONE_STEP)
