"""The forms in JAX as peers: `dynamic_rnn`, a loop, and a parallel scan."""

import functools

import jaxrnn

from ..core.built import Built, LeftOutError
from ..core.cases import Case
from . import OURS
from .data import Data
from .precision import deviations
from .program import variant
from .runs import RUNS

USES = ("jax", "jaxlib")


def build(case: Case, data: Data, name: str) -> Built:
    """One of the forms; deviations are facts of ours, in the race of one row."""
    if name == "associative" and not isinstance(data.cell, jaxrnn.LinearRecurrenceCell):
        raise LeftOutError("not a linear recurrence")
    made = variant(case, data, functools.partial(RUNS[name], data.cell))
    if name == OURS and case.group == "race" and case.batch == 1:
        made.facts.update(deviations(case, data))
    return Built({"": made})
