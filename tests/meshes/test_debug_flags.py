"""Drivers, decoders, modules and functions under JAX's debug flags.

The programs are some of the other tests in this folder, and a few in the native loops.
Their inputs are finite.
"""

import contextlib

import jax
import mesh
import numpy as np
import pytest
from helpers import bound, draw
from jax.experimental import checkify
from mesh import BATCH, DEPTH, UNITS
from native_cases import needs_library

import jaxrnn
from jaxrnn import decode
from jaxrnn._loops import masking

from . import test_drivers, test_functions

CELL = jaxrnn.LSTMCell(UNITS)
F32 = np.dtype("float32")


def natively(**options):
    def run(params, inputs):
        given = {"dtype": F32, "implementation": "native", **options}
        return jaxrnn.dynamic_rnn(CELL.bind(params), inputs, [5, 0, 2, 1], **given)

    inputs = draw(BATCH, 5, DEPTH).astype(F32)
    return run, {"params": bound(CELL, DEPTH, "float32").params, "inputs": inputs}


NATIVE = {
    "native": natively(),
    "native-resets": natively(resets=draw(BATCH, 5) > 0.5, return_states=True),
    "native-segments": natively(swap_memory=jaxrnn.memory.Recompute(2)),
}
ON_CPUS = [pytest.param(name, marks=needs_library) for name in NATIVE]
# One for each driver and each kind of function. The flags check each operation of JAX,
# and other cases run the same operations.
SOME = [f"{name}-0" for name in test_drivers.DRIVERS]
SOME += ["beam_search", "sample", "ScheduledOutputTrainingHelper", "Bidirectional-gaps"]
SOME += ["truncated_bptt", "step_of_a_memory", "sequence_loss"]


def program(name):
    """The function of a program, and its arrays by name."""
    if name in test_drivers.CASES:
        return test_drivers.prepared(name)
    row = (NATIVE | test_functions.ROWS | INDEXED)[name]
    return row() if callable(row) else row


@pytest.mark.slow
@pytest.mark.in_thirds
@pytest.mark.parametrize("name", [*SOME, *ON_CPUS])
def test_finite_inputs_raise_nothing(name):
    """Outside of jit, where JAX checks the results of each operation."""
    run, arrays = program(name)
    with contextlib.ExitStack() as flags:
        flags.enter_context(jax.debug_nans(True))
        # A beam without a sequence has the score -inf.
        flags.enter_context(jax.debug_infs(name != "beam_search"))
        flags.enter_context(jax.checking_leaks())
        flags.enter_context(jax.numpy_rank_promotion("raise"))
        mesh.with_gradients(run, arrays)


# Indices. JAX's check itself fails for two kinds of programs, which are left out: a
# batched scatter, by which a mask finds its steps, and an index in `jax.checkpoint`.


def is_checkable(name):
    case = test_drivers.CASES[name][1] if name in test_drivers.CASES else {}
    has_mask = case.get("mask") or name.endswith("-gaps")
    return not (has_mask or case.get("swap_memory"))


# Ids after the end id, which is 1, have no effect.
PADDED = np.array([[2, 1, -1, 99], [1, 99, 99, -1], [0, 0, 0, 1], [0, 2, 3, 1]])
MASK = draw(BATCH, 5) < 0.3
INDEXED = {"score-padded": test_functions.decoded(decode.score, {"ids": PADDED})}
NAMES = [*test_drivers.CASES, *test_functions.ROWS, *INDEXED]


def reads_of_a_mask(steps, x):
    moved = steps.to_front(x, 1), steps.to_places(x, 1)
    return moved, masking.delay_resets(MASK, MASK), steps.states(x, x[:, 0], 1)


@pytest.mark.fast("TrainingHelper", "ScheduledOutputTrainingHelper", "score-padded")
@pytest.mark.parametrize("name", [*filter(is_checkable, NAMES)])
def test_every_index_is_in_bounds(name):
    check_indices(*program(name))


def test_every_index_of_a_mask_is_in_bounds():
    steps = jax.jit(masking.ValidSteps.of)(MASK)
    check_indices(reads_of_a_mask, {"steps": steps, "x": draw(BATCH, 5, DEPTH)})


def check_indices(run, arrays):
    checked = checkify.checkify(lambda given: run(**given), checkify.index_checks)
    with jax.numpy_dtype_promotion("standard"):  # The check compares int32 with int64.
        error, _ = jax.jit(checked)(arrays)
    error.throw()
