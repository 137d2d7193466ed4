"""Cells against loops in NumPy: to test a cell, add a row with a step to `CELLS`.

A step maps the parameters, one step of inputs and the state, with the rows as first
axis, to the output and the new state.
"""

import functools

import jax
import numpy as np
import pytest
from helpers import draw, drawn, drawn_like

import jaxrnn
from jaxrnn import ComplexState, MLSTMState

ROWS, TIME, DEPTH, UNITS = 3, 11, 3, 6
HEADS, KEY = 2, 3  # The memories have twice as many heads as the keys.
LENGTHS = np.array([TIME, 0, 6])
RESETS = np.arange(TIME) % 4 == np.arange(ROWS)[:, None]
X = draw(ROWS, TIME, DEPTH)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def blocks(params, x, *sizes):
    z = x @ params["kernel"] + params["bias"]
    return np.split(z, np.cumsum(sizes[:-1]), axis=-1)


def standardized(x, epsilon):
    variance = x.var(axis=-1, keepdims=True)
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + epsilon)


def layer_norm_gru(groups):
    """The operations of DreamerV2's `GRUCell` in its order."""

    def step(params, x, h):
        z = np.concatenate([x, h], axis=-1) @ params["kernel"]
        z = standardized(z.reshape(ROWS, groups, -1), 1e-3).reshape(ROWS, -1)
        z = z * params["norm"]["gamma"] + params["norm"]["beta"]
        r, c, u = np.split(z, 3, axis=-1)
        u = sigmoid(u - 1)
        h = u * np.tanh(sigmoid(r) * c) + (1 - u) * h
        return h, h

    return step


def lru(params, x, state):
    factor = np.exp(-np.exp(params["nu_log"]) + 1j * np.exp(params["theta_log"]))
    b = (params["B_re"] + 1j * params["B_im"]) * np.exp(params["gamma_log"])[:, None]
    c = params["C_re"] + 1j * params["C_im"]
    state = factor * (state.real + 1j * state.imag) + x @ b.T
    output = (state @ c.T).real + params["D"] * x
    return output, ComplexState(state.real, state.imag)


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(params, x, h):
    z, c = blocks(params, x, UNITS, UNITS)
    h = sigmoid(-z) * h + sigmoid(z) * positive(c)
    return h, h


def min_lstm(params, x, h):
    f, i, c = blocks(params, x, UNITS, UNITS, UNITS)
    f, i = sigmoid(f), sigmoid(i)
    h = (f * h + i * positive(c)) / (f + i)
    return h, h


def qrnn(pooling):
    """Section 2 of the paper."""

    def step(params, x, c):
        z, f, *more = blocks(params, x, *[UNITS] * (len(pooling) + 1))
        f = sigmoid(f)
        i = sigmoid(more[1]) if pooling == "ifo" else 1 - f
        c = f * c + i * np.tanh(z)
        return c if pooling == "f" else sigmoid(more[0]) * c, c

    return step


def outer(x, y):
    return x[..., :, None] * y[..., None, :]


def s6(params, inputs, state):
    x, dt, b, c = inputs
    keep = np.exp(-dt[..., None] * np.exp(params["A_log"]))
    state = keep * state + outer(dt * x, b)
    return np.einsum("rus,rs->ru", state, c) + params["D"] * x, state


def read(q, memory):
    return np.einsum("bnk,bnkv->bnv", q, memory)


def decayed(memory, g):
    return np.exp(g).reshape(*g.shape[:2], -1, 1) * memory


def attention(memory, k, v, g):
    return decayed(memory, g) + outer(k, v)


def delta(memory, k, v, g, beta):
    memory = decayed(memory, g)
    return memory + beta[..., None, None] * outer(k, v - read(k, memory))


def dplr(memory, k, v, a, b, g):
    return decayed(memory, g) + outer(b, read(a, memory)) + outer(k, v)


def rwkv6(memory, q, k, v, g, bonus):
    """Reads before it writes."""
    return read(q, memory + outer(bonus * k, v)), attention(memory, k, v, g)


def mlstm(state, q, k, v, i, f):
    """The equations with the scale m, and with the package's 1e-6."""
    log_f = -np.logaddexp(0, -f)
    m = np.maximum(log_f + state.m, i)
    keep, write = np.exp(log_f + state.m - m), np.exp(i - m)[..., None]
    c = keep[..., None, None] * state.c + outer(write * k, v)
    n = keep[..., None] * state.n + write * k
    divisor = np.maximum(np.abs(np.sum(q * n, axis=-1)), np.exp(-m)) + 1e-6
    return read(q, c) / divisor[..., None], MLSTMState(c, n, m)


def bare(update, scale=KEY**-0.5):
    """The step of a memory without projections, of which two heads share a key."""

    def step(params, inputs, state):
        q, k, *others = inputs
        q, k = np.repeat(q, 2, axis=1), np.repeat(k, 2, axis=1)
        if update is mlstm:
            return mlstm(state, q, scale * k, *others)
        if update is rwkv6:
            return rwkv6(state, scale * q, k, *others, **params)
        state = update(state, k, *others)
        return scale * read(q, state), state

    return step


