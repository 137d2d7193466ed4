"""jaxrnn has TensorFlow's outputs, states, gradients and errors.

`golden/generate/make_tf1.py` records the goldens.
"""

import builtins
import collections

import numpy as np
import pytest

from ..golden import replay, store

CASES = store.recorded("tf1")["cases"]
ERRORS = store.recorded("tf1")["errors"]


def names(specifications):
    return [specification["name"] for specification in specifications]


def one_in(count, cases):
    """The names of every n-th case in each family."""
    families = collections.defaultdict(list)
    for case in cases:
        families[case["family"]].append(case["name"])
    return [name for family in families.values() for name in family[::count]]


@pytest.mark.fast(*one_in(18, CASES))
@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_same_as_tensorflow(case):
    replay.check(case)


@pytest.mark.parametrize("error", ERRORS, ids=names(ERRORS))
def test_refuses_as_tensorflow(error):
    wanted = error["ours"]["raises"] if error["ours"] else error["tf"]
    if wanted is None:
        replay.attempt(error, replay.bound_cells(error))
        return
    # The message must be jaxrnn's, not an error from a deeper call.
    refusal = pytest.raises(
        getattr(builtins, wanted), match=r"must|needs|only supports"
    )
    if error["early"]:
        with refusal:
            replay.attempt(error, replay.bound_cells(error))
        return
    cells = replay.bound_cells(error)
    with refusal:
        replay.attempt(error, cells)


def test_there_are_many_with_names_of_their_own():
    assert len(CASES) >= 200
    assert len(set(names(CASES))) == len(CASES)
    assert len(set(names(ERRORS))) == len(ERRORS)


@pytest.mark.parametrize("family", sorted({case["family"] for case in CASES}))
def test_every_array_belongs_to_a_case(family):
    stored = {key.split("/")[0] for key in store.stored("tf1", family)}
    assert stored == {case["name"] for case in CASES if case["family"] == family}


@pytest.mark.slow
def test_every_case_has_gradients_of_all_that_is_floating():
    for case in CASES:
        given = replay.floats(replay.arguments(case))
        assert given.keys() == store.below(case, "grads").keys(), case["name"]


def takes_steps(case):
    values = case["lengths"]["values"] if case["lengths"] else [case["time"]]
    return case["batch"] > 0 and case["time"] > 0 and max(values) > 0


def test_gradients_are_not_trivial():
    without_units = ("clip_zero", "h0")
    for case in CASES:
        if takes_steps(case) and not any(
            kind in case["name"] for kind in without_units
        ):
            leaves = store.below(case, "grads").values()
            assert any(leaf.astype(np.float64).any() for leaf in leaves), case["name"]


def test_padding_is_not_finite():
    padded = [case for case in CASES if case["padding"]]
    assert {case["padding"] for case in padded} == {"nan", "inf", "-inf"}
    for case in padded:
        assert not np.isfinite(replay.golden(case, "inputs")).all(), case["name"]


@pytest.mark.parametrize(
    ("clip", "leaf"), [("lstm_clip", "c"), ("lstm_proj_clip", "h")]
)
def test_clips_are_hit(clip, leaf):
    case = next(case for case in CASES if case["name"] == f"{clip}-ragged-f64")
    bound = case["cell"]["kwargs"][{"c": "cell_clip", "h": "proj_clip"}[leaf]]
    values = np.abs(getattr(replay.golden(case, "state"), leaf))
    assert (values == bound).any()
    assert (values < bound).any()
