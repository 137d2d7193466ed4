"""Kernels of other packages: what reaches them, and what is refused, without them.

`tests/conformance/test_published_kernels.py` runs the packages.
"""

import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated

import jaxrnn
from jaxrnn._loops.memories import published_kernels

F32 = jnp.float32
RNG = np.random.default_rng(0)
ROWS, TIME, HEADS, KEY, VALUE = 4, 7, 2, 4, 3
CELL = jaxrnn.DeltaMemoryCell(HEADS, KEY, VALUE, num_key_heads=1)
LENGTHS = np.array([7, 4, 1, 0])
RESETS = RNG.random((ROWS, TIME)) < 0.3
RESETS[0, 0], RESETS[2, 0] = True, False


def drawn(*size):
    return np.float32(RNG.normal(size=(ROWS, *size)))


KEYS = drawn(TIME, 1, KEY)
INPUTS = jaxrnn.DeltaInputs(
    q=drawn(TIME, 1, KEY),
    k=KEYS / np.linalg.norm(KEYS, axis=-1, keepdims=True),
    v=drawn(TIME, HEADS, VALUE),
    g=-np.abs(drawn(TIME, HEADS)),
    beta=np.float32(RNG.random((ROWS, TIME, HEADS))),
)
STATE = drawn(HEADS, KEY, VALUE)
GIVEN = []  # The options of each call of `delta_rule`.


def delta_rule(q, k, v, g, beta, *, initial_state, segment_ids=None, scale, **options):
    """What `deltanet_tpu.chunk_gdn` computes, step by step."""
    GIVEN.append(options | {"dtypes": [x.dtype for x in (q, k, v, g, beta)]})
    if segment_ids is None:
        segment_ids = jnp.zeros(q.shape[:2], jnp.int32)
    before = jnp.concatenate([segment_ids[:, :1], segment_ids[:, :-1]], axis=1)

    def step(state, values):
        q, k, v, g, beta, same = values
        state = jnp.where(same[:, None, None, None], state, 0)
        state = jnp.exp(g)[..., None, None] * state
        read = jnp.einsum("bnk,bnkv->bnv", k, state)
        new = beta[..., None] * (v - read)
        state = state + jnp.einsum("bnk,bnv->bnkv", k, new)
        return state, scale * jnp.einsum("bnk,bnkv->bnv", q, state)

    values = q, k, v, g, beta, segment_ids == before
    values = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), values)
    state, outputs = jax.lax.scan(step, initial_state, values)
    return jnp.swapaxes(outputs, 0, 1).astype(v.dtype), state


@pytest.fixture
def of_jax(monkeypatch):
    """Pretend that JAX has the version that the packages ask for."""
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))


@pytest.fixture
def package(monkeypatch, of_jax):
    """A package that raises for a value size of 1, as packages do for other sizes."""

    def chunk_gdn(v, **given):
        if v.shape[-1] == 1:
            raise ValueError("V must be larger.")
        return delta_rule(v=v, **given)

    module = types.ModuleType("deltanet_tpu")
    module.chunk_gdn = chunk_gdn
    monkeypatch.setitem(sys.modules, "deltanet_tpu", module)


def run(inputs=INPUTS, state=STATE, cell=CELL, name="deltanet_tpu", **options):
    options = {"initial_state": state, "implementation": name} | options
    return jaxrnn.dynamic_rnn(cell.bind({}), inputs, **options)


def explained(inputs=INPUTS, state=STATE, cell=CELL, name="deltanet_tpu", **options):
    """`explain` chooses the loop in each call; the programs of `run` are reused."""
    options = {"initial_state": state, "implementation": name} | options
    return jaxrnn.explain(cell.bind({}), inputs, **options)


def ragged(x):
    """`x` with NaN in the padding."""
    used = np.arange(TIME) < LENGTHS[:, None]
    return np.where(used.reshape(used.shape + (1,) * (x.ndim - 2)), x, np.nan)


RUNS = {
    "lengths": (
        jax.tree.map(ragged, INPUTS),
        np.where(np.arange(ROWS)[:, None, None, None] == 0, np.nan, STATE),  # Unread.
        {"resets": RESETS, "sequence_length": LENGTHS},
    ),
    "parts": (INPUTS, STATE, {"swap_memory": True}),
}


@pytest.mark.fast("lengths")
@pytest.mark.parametrize("case", RUNS)
def test_runs_equal_chunks(case, package):
    inputs, state, options = RUNS[case]
    got, want = (
        differentiated(functools.partial(run, name=name, **options), inputs, state)
        for name in ("deltanet_tpu", "xla")
    )
    # Both sum a few numbers of about 1 in float32.
    assert_near(got, want, tolerance=2e-6)


def test_q_k_and_v_keep_their_dtype(package):
    inputs = jax.tree.map(lambda x: x.astype(jnp.bfloat16), INPUTS)
    inputs = inputs._replace(g=INPUTS.g, beta=INPUTS.beta)
    GIVEN.clear()
    explained(inputs)
    asked = {"precision": "bf16", "output_final_state": True}
    assert GIVEN[0] == asked | {"dtypes": [jnp.bfloat16] * 3 + [F32] * 2}
    outputs, state = jax.eval_shape(run, inputs)
    assert (outputs.dtype, state.dtype) == (F32, F32)


def test_jla_runs_its_kernels_on_a_gpu(monkeypatch, of_jax):
    asked = []

    def linear_attention(kind, *, impl, **given):
        asked.append((kind, impl))
        return delta_rule(**given)

    module = types.ModuleType("jla.ops")
    module.linear_attention = linear_attention
    monkeypatch.setitem(sys.modules, "jla.ops", module)
    monkeypatch.setattr(published_kernels, "platform_of", lambda inputs: "gpu")
    assert explained(name="jla").loop == "jla"
    assert {*asked} == {("gated_deltanet", "mosaic_gpu")}


SMALL = jaxrnn.DeltaMemoryCell(HEADS, KEY, 1, num_key_heads=1)
OF_ONE_VALUE = INPUTS._replace(v=INPUTS.v[..., :1]), STATE[..., :1], SMALL
REFUSED = {
    "its kernels return only the last state": lambda: explained(return_states=True),
    "its kernels reset states to zeros, not to `reset_state`": lambda: explained(
        resets=RESETS, reset_state=STATE
    ),
    "V must be larger": lambda: explained(*OF_ONE_VALUE),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_package_cannot_do_is_refused(reason, package):
    with pytest.raises(ValueError, match=f"sequences: {reason}. Omit `implementation`"):
        REFUSED[reason]()


def test_a_missing_package_is_named(monkeypatch, of_jax):
    monkeypatch.setitem(sys.modules, "jla.ops", None)
    with pytest.raises(ValueError, match="`pip install jax-linear-attention`"):
        explained(name="jla")


def test_another_jax_and_another_platform_are_refused(monkeypatch, package):
    with monkeypatch.context() as patch:
        patch.setattr(published_kernels, "platform_of", lambda inputs: "gpu")
        with pytest.raises(ValueError, match="the platform is 'gpu'"):
            explained()
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    with pytest.raises(ValueError, match=f"JAX 0.11.2, and this is {jax.__version__}"):
        explained()
