"""Records `tf1_loops/` from live TensorFlow: `raw_rnn`, `TensorArray`, unrolled loops.

It needs what `graphs.py` needs. The rows of `tf1_loops/cases.json` are the cases.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import trees
from . import cells, graphs, loop_parts
from .graphs import Case, tf, tf1


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
            return spec and cells.build(spec, case["dtype"])

    built, named = each_cell(case["cells"], cell), {}
    if case["initial_state"] != "zero":
        found = dict(trees.leaves(built))
        start = lambda _, path: draw.state(found[path])
        named["start"] = each_cell(case["cells"], start)
    given = drawn(case, draw)

    def call(fed):
        results = run(case, built, fed["given"], fed.get("start"))
        return {"results": results}, graphs.variables(graphs.without_scopes, "params")

    return {"given": given} | named, {"given": padded(case, given)} | named, call


def refused(case: Case) -> str | None:
    """The class of exception that a call raises; contrib's stacks are not there."""

    def make():
        given, _, call = build(case, graphs.Draw(case))
        fed = graphs.placeholders(given)
        return call(fed)[0], graphs.feed(fed, given)

    return None if case["function"].startswith("stack_") else graphs.raised(make)


def start_of(case: Case, cell: Any, state: Any) -> Any:
    """The state to start from, with a TensorArray in front where the case has one."""
    dtype = tf.as_dtype(case["dtype"])
    if state is None:
        return cell.zero_state(case["batch"], dtype)
    if not case["array_state"]:
        return state
    return (tf.TensorArray(dtype, size=9, element_shape=state[0].shape), *state)


def options_of(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a driver that are its inputs, lengths and options."""
    options = {"dtype": case["dtype"]} | given
    options |= {key: cells.argument(value) for key, value in case["options"].items()}
    dtype = options["dtype"]
    return options | {"dtype": dtype and tf.as_dtype(dtype)}


def raw_rnn(case: Case, cell: Any, given: dict[str, Any], state: Any) -> Any:
    """`raw_rnn` with the loop function of the case's parts, or what stands for one."""
    options = options_of(case, {})
    del options["dtype"]
    if "loop_fn" not in options:
        is_cell = "not_a_cell" not in case["cells"]
        start = start_of(case, cell, state) if is_cell else None
        options["loop_fn"] = loop_parts.loop_fn(case, given, start)
    found = tf1.nn.raw_rnn(cell, **options)
    return dict(zip(("emit", "state", "loop_state"), found, strict=True))


def one_way(case: Case, cell: Any, given: dict[str, Any], state: Any) -> Any:
    """`dynamic_rnn` or `static_rnn`."""
    options = options_of(case, given)
    if state is not None:
        options["initial_state"] = start_of(case, cell, state)
    outputs, final = getattr(tf1.nn, case["function"])(cell, **options)
    return {"outputs": outputs, "state": final}


class Saver:
    """A state saver that adds one to what it is given to keep."""

    def __init__(self, kept: dict[str, Any]):
        """Takes the states by name."""
        self.state, self.saved = kept.__getitem__, {}

    def save_state(self, name: str, value: Any) -> Any:
        """Keeps the value."""
        self.saved[name] = value + 1
        return self.saved[name]


def saving(case: Case, cell: Any, given: dict[str, Any], state: Any) -> Any:
    """`static_state_saving_rnn`."""
    options = options_of(case, given)
    del options["dtype"]
    names = [name for _, name in trees.leaves(options["state_name"])]
    leaves = [leaf for _, leaf in trees.leaves(state)]
    saver = Saver(dict(zip(names, leaves, strict=False)))
    outputs, final = tf1.nn.static_state_saving_rnn(cell, state_saver=saver, **options)
    return {"outputs": outputs, "state": final, "saved": saver.saved}


def two_ways(case: Case, pair: Any, given: dict[str, Any], state: Any) -> Any:
    """`static_bidirectional_rnn`, or `bidirectional_dynamic_rnn` for a stack of it."""
    options, both = options_of(case, given), (pair["fw"], pair["bw"])
    if state is not None:
        options |= {f"initial_state_{way}": state[way] for way in ("fw", "bw")}
    if case["function"] == "stack_bidirectional_dynamic_rnn":
        outputs, (fw, bw) = tf1.nn.bidirectional_dynamic_rnn(*both, **options)
        outputs = tf.concat(outputs, 2)
    else:
        outputs, fw, bw = tf1.nn.static_bidirectional_rnn(*both, **options)
    return {"outputs": outputs, "state": {"fw": fw, "bw": bw}}


def stack(case: Case, layers: Any, given: dict[str, Any], state: Any) -> Any:
    """What contrib's two stacks do: each layer reads the joined outputs."""
    outputs, states = given["inputs"], {"fw": (), "bw": ()}
    for name in sorted(layers):
        with tf1.variable_scope(name):
            read = given | {"inputs": outputs}
            found = two_ways(case, layers[name], read, state and state[name])
        outputs = found["outputs"]
        states = {way: (*kept, found["state"][way]) for way, kept in states.items()}
    return {"outputs": outputs, "state": states}


def tensor_array(case: Case, _: Any, given: dict[str, Any], __: Any) -> Any:
    """The calls of a script."""

    def argument(value):
        if not isinstance(value, str) or value[0] not in "$@":
            return value
        name, _, index = value[1:].partition(".")
        found = (known if value[0] == "@" else given)[name]
        return found[int(index)] if index else found

    known = {"ta": tf.TensorArray(**options_of(case, {}))}
    for target, source, method, *values in case["tf_script"] or case["script"]:
        arguments = [argument(value) for value in values]
        known[target] = getattr(known[source], method)(*arguments)
    return {key: v for key, v in known.items() if not key.startswith(("_", "ta"))}


RUNS = {
    "raw_rnn": raw_rnn,
    "dynamic_rnn": one_way,
    "static_rnn": one_way,
    "static_state_saving_rnn": saving,
    "static_bidirectional_rnn": two_ways,
    "stack_bidirectional_rnn": stack,
    "stack_bidirectional_dynamic_rnn": stack,
    "TensorArray": tensor_array,
}


def run(case: Case, built: Any, given: dict[str, Any], start: Any) -> dict[str, Any]:
    """The results by name, without None; a TensorArray is its size and its stack."""

    def leaf(_, value):
        if isinstance(value, tf.TensorArray):
            return {"size": value.size(), "stack": value.stack()}
        return value

    results = RUNS[case["function"]](case, built, given, start)
    return {k: trees.map_leaves(leaf, v) for k, v in results.items() if v is not None}


if __name__ == "__main__":
    graphs.record("tf1_loops", "cases", build, refused)
