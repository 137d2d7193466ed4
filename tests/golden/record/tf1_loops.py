"""Records `tf1_loops/` from live TensorFlow: `raw_rnn`, `TensorArray`, unrolled loops.

It needs what `graphs.py` needs; the rows of `tf1_loops/cases.json` are the cases:

    python -m tests.golden.record.tf1_loops
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import hand_cells, hand_loops, trees
from . import graphs
from .graphs import Case, tf1
from .library import TENSORFLOW


def each_cell(specs: Any, fn: Callable[..., Any], path: str = "") -> Any:
    """`specs` with `fn(spec, path)` for each cell's specification."""
    if specs is None or specs.keys() & {"class", "custom", "not_a_cell"}:
        return fn(specs, path)
    return {key: each_cell(spec, fn, f"{path}/{key}") for key, spec in specs.items()}


def drawn(case: Case, draw: graphs.Draw) -> dict[str, Any]:
    """The arguments that are drawn, and the values."""
    leaf = lambda size: draw.sized(size, [], 1.0)
    given = {key: trees.sizes(tree, leaf) for key, tree in case["arguments"].items()}
    values = case["values"].items()
    return given | {key: np.asarray(v["values"], v["dtype"]) for key, v in values}


def padded(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the case's padding beyond each row's length."""
    if case["padding"] is None:
        return given
    lengths = case["values"].get("lengths") or case["values"]["sequence_length"]
    time_major = case["function"] != "stack_bidirectional_dynamic_rnn"
    made = graphs.pad(case, np.asarray(given["inputs"]), lengths, time_major)
    return given | {"inputs": list(made) if isinstance(given["inputs"], list) else made}


def build(case: Case, draw: graphs.Draw) -> tuple[Any, Any, Any]:
    """What a case is given, the same with padding, and its call."""

    def cell(spec, path):
        with tf1.variable_scope(path[1:] or tf1.get_variable_scope()):
            return spec and hand_cells.build(TENSORFLOW, spec)

    built, named = each_cell(case["cells"], cell), {}
    if case["initial_state"] != "zero":
        found = dict(trees.leaves(built))
        start = lambda _, path: draw.state(found[path])
        named["start"] = each_cell(case["cells"], start)
    given = drawn(case, draw)
    ours = case | {"script": case["tf_script"] or case["script"]}

    def call(fed):
        given = built, fed["given"], fed.get("start")
        results = hand_loops.run(TENSORFLOW, ours, *given)
        return {"results": results}, graphs.variables(graphs.without_scopes, "params")

    return {"given": given} | named, {"given": padded(case, given)} | named, call


def refused(case: Case) -> str | None:
    """The class of exception that a call raises; contrib's stacks are not there."""

    def make():
        given, _, call = build(case, graphs.Draw(case))
        fed = graphs.placeholders(given)
        return call(fed)[0], graphs.feed(fed, given)

    if case["function"].startswith("stack_"):
        return None
    return graphs.raised(make, case["dtype"])


if __name__ == "__main__":
    graphs.record("tf1_loops", "cases", build, refused)
