"""`implementation="jla"` and `"deltanet_tpu"`, in float32, against chunks in float64.

On a CPU, the packages run plain JAX and an interpreter of their kernels, which also
work with other versions of JAX than the packages ask for.
"""

import functools

import jax
import numpy as np
import pytest
from helpers import differentiated, largest_error, usual_promotion

import jaxrnn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:deltanet-tpu. running on non-TPU backend"),
]
HEADS, ROWS, TIME = 2, 3, 150  # More than two chunks of 64, and one of 128.
MODULES = {"jla": "jla.ops", "deltanet_tpu": "deltanet_tpu"}
SIZES = {"jla": (8, 6), "deltanet_tpu": (128, 128)}
LINEAR, DELTA = jaxrnn.LinearAttentionMemoryCell, jaxrnn.DeltaMemoryCell
# The keys of a step have norm 1, and the logarithms of decays are at least -1.
MEMORIES = {
    "linear": (LINEAR, jaxrnn.LinearAttentionInputs, {}),
    "linear, key decay": (LINEAR, jaxrnn.LinearAttentionInputs, {"key_decay": True}),
    "delta": (DELTA, jaxrnn.DeltaInputs, {}),
    "delta, key decay": (DELTA, jaxrnn.DeltaInputs, {"key_decay": True}),
    "DPLR": (jaxrnn.DPLRMemoryCell, jaxrnn.DPLRInputs, {}),
}
RUNS = [(name, kind) for name in MODULES for kind in MEMORIES]
RUNS.remove(("deltanet_tpu", "DPLR"))
# The packages subtract sums of the logarithms of up to 128 steps, which round by up to
# 2**-18; the largest error was 2e-6. (With logarithms of up to -55 it was 5e-5. That of
# chunks in float32, which round less, stayed below 1e-6.)
TOLERANCE = 1e-5


@pytest.fixture(params=RUNS, ids=": ".join)
def memory(request, monkeypatch):
    """The package, a memory, and inputs of rows in float32, with a state."""
    name, kind = request.param
    with usual_promotion():
        pytest.importorskip(MODULES[name])
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    make, named, options = MEMORIES[kind]
    cell = make(HEADS, *SIZES[name], scale=0.4, **options)
    rng = np.random.default_rng(RUNS.index(request.param))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    draws = dict.fromkeys("qv", rng.normal) | {
        "k": lambda size: unit(rng.normal(size=size)),
        "a": lambda size: -unit(rng.normal(size=size)),
        "b": lambda size: unit(rng.normal(size=size)) * rng.random(size),
        "g": lambda size: -np.exp(rng.uniform(-6, 0, size)),
        "beta": lambda size: rng.random(size),
    }
    inputs = named(
        **{
            name: np.float32(draws[name](size=(ROWS, TIME, *size)))
            for name, size in cell.input_sizes._asdict().items()
        }
    )
    state = np.float32(rng.normal(size=(ROWS, *cell.state_size)))
    return name, cell.bind({}), inputs, state


def run(cell, name, inputs, state, **options):
    options |= {"initial_state": state, "implementation": name}
    return jaxrnn.dynamic_rnn(cell, inputs, **options)


def error_of(memory, inputs, state, **options):
    """The largest error of results, and of the gradients of their weighted sum."""
    name, cell, *_ = memory
    of = lambda name: functools.partial(run, cell, name, **options)
    to_float64 = functools.partial(jax.tree.map, np.float64)
    got = to_float64(differentiated(of(name), inputs, state))
    want = differentiated(of("xla"), *to_float64((inputs, state)))
    return largest_error(zip(*map(jax.tree.leaves, (got, want)), strict=True))


def test_published_kernel(memory, record_property):
    _, _, inputs, state = memory
    error = error_of(memory, inputs, state)
    record_property("error", error)
    assert error < TOLERANCE


def test_published_kernel_with_documents(memory, record_property):
    """Resets, lengths, and NaN in the padding and in a state that is not read."""
    _, _, inputs, state = memory
    lengths, rng = np.array([TIME, 70, 0]), np.random.default_rng(0)
    resets = rng.random((ROWS, TIME)) < 0.05
    resets[:, 0] = [True, False, False]
    used = np.arange(TIME) < lengths[:, None]
    pad = lambda x: np.where(used.reshape(used.shape + (1,) * (x.ndim - 2)), x, np.nan)
    inputs, state = jax.tree.map(pad, inputs), state.copy()
    state[0] = np.nan
    options = {"sequence_length": lengths, "resets": resets}
    error = error_of(memory, inputs, state, **options)
    record_property("error", error)
    assert error < TOLERANCE
