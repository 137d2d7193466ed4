"""Drivers, decoders, modules and functions under JAX's debug flags.

The programs are some of the other tests in this folder, and a few in the native loops.
Their inputs are finite.
"""

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
from jaxrnn._run import reorder

from . import test_drivers, test_functions

CELL = jaxrnn.LSTMCell(UNITS)
F32 = np.dtype("float32")


def natively(params, inputs):
    options = {"resets": draw(BATCH, 5) > 0.5, "return_states": True}
    options |= {"dtype": F32, "implementation": "native"}
    return jaxrnn.dynamic_rnn(CELL.bind(params), inputs, [5, 0, 2, 1], **options)


NATIVE = {"params": bound(CELL, DEPTH, "float32").params}
NATIVE = natively, NATIVE | {"inputs": draw(BATCH, 5, DEPTH).astype(F32)}
# The flags check each operation of JAX, and other programs run the same operations.
SOME = ["dynamic-0", "raw-0", "beam_search", "Bidirectional-gaps", "packed"]
SOME += [pytest.param("native", marks=needs_library)]


def program(name):
    """The function of a program, and its arrays by name."""
    if name in test_drivers.CASES:
        return test_drivers.prepared(*test_drivers.CASES[name])
    row = ROWS[name]
    return row() if callable(row) else row


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_finite_inputs_raise_nothing(name):
    """Outside of jit, where JAX checks the results of each operation."""
    run, arrays = program(name)
    no_infs = jax.debug_infs(name != "beam_search")  # Without a sequence, it is -inf.
    with jax.debug_nans(True), no_infs, jax.checking_leaks():
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
PADDED = test_functions.decoded(decode.score, {"ids": PADDED})
ROWS = test_functions.ROWS | {"native": NATIVE, "score-padded": PADDED}
NAMES = [*[*test_drivers.CASES][::2], *test_functions.ROWS, "score-padded"]


def reads_of_a_mask(steps, x):
    moved = steps.to_front(x, 1), steps.to_places(x, 1)
    return moved, reorder.resets_of_valid_steps(MASK, MASK), steps.states(x, x[:, 0], 1)


@pytest.mark.fast("ScheduledOutputTrainingHelper", "score-padded")
@pytest.mark.parametrize("name", [*filter(is_checkable, NAMES)])
def test_every_index_is_in_bounds(name):
    check_indices(*program(name))


def test_every_index_of_a_mask_is_in_bounds():
    steps = jax.jit(reorder.ValidSteps.of)(MASK)
    check_indices(reads_of_a_mask, {"steps": steps, "x": draw(BATCH, 5, DEPTH)})


def check_indices(run, arrays):
    checked = checkify.checkify(lambda given: run(**given), checkify.index_checks)
    with jax.numpy_dtype_promotion("standard"):  # The check compares int32 with int64.
        error, _ = jax.jit(checked)(arrays)
    error.throw()
