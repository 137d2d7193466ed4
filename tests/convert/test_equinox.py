"""Weights of Equinox's cells give the cells that Equinox runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_checks import (
    DEPTH,
    hold_to,
    one_way,
    random_like,
    same_cell,
)
from helpers import assert_same, usual_promotion

from jaxrnn.convert import equinox

eqx = pytest.importorskip("equinox")
KEY = jax.random.key(0)


def make(kind, depth, units, bias=True):
    """A cell with random weights."""
    cell = getattr(eqx.nn, kind)(depth, units, bias, dtype=np.float64, key=KEY)
    return random_like(cell)  # Of a module only the arrays are leaves.


CASES = {
    "lstm": [("LSTMCell", DEPTH, 4)],
    "gru": [("GRUCell", DEPTH, 4)],
    "lstm_no_bias": [("LSTMCell", DEPTH, 4, False)],
    "gru_no_bias": [("GRUCell", DEPTH, 4, False)],
    "stack": [("GRUCell", DEPTH, 2), ("LSTMCell", 2, 4)],
}
RUN = ("lstm", "gru_no_bias", "stack")  # All kinds are in these.


@pytest.fixture(scope="module")
def modules():
    with usual_promotion():
        return {case: [make(*kind) for kind in kinds] for case, kinds in CASES.items()}


def run_one(cell, row):
    """A cell over one sequence, `[time, depth]`: its outputs and final state."""
    is_lstm = isinstance(cell, eqx.nn.LSTMCell)
    zeros = jnp.zeros(cell.hidden_size, row.dtype)

    def step(state, x):
        state = cell(x, state)
        return state, state[0] if is_lstm else state

    final, outputs = jax.lax.scan(step, (zeros, zeros) if is_lstm else zeros, row)
    return outputs, (final[::-1] if is_lstm else final)  # (h, c) there.


def arrays_of(cell):
    names = ("weight_ih", "weight_hh", "bias", "bias_n")
    found = {name: getattr(cell, name, None) for name in names}
    return {k: np.asarray(v) for k, v in found.items() if v is not None}


def put(cell, arrays):
    """As the docstring of `save` describes it."""
    names = list(arrays)
    get = lambda cell: [getattr(cell, name) for name in names]
    return eqx.tree_at(get, cell, [jnp.asarray(arrays[name]) for name in names])


@pytest.mark.fast("lstm")
@pytest.mark.parametrize("case", RUN)
def test_same_as_equinox(case, modules):
    cells = modules[case]

    def theirs(arrays, x):
        states = []
        for cell, own in zip(cells, arrays, strict=True):
            x, state = jax.vmap(functools.partial(run_one, put(cell, own)))(x)
            states.append(state)
        return x, states

    hold_to(theirs, one_way, list(map(arrays_of, cells)), equinox.load)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_are_the_same_bits(case, modules):
    saved = equinox.save(equinox.load(*modules[case]))
    for module, got in zip(
        modules[case], saved if case == "stack" else [saved], strict=True
    ):
        wanted = arrays_of(module)
        assert_same({k: v for k, v in got.items() if k in wanted}, wanted)
        for name in got.keys() - wanted.keys():  # There it has no bias; here a zero.
            assert not got[name].any()
        same_cell(equinox.load(got), equinox.load(module))