def xlstm(params, x, state):
    """Gates with a soft cap, and a norm before the output gate."""
    keys = HEADS * KEY
    *heads, o, i, f = blocks(params, x, keys, keys, UNITS, UNITS, HEADS, HEADS)
    q, k, v = (y.reshape(ROWS, HEADS, -1) for y in heads)
    i, f = (1.5 * np.tanh(gate / 1.5) for gate in (i, f))
    h, state = mlstm(state, q, k / np.sqrt(KEY), v, i, f)
    h = standardized(h, 1e-2).reshape(ROWS, -1) * params["norm_scale"]
    return sigmoid(o) * h, state


def memory(make, update, scale=None, **options):
    """A row: a memory with few steps in a chunk, its step, and its inputs."""
    cell = make(2 * HEADS, KEY, 2, HEADS, chunk_size=4, scale=scale, **options)
    sizes = cell.input_sizes
    drawn = [draw(ROWS, TIME, *size, seed=i) for i, size in enumerate(sizes)]
    inputs = type(sizes)(*drawn)
    if "g" in sizes._fields:  # Decays from almost 1 to 0.
        g = -np.exp(np.clip(3 * inputs.g, -6, 4))
        inputs = inputs._replace(g=np.where(g < -40, -np.inf, g))
    if "beta" in sizes._fields:  # Up to 2, so that a step may change a sign.
        inputs = inputs._replace(beta=2 * sigmoid(inputs.beta))
    if "f" in sizes._fields:  # Some gates are shut, and some open.
        i = np.where(inputs.i > 1.5, -np.inf, inputs.i)
        f = np.where(inputs.f > 1, np.inf, np.where(i < -1, -np.inf, inputs.f))
        inputs = inputs._replace(i=i, f=np.where(i == -np.inf, inputs.f, f))
    return cell, bare(update, scale or KEY**-0.5), inputs


SIZES = UNITS, UNITS, KEY, KEY
S6 = jaxrnn.S6Inputs(*(draw(ROWS, TIME, n, seed=i) for i, n in enumerate(SIZES)))
LINEAR, DELTA = jaxrnn.LinearAttentionMemoryCell, jaxrnn.DeltaMemoryCell
OPTIONS = {"gate_soft_cap": 1.5, "norm_epsilon": 1e-2, "chunk_size": 4}
CELLS = {
    "layer_norm_gru": (jaxrnn.LayerNormGRUCell(UNITS), layer_norm_gru(1)),
    "per_gate": (jaxrnn.LayerNormGRUCell(UNITS, norm_per_gate=True), layer_norm_gru(3)),
    "lru": (jaxrnn.LRUCell(DEPTH, 4), lru),
    "s6": (jaxrnn.S6MemoryCell(UNITS, KEY), s6, S6._replace(dt=np.exp(S6.dt))),
    "min_gru": (jaxrnn.MinGRUCell(UNITS), min_gru),
    "min_lstm": (jaxrnn.MinLSTMCell(UNITS), min_lstm),
    "qrnn_f": (jaxrnn.QRNNCell(UNITS, "f"), qrnn("f")),
    "qrnn_ifo": (jaxrnn.QRNNCell(UNITS, "ifo"), qrnn("ifo")),
    "xlstm": (jaxrnn.MLSTMCell(UNITS, HEADS, key_size=KEY, **OPTIONS), xlstm),
    "linear_key_decay": memory(LINEAR, attention, scale=3.0, key_decay=True),
    "delta": memory(DELTA, delta),
    "dplr": memory(jaxrnn.DPLRMemoryCell, dplr, scale=3.0),
    "rwkv6": memory(jaxrnn.RWKV6MemoryCell, rwkv6, scale=3.0),
    "mlstm": memory(jaxrnn.MLSTMMemoryCell, mlstm, scale=3.0),
}


def by_loop(step, params, xs, state, start):
    """The outputs and the final state; `start` is the state at resets."""
    outputs = []
    select = lambda where, x, y: np.where(where.reshape(-1, *[1] * (x.ndim - 1)), x, y)
    for t in range(TIME):
        at = functools.partial(select, RESETS[:, t])
        x = jax.tree.map(lambda x, t=t: x[:, t], xs)
        output, after = step(params, x, jax.tree.map(at, start, state))
        alive = functools.partial(select, t < LENGTHS)
        state = jax.tree.map(alive, after, state)
        outputs.append(alive(output, 0))
    return np.stack(outputs, axis=1), state


@pytest.mark.fast("[!m]*", "min_*")
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_the_loop_of_its_step(name):
    """With lengths, and with resets to a state."""
    cell, step, *inputs = CELLS[name]
    (xs,) = inputs or [X]
    params = drawn(cell, jax.tree.map(lambda x: x[:, 0], xs))
    state, start = (drawn_like(cell.zero_state(ROWS, float), seed) for seed in (1, 2))
    options = {"resets": RESETS, "reset_state": start}
    got = jaxrnn.dynamic_rnn(cell.bind(params), xs, LENGTHS, state, **options)
    want = by_loop(step, *jax.device_get((params, xs, state, start)))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(near, got, want)
