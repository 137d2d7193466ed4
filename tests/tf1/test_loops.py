"""raw_rnn, TensorArray and the unrolled drivers have TensorFlow's results.

`golden/generate/make_tf1_loops.py` records the goldens.
"""

import builtins
import contextlib

import numpy as np
import pytest

from ..golden import replay, replay_loops, store
from .test_cells import names, one_in

CASES = store.recorded("tf1_loops")["cases"]
REFUSALS = store.recorded("tf1_loops")["refusals"]


def run_in(where, cases=CASES):
    return [case for case in cases if case["where"] in ("both", where)]


def compare(case, **how):
    for path, got, wanted in replay_loops.pairs(case, **how):
        rtol, atol = 0, 0
        if store.is_float(wanted.dtype.name):
            rtol, atol = replay.TOLERANCES[case["dtype"]]
            # Gradients have larger errors, because they are sums over rows and steps.
            atol *= 5 if path.startswith("grads/") else 1
        np.testing.assert_allclose(
            got.astype(np.float64),
            wanted.astype(np.float64),
            rtol,
            atol,
            equal_nan=False,
            err_msg=path,
        )


# The buffers of every other case, and of cases without steps, have exactly the size of
# the run. The others have spare steps.
SPARES = [
    0 if index % 2 or replay_loops.steps(case) == 0 else replay_loops.SPARE
    for index, case in enumerate(run_in("jit"))
]


@pytest.mark.fast(*one_in(18, run_in("jit")))
@pytest.mark.parametrize(
    ("case", "spare"),
    list(zip(run_in("jit"), SPARES, strict=True)),
    ids=names(run_in("jit")),
)
def test_same_as_tensorflow_under_jit(case, spare):
    compare(case, jit=True, spare=spare)


@pytest.mark.fast("3-all_finished", "3-loop-growing")
@pytest.mark.parametrize("name", ["all_finished", "decoder-until_end", "loop-growing"])
@pytest.mark.parametrize("spare", [0, replay_loops.SPARE])
def test_larger_buffers_change_nothing(name, spare):
    case = next(case for case in CASES if case["name"].startswith(name))
    compare(case, jit=True, spare=spare)


@pytest.mark.fast(*one_in(24, run_in("eager")))
@pytest.mark.parametrize("case", run_in("eager"), ids=names(run_in("eager")))
def test_same_as_tensorflow_outside_of_jit(case):
    compare(case, jit=False)


def refuses(case, *, jit):
    wanted = case["ours"]["raises"] if case["ours"] else case["tf"]
    refusal = contextlib.nullcontext()
    if wanted is not None:
        # The message must be jaxrnn's, not an error from a deeper call.
        words = r"must|needs|only supports|there are no"
        refusal = pytest.raises(getattr(builtins, wanted), match=words)
    with refusal:
        replay_loops.attempt(case, jit=jit)


@pytest.mark.parametrize(
    "case", run_in("jit", REFUSALS), ids=names(run_in("jit", REFUSALS))
)
def test_refuses_as_tensorflow_under_jit(case):
    refuses(case, jit=True)


@pytest.mark.parametrize("case", REFUSALS, ids=names(REFUSALS))
def test_refuses_as_tensorflow_outside_of_jit(case):
    refuses(case, jit=False)


def test_there_are_many():
    loops = [case for case in CASES if case["function"] == "raw_rnn"]
    assert len(CASES) >= 190
    assert len(loops) >= 90
    assert len(set(names(CASES))) == len(CASES)
    assert len(set(names(REFUSALS))) == len(REFUSALS)


def test_every_case_is_stored_once():
    for family in {case["family"] for case in CASES}:
        stored = set(store.stored("tf1_loops", family))
        assert stored == {case["name"] for case in CASES if case["family"] == family}


def test_gradients_are_not_trivial():
    # In these cases, no array is read, or there are no rows or steps.
    without = ("unwritten-shape_given", "no_rows", "empty", "all_finished-template")
    for case in CASES:
        grads = store.below(case, "grads")
        if grads and not case["name"].startswith(without):
            assert any(x.astype(bool).any() for x in grads.values()), case["name"]


def test_padding_is_not_finite():
    padded = [case for case in CASES if case["padding"]]
    assert {case["padding"] for case in padded} == {"nan", "inf"}
    for case in padded:
        given = store.below(case, "given/inputs").values()
        assert not all(np.isfinite(x).all() for x in given), case["name"]
