"""Attention and the decoders have the outputs, states and gradients of contrib.

`golden/README.md` describes the goldens.
"""

import pytest

from ..golden import replay, store

CASES = store.attention() + store.recorded("seq2seq")["cases"]
name_of = lambda case: case["name"]
FAST = "luong_recursive-ragged greedy-impute loss-00-ragged-float64 tree-ragged"


@pytest.mark.fast(*FAST.split())
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_same_as_contrib(case):
    replay.check(case, spare=replay.SPARE)


EAGER = "scheduled_output-auxiliary greedy-stack beam-5-early-penalty tree-whole"


@pytest.mark.fast("tree-whole")
@pytest.mark.parametrize(
    "case", [case for case in CASES if case["name"] in EAGER.split()], ids=name_of
)
def test_same_as_contrib_outside_of_jit(case):
    replay.check(case, jit=False)
