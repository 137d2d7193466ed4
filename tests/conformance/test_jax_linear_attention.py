"""Matrix memories against the ops of the package `jax-linear-attention`, in float64.

For each kind of memory, `jla.ops` has a reference, which runs step by step, and an op
that computes chunks of steps. Both are plain JAX; the package's kernels need a GPU.
"""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, largest_error, usual_promotion

import jaxrnn

pytestmark = pytest.mark.slow
ops = pytest.importorskip("jla.ops")
HEADS, KEY, VALUE = 2, 8, 6
SIZES = {"num_heads": HEADS, "key_size": KEY, "value_size": VALUE, "scale": 0.4}
LINEAR, DELTA = jaxrnn.LinearAttentionMemoryCell, jaxrnn.DeltaMemoryCell
DPLR, MLSTM = jaxrnn.DPLRMemoryCell, jaxrnn.MLSTMMemoryCell
# How a gate is drawn, and its size in each head.
DECAY, DECAYS, RATE, RATES = ("decay",), ("decay", KEY), ("rate",), ("rate", KEY)
UNIT, WRITES, GATE = ("unit", KEY), ("rate", VALUE), ("normal",)
# Our cell, the gates of `jla`, and our inputs for q, k, v and these gates.
KINDS = {
    "simple_gla": (LINEAR(**SIZES), {"g": DECAY}, jaxrnn.LinearAttentionInputs),
    "gla": (
        LINEAR(**SIZES, key_decay=True),
        {"g": DECAYS},
        jaxrnn.LinearAttentionInputs,
    ),
    "deltanet": (
        DELTA(**SIZES),
        {"beta": RATE},
        lambda q, k, v, beta: (q, k, v, jnp.zeros_like(beta), beta),
    ),
    "gated_deltanet": (DELTA(**SIZES), {"g": DECAY, "beta": RATE}, jaxrnn.DeltaInputs),
    "kda": (
        DELTA(**SIZES, key_decay=True),
        {"g": DECAYS, "beta": RATE},
        jaxrnn.DeltaInputs,
    ),
    # Gated DeltaNet-2, where b says what a step erases, and w what it writes.
    "gdn2": (
        DPLR(**SIZES),
        {"g": DECAYS, "b": RATES, "w": WRITES},
        lambda q, k, v, g, b, w: (q, k, w * v, -b * k * jnp.exp(g), k, g),
    ),
    "rwkv7": (
        DPLR(**SIZES),
        {"w": DECAYS, "a": UNIT, "b": UNIT},
        lambda q, k, v, w, a, b: (q, k, v, a, b, w),
    ),
    # g is the logarithm of sigmoid(f). We scale k, and `jla` scales q.
    "mlstm": (
        MLSTM(**SIZES | {"scale": 1.0}),
        {"g": DECAY, "i": GATE},
        lambda q, k, v, g, i: (q, k, v, i, g - jnp.log(-jnp.expm1(g))),
    ),
}
# Documents for four rows, of which the last stays unused. Without the first steps, rows
# start in a document, and a document of one step starts at the edge of a chunk.
LENGTHS, ROWS, CUT = [75, 37, 30, 1, 17, 33], 4, 5
EMPTY = -1e30  # The m of an empty mLSTM in `jla`.


def arrays_of(kind):
    """Inputs of the documents, by the names of `jla`, and a state for each row."""
    rng = np.random.default_rng(list(KINDS).index(kind))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    draws = {
        "normal": lambda shape: rng.normal(size=shape),
        "rate": lambda shape: rng.random(shape),
        "decay": lambda shape: -np.exp(rng.uniform(-6, 4, shape)),
        "unit": lambda shape: unit(rng.normal(size=shape)),
    }
    cell, gates, _ = KINDS[kind]
    arrays = {"q": ("normal", KEY), "k": UNIT, "v": ("normal", VALUE), **gates}
    inputs = {
        name: draws[how]((len(LENGTHS), max(LENGTHS), HEADS, *size))
        for name, (how, *size) in arrays.items()
    }
    draw = lambda size: rng.normal(size=(ROWS, *size))
    return inputs, jax.tree.map(draw, cell.state_size)


def padded(inputs, used, value, **values):
    """`inputs` with `value`, or the value of a name, at steps that are not `used`."""
    return {
        name: jnp.where(
            np.expand_dims(used, tuple(range(2, x.ndim))), x, values.get(name, value)
        )
        for name, x in inputs.items()
    }


