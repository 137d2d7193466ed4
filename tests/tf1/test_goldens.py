"""jaxrnn has TensorFlow's and its contrib's outputs, states, gradients and errors.

Those of cells in drivers, of `raw_rnn`, of `TensorArray` and of the unrolled drivers.
`golden/README.md` describes the goldens.
"""

import builtins
import contextlib
import re

import jax
import pytest

from ..golden import replay, store

CELLS = store.recorded("tf1")["cases"]
LOOPS = store.recorded("tf1_loops")["cases"]
FAMILIES = sorted(path.stem for path in (store.HERE / "contrib").glob("*.json"))
CONTRIB = [c for name in FAMILIES for c in store.recorded("contrib", name)["cases"]]
name_of = lambda case: case["name"]

# Inside of jit. Buffers of every other case have spare steps, if there are any steps;
# the others have exactly the size of the run.
JIT = [case for case in CELLS + CONTRIB + LOOPS if case.get("where") != "eager"]
FAST = "gru-ragged-f64 lstm_all-lengths_beyond two_ways-both"
FAST += " counter-9_1_-1"
# Some families of contrib's cells.
FAST += " indy_gru-whole-f32 ln_lstm-whole-f32"
FAST += " nas-whole-f32 phased-whole-f32 time_freq_windows-step-f32 highway-whole-f32"
# The rules of `raw_rnn` (who is finished, what is masked), arrays, unrolled drivers.
FAST += " pseudo_code-f64 sticky finished-column all_finished-loop_state"
FAST += " old_handle gather-duplicates write_twice scatter-keeps unwritten-shape_given"
FAST += " static-array_in_state-ragged"


@pytest.mark.fast(*FAST.split())
@pytest.mark.parametrize("case", JIT, ids=name_of)
def test_same_as_tensorflow(case):
    spare = 0 if JIT.index(case) % 2 or not replay.steps(case) else replay.SPARE
    replay.check(case, spare=spare)


# Outside of jit, the loops run in Python: the same for all cells and loop functions.
SOME = re.compile(r"array_in_state|-short|python_bool|stack-one|-f32$")
EAGER = [
    case
    for case in LOOPS
    if case["where"] != "jit"
    if case["function"] == "TensorArray" or SOME.search(case["name"])
]


@pytest.mark.fast("static-array_in_state", "grow", "split")
@pytest.mark.parametrize("case", EAGER, ids=name_of)
def test_same_as_tensorflow_outside_of_jit(case):
    replay.check(case, jit=False)


def refusal(case):
    """The context of a call that must fail as jaxrnn or TensorFlow does, or not."""
    wanted = case["ours"]["raises"] if case["ours"] else case["tf"]
    if wanted is None:
        return contextlib.nullcontext()
    # The message must be jaxrnn's, not an error from a deeper call.
    words = r"must|needs|only supports|there are no"
    return pytest.raises(getattr(builtins, wanted), match=words)


@pytest.mark.parametrize("error", store.recorded("tf1")["errors"], ids=name_of)
def test_refuses_as_tensorflow(error):
    if error["early"]:
        with refusal(error):
            replay.bound_cells(error)
        return
    bound = replay.bound_cells(error)

    def attempt():
        replay.attempt(error, bound)

    with refusal(error):
        jax.eval_shape(attempt)  # What jaxrnn accepts is only traced.


REFUSALS = store.recorded("tf1_loops")["refusals"]
TRACED = [case for case in REFUSALS if case["where"] != "eager"]


@pytest.mark.parametrize("case", TRACED, ids=name_of)
def test_loops_refuse_as_tensorflow(case):
    """Inside of jit, where they only are traced."""
    given = replay.stand_ins(case)
    with refusal(case):
        jax.eval_shape(lambda given: replay.call(case, given, 4), given)


@pytest.mark.fast("array-*")
@pytest.mark.parametrize("case", REFUSALS, ids=name_of)
def test_loops_refuse_as_tensorflow_outside_of_jit(case):
    given = replay.stand_ins(case)
    with refusal(case):
        replay.call(case, given)
