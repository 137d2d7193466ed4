"""jaxrnn has TensorFlow's outputs, states, gradients and errors.

`golden/generate/make_tf1.py` records the goldens.
"""

import builtins
import collections
import contextlib

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


def refusal(case):
    """The context of a call that must fail as jaxrnn or TensorFlow does, or not."""
    wanted = case["ours"]["raises"] if case["ours"] else case["tf"]
    if wanted is None:
        return contextlib.nullcontext()
    # The message must be jaxrnn's, not an error from a deeper call.
    words = r"must|needs|only supports|there are no"
    return pytest.raises(getattr(builtins, wanted), match=words)


@pytest.mark.fast(*one_in(30, CASES))
@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_same_as_tensorflow(case):
    replay.check(case)


@pytest.mark.parametrize("error", ERRORS, ids=names(ERRORS))
def test_refuses_as_tensorflow(error):
    if error["early"]:
        with refusal(error):
            replay.bound_cells(error)
        return
    cells = replay.bound_cells(error)
    with refusal(error):
        replay.attempt(error, cells)
