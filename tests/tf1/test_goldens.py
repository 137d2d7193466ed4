"""jaxrnn has TensorFlow's and its contrib's outputs, states, gradients and errors.

First those of cells in drivers, then those of `raw_rnn`, `TensorArray` and the unrolled
drivers. `golden/README.md` describes the goldens.
"""

import builtins
import collections
import contextlib
import re

import numpy as np
import pytest

from ..golden import replay, replay_loops, store

CASES = store.recorded("tf1")["cases"]
ERRORS = store.recorded("tf1")["errors"]
FAMILIES = sorted(path.stem for path in (store.HERE / "contrib").glob("*.json"))
CONTRIB = [c for name in FAMILIES for c in store.recorded("contrib", name)["cases"]]
# Layer normalization divides by the deviation of a few numbers. TensorFlow's float32
# results differ from its float64 results by 2e-6.
SLACK = {"coupled_lstm": 3, "layer_norm_lstm": 3}

# Options of contrib's cells that no other fast test has.
OPTIONS = (
    "glstm_relu-*-f64",
    "grid_concat-whole-f32",
    "lstm_block_peep-ragged-f32",
    "lstm_block_clip-whole-f32",
)


def names(specifications):
    return [specification["name"] for specification in specifications]


def one_in(count, cases):
    """The names of every n-th case in each family."""
    families = collections.defaultdict(list)
    for case in cases:
        families[case["family"]].append(case["name"])
    return [name for family in families.values() for name in family[::count]]


def first_of_each_class(cases):
    """The first case of each cell class, except for slow ones and twins of others."""
    first = {}
    for case in cases:
        first.setdefault(case["cell"]["class"], case["name"])
    others = "BidirectionalGridLSTMCell NTMCell Conv2DLSTMCell Conv3DLSTMCell"
    others += " MultiRNNCell GRUBlockCell OutputProjectionWrapper"
    return [name for kind, name in first.items() if kind not in others.split()]


def refusal(case):
    """The context of a call that must fail as jaxrnn or TensorFlow does, or not."""
    wanted = case["ours"]["raises"] if case["ours"] else case["tf"]
    if wanted is None:
        return contextlib.nullcontext()
    # The message must be jaxrnn's, not an error from a deeper call.
    words = r"must|needs|only supports|there are no"
    return pytest.raises(getattr(builtins, wanted), match=words)


@pytest.mark.fast(*one_in(30, CASES), "counter-[0-9]*", "pooled-[0-9]*")
@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_same_as_tensorflow(case):
    replay.check(case)


@pytest.mark.fast(*first_of_each_class(CONTRIB), *OPTIONS)
@pytest.mark.parametrize("case", CONTRIB, ids=names(CONTRIB))
def test_same_as_contrib(case):
    # Where jaxrnn deliberately differs, only the gradients differ.
    replay.check(case, case["differs"] is None, SLACK.get(case["family"], 1))


@pytest.mark.parametrize("error", ERRORS, ids=names(ERRORS))
def test_refuses_as_tensorflow(error):
    if error["early"]:
        with refusal(error):
            replay.bound_cells(error)
        return
    cells = replay.bound_cells(error)
    with refusal(error):
        replay.attempt(error, cells)


# Loops.

LOOPS = store.recorded("tf1_loops")["cases"]
REFUSALS = store.recorded("tf1_loops")["refusals"]


def run_in(where, cases=LOOPS):
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
ARRAYS += ("scatter-keeps", "scatter-duplicates", "dynamic-array_in_state-ragged")
# Nor the rules of `raw_rnn`: who is finished, and what is masked.
RULES = ("pseudo_code-f64", "times_ten", "sticky", "finished-column", "finished-scalar")
RULES += ("all_finished-loop_state", "loop-sum", "loop-later_none")
# Nor these kinds of steps, outputs and layers of the unrolled drivers.
STATIC = ("static-counter-*", "static-array_in_state-ragged", "stack*-two*")
STATIC += ("two_ways-padding", "two_ways-dict_outputs")


@pytest.mark.fast(*one_in(30, JIT), *ARRAYS, *RULES, *STATIC)
@pytest.mark.parametrize(("case", "spare"), SPARED, ids=names(JIT))
def test_loops_are_tensorflows_under_jit(case, spare):
    compare(case, jit=True, spare=spare)


# The drivers' loops in Python are the same in every case, so a third of the cases that
# also run under jit suffices.
EAGER = [
    case
    for index, case in enumerate(run_in("eager"))
    if index % 3 == 0
    or case["where"] == "eager"
    or case["function"] == "TensorArray"
    or case["name"] in RULES
]


@pytest.mark.fast(*one_in(40, EAGER), "scatter-growing", "split*", *ARRAYS, *RULES)
@pytest.mark.parametrize("case", EAGER, ids=names(EAGER))
def test_loops_are_tensorflows_outside_of_jit(case):
    compare(case, jit=False)


IN_JIT = run_in("jit", REFUSALS)


@pytest.mark.parametrize("case", IN_JIT, ids=names(IN_JIT))
def test_loops_refuse_as_tensorflow_under_jit(case):
    with refusal(case):
        replay_loops.attempt(case, jit=True)


@pytest.mark.parametrize("case", REFUSALS, ids=names(REFUSALS))
def test_loops_refuse_as_tensorflow_outside_of_jit(case):
    with refusal(case):
        replay_loops.attempt(case, jit=False)


FOLDERS = {
    "tf1": (CASES, {"nan", "inf", "-inf"}),
    "tf1_loops": (LOOPS, {"nan", "inf"}),
    "contrib": (CONTRIB, set()),
}
# In these cases there are no rows, steps or units, or no array is read.
TRIVIAL = re.compile(
    "clip_zero|[bth]0|all_zero|all_negative|no_rows|empty|unwritten-shape_given"
    "|all_finished-template"
)


@pytest.mark.parametrize(("cases", "padding"), FOLDERS.values(), ids=FOLDERS)
def test_no_golden_is_trivial(cases, padding):
    """There are gradients that are not zero, and padding that is not finite."""
    assert {case["padding"] for case in cases} - {None} == padding
    for case in cases:
        grads = store.below(case, "grads").values()
        if grads and not TRIVIAL.search(case["name"]):
            assert any(x.astype(np.float64).any() for x in grads), case["name"]
        if case["padding"]:
            arrays = store.below(case, "inputs") | store.below(case, "given/inputs")
            assert not all(np.isfinite(x).all() for x in arrays.values()), case["name"]
