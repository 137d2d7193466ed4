"""Every cell and loop compiles for TPUs and GPUs, with its gradients.

The last tests plan the memory of programs for absent devices.

`test_collectives.py` tests the drivers of `tests/sharded_programs.py`: `dynamic_rnn`,
`bidirectional_dynamic_rnn`, `static_rnn`, `raw_rnn` and the decoders of `decode`.
"""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from cases import BATCH, CASES, KINDS
from compiler_cases import devices, single
from compilers.hlo import on_mesh, read
from helpers import bound, plan_of

import jaxrnn
from jaxrnn import LSTMCell, contrib, decode
from jaxrnn.memory import Keep, Offload

ROWS, TIME, SIZE = BATCH, 20, 8  # More steps than one chunk.
F32 = np.float32
X = jax.ShapeDtypeStruct((ROWS, TIME, SIZE), F32)
LENGTHS = [TIME, 0, 3, 11]
CELL = bound(LSTMCell(SIZE), SIZE, F32)


def resets(x):
    starts = x[..., 0] > 1
    return jaxrnn.dynamic_rnn(CELL, x, dtype=F32, resets=starts)


def attention(x):
    """A decoder of `contrib` with attention to the inputs."""
    mechanism = contrib.LuongAttention(SIZE, SIZE)
    cell = contrib.AttentionWrapper(LSTMCell(SIZE), mechanism, SIZE)
    params = bound(cell, SIZE, F32).params
    state = cell.initial_state(x, LENGTHS)
    helper = contrib.TrainingHelper(x, np.asarray(LENGTHS, np.int32))
    decoder = contrib.BasicDecoder(cell.bind(params), helper, state)
    outputs, _, _ = contrib.dynamic_decode(decoder)
    return outputs


def sampled(x):
    embed = lambda ids: jax.nn.one_hot(ids, SIZE, dtype=F32)
    state = CELL.zero_state(ROWS, F32)
    state = jax.tree.map(lambda s: s + x[:, 0], state)
    key, start = jax.random.key(0), np.zeros(ROWS, np.int32)
    model = decode.Model(CELL, embed, lambda y: y, state, start, eos_id=1)
    return decode.sample(model, 12, key).scores


# Compiling for a GPU takes twice as long as for a TPU, so test each kind of loop once.
ON_GPUS = ["lstm_projection", "gru_cudnn", "mlstm", "slstm", "rg_lru", "multi"]
ON_GPUS += ["dropout", "conv2d", "attention", "function_nested"]
# One setting for each cell.
ON_TPUS = {type(case.cell): name for name, case in reversed(CASES.items())}.values()
CELLS = [("v5e", name) for name in ON_TPUS] + [("h100", name) for name in ON_GPUS]
CELLS += [("v6e", "lstm")]


@pytest.mark.fast("*-lstm", *(f"v5e-{name}" for name in KINDS.values()), "h100-mlstm")
@pytest.mark.parametrize(("kind", "name"), CELLS)
def test_cells_compile(kind, name):
    case = CASES[name]
    types = on_mesh(types_of(case), single(kind))

    def run(params, xs, lengths, state):
        bound = case.cell.bind(params, case.key)
        return jaxrnn.dynamic_rnn(bound, xs, lengths, state, dtype=F32)

    def both(*args):
        return run(*args), jax.grad(lambda *args: total(run(*args)))(*args)

    assert read(jax.jit(both).lower(*types)).temporary >= 0


def types_of(case):
    """The types of `(params, xs, lengths, state)`, in float32."""
    init = lambda: case.cell.init(jax.random.key(0), case.inputs, F32)
    steps = lambda x: jax.ShapeDtypeStruct((ROWS, TIME, *x.shape[1:]), x.dtype)
    lengths = jax.ShapeDtypeStruct((ROWS,), np.int32)
    state = jax.tree.map(narrow, case.state)
    return jax.eval_shape(init), jax.tree.map(steps, case.inputs), lengths, state


def narrow(x):
    is_float = np.issubdtype(x.dtype, np.floating)
    return jax.ShapeDtypeStruct(x.shape, F32 if is_float else x.dtype)


DRIVERS = [resets, attention, sampled]


@pytest.mark.parametrize("run", DRIVERS, ids=lambda run: run.__name__)
@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_drivers_compile(kind, run):
    assert read(lowered(run, on_mesh(X, single(kind)))).temporary >= 0


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_true_stores_states_on_the_host(kind):
    """`swap_memory=True` stores states on the host if the target is not a CPU."""
    x = jax.ShapeDtypeStruct((ROWS, 400, SIZE), F32)

    def host_memory(swap_memory):
        run = lambda x: jaxrnn.dynamic_rnn(CELL, x, dtype=F32, swap_memory=swap_memory)
        return read(lowered(run, on_mesh(x, single(kind)))).host

    states = 20 * 2 * ROWS * SIZE * 4  # c and h before each of 20 parts.
    assert host_memory(False) == 0
    assert host_memory(True) >= states
    assert host_memory(jaxrnn.memory.Recompute()) == 0


def lowered(run, x):
    """The results of `run`, and the gradient of their sum."""

    def loss(x):
        results = run(x)
        return total(results, jnp.sin), results

    return jax.jit(jax.grad(loss, has_aux=True)).lower(x)


def total(tree, of=lambda x: x):
    leaves = jax.tree.leaves(tree)
    return sum(of(x).sum() for x in leaves if np.issubdtype(x.dtype, np.floating))


# Plans of the memory.

SHAPE = (4000, 32, 256)  # More than the fast memory of a TPU.


def plan_for(device, strategies, shape=SHAPE):
    return plan_of(LSTMCell(shape[-1]), shape, strategies, device=device)


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_strategies(kind):
    name = devices(kind)[0].device_kind
    plan = plan_for(devices(kind)[0], [Keep(), Offload(Keep()), True])
    keep, offload, swap = plan.rows
    # Each step saves gates, c and h: six numbers of 4 bytes per unit.
    saved = 6 * 4 * 4000 * 32 * 256
    assert keep.saved.device == pytest.approx(saved, rel=0.01)
    assert keep.peak.device >= keep.saved.device
    assert keep.peak.host == keep.saved.host == 0
    assert offload.saved.device < 2**10  # Without parameters.
    assert offload.saved.host == pytest.approx(saved, rel=0.01)
    # The peak includes padding or a copy of the last part.
    assert offload.peak.host == pytest.approx(saved, rel=0.02)
    assert offload.peak.device < keep.peak.device / 20
    assert swap.strategy == Offload()
    assert swap.peak.host > 0
    assert plan.device == name


@pytest.mark.slow
def test_the_guide_plans_for_a_tpu():
    """The numbers come from the compiler; record them again for another version."""
    devices("v5e")  # Without their compiler, the test is skipped.
    root = pathlib.Path(__file__).parents[2]
    page = root / "docs" / "guide" / "accelerators.md"
    program = [sys.executable, run_page.__file__, page]
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(root)}
    # This process may have loaded libtpu too.
    settings |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    options = {"cwd": root, "env": os.environ | settings}
    done = subprocess.run(program, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