def of_jla(kind, implementation, inputs, state, segment_ids=None):
    """Outputs and the last state."""
    return ops.linear_attention(
        kind,
        **inputs,
        impl=implementation,
        scale=KINDS[kind][0].scale,
        chunk_size=32,
        initial_state=state,
        output_final_state=True,
        segment_ids=segment_ids,
    )


def of_ours(kind, inputs, state, **options):
    cell, _, our_inputs = KINDS[kind]
    values = our_inputs(**inputs)
    return jaxrnn.dynamic_rnn(cell.bind({}), values, initial_state=state, **options)


def error_of(ours, theirs, inputs, state):
    """The largest error of results, and of the gradients of their weighted sum."""
    got = differentiated(ours, inputs, state)
    # The ops compute in float32, whatever they are given.
    with usual_promotion(), mock.patch.object(jnp, "float32", jnp.float64):
        want = differentiated(theirs, inputs, state)
    return largest_error(zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True))


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_equal_jla(kind, implementation, record_property):
    inputs, state = arrays_of(kind)
    inputs = {name: x[:ROWS] for name, x in inputs.items()}
    error = error_of(
        lambda inputs, state: of_ours(kind, inputs, state),
        lambda inputs, state: of_jla(kind, implementation, inputs, state),
        inputs,
        state,
    )
    record_property("error", error)
    assert error < 1e-11


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_selective_scans_equal_jla(implementation, is_packed, record_property):
    """The layouts of states and of A are the same."""
    cell, rng = jaxrnn.S6MemoryCell(6, 4), np.random.default_rng(0)
    draw = lambda *size: rng.normal(size=(ROWS, 70, *size))
    inputs = jaxrnn.S6Inputs(draw(6), np.exp(draw(6) - 2), draw(4), draw(4))
    params = {"A_log": rng.normal(size=(6, 4)), "D": rng.normal(size=6)}
    resets = rng.random((ROWS, 70)) < 0.1 * is_packed
    resets[:, 0] = False
    ids = np.cumsum(resets, axis=1, dtype=np.int32)

    def ours(given, state):
        run = cell.bind(given["params"]), given["inputs"]
        options = {"resets": resets} if is_packed else {}
        return jaxrnn.dynamic_rnn(*run, initial_state=state, **options)

    def theirs(given, state):
        (x, dt, b, c), params = given["inputs"], given["params"]
        outputs, state = ops.linear_attention(
            "mamba1",
            c,
            b,
            x,
            dt=dt,
            a=-jnp.exp(params["A_log"]),
            impl=implementation,
            dt_softplus=False,
            initial_state=state,
            output_final_state=True,
            segment_ids=ids if is_packed else None,
        )
        return outputs + params["D"] * x, state

    given = {"inputs": inputs, "params": params}
    error = error_of(ours, theirs, given, rng.normal(size=(ROWS, 6, 4)))
    record_property("error", error)
    assert error < 1e-11


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@pytest.mark.parametrize("kind", KINDS)
def test_documents_equal_jla(kind, implementation, record_property):
    """Lengths and resets, with NaN in the padding, against segment ids."""
    inputs, state = arrays_of(kind)
    packed = jaxrnn.pack_sequences(inputs, LENGTHS, rows=ROWS)
    packed = jax.tree.map(lambda x: x[:, CUT:], packed)
    used = packed.segment_ids > 0
    reset_state = jax.tree.map(np.zeros_like, state)
    if kind == "mlstm":
        reset_state = reset_state._replace(m=reset_state.m + EMPTY)

    def ours(inputs, state):
        return of_ours(
            kind,
            padded(inputs, used, jnp.nan),
            state,
            sequence_length=packed.lengths,
            resets=packed.resets,
            reset_state=reset_state,
        )

    def theirs(inputs, state):
        # The padding belongs to the last document, and leaves its state as it is.
        inputs = padded(inputs, used, 0.0, i=EMPTY)
        segment_ids = np.maximum.accumulate(packed.segment_ids, axis=1)
        return of_jla(kind, implementation, inputs, state, segment_ids)

    error = error_of(ours, theirs, packed.inputs, state)
    record_property("error", error)
    assert error < 1e-11
