"""raw_rnn, TensorArray and the unrolled drivers have TensorFlow's results.

`golden/README.md` says how the goldens were recorded.
"""

import numpy as np
import pytest

from ..golden import replay, replay_loops, store
from .test_cells import names, one_in, refusal

CASES = store.recorded("tf1_loops")["cases"]
REFUSALS = store.recorded("tf1_loops")["refusals"]


def run_in(where, cases=CASES):
    return [case for case in cases if case["where"] in ("both", where)]


def compare(case, **mode):
    for path, got, wanted in replay_loops.pairs(case, **mode):
        rtol, atol = 0, 0
        if store.is_float(wanted.dtype.name):
            rtol, atol = replay.TOLERANCES[case["dtype"]]
            # Gradients have larger errors, because they are sums over rows and steps.
            atol *= 5 if path.startswith("grads/") else 1
        arrays = (array.astype(np.float64) for array in (got, wanted))
        how = {"equal_nan": False, "err_msg": path}
        np.testing.assert_allclose(*arrays, rtol, atol, **how)


# The buffers of every other case, and of cases without steps, have exactly the size of
# the run. The others have spare steps.
JIT = run_in("jit")
SPARED = [
    (case, 0 if index % 2 or replay_loops.steps(case) == 0 else replay_loops.SPARE)
    for index, case in enumerate(JIT)
]

# No other fast test has the values and gradients of these operations.
ARRAYS = ("unwritten-*", "old_handle", "gather-duplicates", "write_twice")
ARRAYS += ("scatter-keeps", "scatter-duplicates")


@pytest.mark.fast(*one_in(30, JIT), "loop-growing", *ARRAYS)
@pytest.mark.parametrize(("case", "spare"), SPARED, ids=names(JIT))
def test_same_as_tensorflow_under_jit(case, spare):
    compare(case, jit=True, spare=spare)


# The drivers' loops in Python are the same in every case, so a third of the cases that
# also run under jit suffices.
EAGER = [
    case
    for index, case in enumerate(run_in("eager"))
    if index % 3 == 0 or case["where"] == "eager" or case["function"] == "TensorArray"
]


@pytest.mark.fast(*one_in(40, EAGER), "scatter-growing", "split*", *ARRAYS)
@pytest.mark.parametrize("case", EAGER, ids=names(EAGER))
def test_same_as_tensorflow_outside_of_jit(case):
    compare(case, jit=False)


IN_JIT = run_in("jit", REFUSALS)


@pytest.mark.parametrize("case", IN_JIT, ids=names(IN_JIT))
def test_refuses_as_tensorflow_under_jit(case):
    with refusal(case):
        replay_loops.attempt(case, jit=True)


@pytest.mark.parametrize("case", REFUSALS, ids=names(REFUSALS))
def test_refuses_as_tensorflow_outside_of_jit(case):
    with refusal(case):
        replay_loops.attempt(case, jit=False)
