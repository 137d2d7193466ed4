"""Every cell compiles for TPUs and GPUs, with its gradients.

CI skips the slow tests here: further settings, and other cells on GPUs.
"""

import jax
import numpy as np
import pytest
from cases import BATCH, CASES
from compiler_cases import single, skipped_without

import jaxrnn
from benchmarks.compilers.program import on_mesh, read

TIME = 20  # More than one chunk of steps.

# Compiling for a GPU takes twice as long as for a TPU, so test each kind of loop once.
ON_GPUS = (
    "lstm_projection",
    "gru_cudnn",
    "mlstm",
    "slstm",
    "rg_lru",
    "multi",
    "dropout",
    "conv2d",
    "attention",
    "function_nested",
)


# One setting for each cell.
ON_TPUS = {type(case.cell): name for name, case in reversed(CASES.items())}.values()


def rows():
    fast = {"v5e": ON_TPUS, "h100": ON_GPUS}
    cases = [(kind, "lstm") for kind in ("v5p", "v6e")]
    cases += [(kind, name) for kind in fast for name in CASES]
    for kind, name in cases:
        marks = [mark] if (mark := skipped_without(kind)) else []
        if name not in fast.get(kind, CASES):
            marks.append(pytest.mark.slow)
        yield pytest.param(kind, name, marks=marks, id=f"{kind}-{name}")


@pytest.mark.parametrize(("kind", "name"), list(rows()))
def test_compiles(kind, name):
    case = CASES[name]
    types = on_mesh(types_of(case), single(kind))

    def run(params, xs, lengths, state):
        bound = case.cell.bind(params, case.key)
        return jaxrnn.dynamic_rnn(bound, xs, lengths, state, dtype=np.float32)

    def both(*args):
        return run(*args), jax.grad(lambda *args: total(run(*args)))(*args)

    assert read(jax.jit(both).lower(*types)).launches > TIME


def types_of(case):
    """The types of `(params, xs, lengths, state)`, in float32."""
    init = lambda: case.cell.init(jax.random.key(0), case.inputs, np.float32)
    steps = lambda x: jax.ShapeDtypeStruct((BATCH, TIME, *x.shape[1:]), x.dtype)
    lengths = jax.ShapeDtypeStruct((BATCH,), np.int32)
    state = jax.tree.map(narrow, case.state)
    return jax.eval_shape(init), jax.tree.map(steps, case.inputs), lengths, state


def narrow(x):
    is_float = np.issubdtype(x.dtype, np.floating)
    return jax.ShapeDtypeStruct(x.shape, np.float32 if is_float else x.dtype)


def total(tree):
    leaves = jax.tree.leaves(tree)
    return sum(x.sum() for x in leaves if np.issubdtype(x.dtype, np.floating))
