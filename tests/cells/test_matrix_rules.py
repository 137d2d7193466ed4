"""A rule of one's own for a matrix memory: a step, and a chunk of steps at once."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, draw, scanned
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import TensorShape
from jaxrnn._cells import fields
from jaxrnn._cells.matrix.bare_memory import BareMemoryCell
from jaxrnn._cells.matrix.rule import MatrixRule

BATCH, TIME = 3, 11


class DecayInputs(NamedTuple):
    """What a step reads and writes."""

    q: Any
    k: Any
    v: Any
    g: Any


@dataclasses.dataclass(frozen=True)
class DecayRule(MatrixRule):
    """A linear attention whose memory decays, as in Mamba-2."""

    Inputs = DecayInputs
    idle = DecayInputs(0.0, 0.0, 0.0, 0.0)

    def sizes(self, heads, key, value):
        values = [heads, key], [heads, key], [heads, value], [heads]
        return DecayInputs(*map(TensorShape, values)), TensorShape([heads, key, value])

    def step(self, values, state):
        q, k, v, g = values
        state = jnp.exp(g)[..., None, None] * state + k[..., None] * v[..., None, :]
        return jnp.einsum("bnk,bnkv->bnv", q, state), state

    def chunk(self, chunk):
        q, k, v, g = chunk.values
        log_keep = chunk.sums(g)
        keep, pairs = jnp.exp(log_keep), chunk.pairs(log_keep, -log_keep)
        matrix = lambda state: state
        h = jnp.einsum("bnts,bnsv->bntv", chunk.scores(q, k, pairs), v)
        h = keep[..., None] * chunk.read(q, matrix) + h
        return h, chunk.memory(matrix, keep, pairs, k, v)


@fields.dataclass
class DecayMemoryCell(BareMemoryCell):
    """The rule without projections."""

    rule = DecayRule()
    scaled = lambda self, values: values


CELL = DecayMemoryCell(4, 3, 2, num_key_heads=2, chunk_size=4)
X = {
    name: draw(BATCH, TIME, *size) for name, size in CELL.input_sizes._asdict().items()
}
X = DecayInputs(**X)._replace(g=-np.abs(X["g"]))
STATE = draw(BATCH, *CELL.state_size)
RESETS = np.arange(TIME) % 5 == np.arange(BATCH)[:, None]


def test_the_chunks_of_a_rule_are_its_steps():
    def run(cell):
        def of(x, state):
            return jaxrnn.dynamic_rnn(
                cell.bind({}),
                x,
                [TIME, 0, 7],
                state,
                resets=RESETS,
                reset_state=2 * state,
                return_states=True,
            )

        return differentiated(of, X, STATE)

    assert jaxrnn.explain(CELL.bind({}), X, dtype=X.q.dtype).loop == "chunks"
    assert_near(run(CELL), run(scanned(CELL)), tolerance=1e-12)


def test_time_is_not_divided_without_a_transition():
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Explicit,))
    place = NamedSharding(mesh, P(None, "time"))
    x = jax.tree.map(lambda x: jax.device_put(x[:, :8], place), X)
    with pytest.raises(ValueError, match="got DecayMemoryCell"):
        jaxrnn.dynamic_rnn(CELL.bind({}), x, dtype=X.q.dtype)
