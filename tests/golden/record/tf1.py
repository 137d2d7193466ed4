"""Records `tf1/` from live TensorFlow: what its drivers and cells return and refuse.

It needs what `graphs.py` needs; the rows of `tf1/cases.json` are the cases:

    python -m tests.golden.record.tf1
"""

from typing import Any

from .. import hand_cells, trees
from . import graphs
from .graphs import Case, tf, tf1
from .library import TENSORFLOW


def lengths_of(case: Case) -> tf.Tensor | None:
    """The lengths that TensorFlow is given."""
    lengths = case["tf_lengths"] or case["lengths"]
    return lengths and tf.constant(lengths["values"], lengths["dtype"])


def path_of(scopes: list[str], _: list[Any]) -> list[str]:
    """The keys of a variable, by its direction."""
    way = next((f"_{scope}" for scope in scopes if scope in ("fw", "bw")), "")
    keys = [key for key in graphs.without_scopes(scopes)[1:] if key not in ("fw", "bw")]
    return [f"params{way}", *keys]


def build(case: Case, draw: graphs.Draw, path_of: Any = path_of) -> tuple[Any, ...]:
    """What a case is given, the same with padding, and its call."""
    ways = ["fw", "bw"] if case["function"].startswith("bi") else [""]
    built = []
    for way in ways:
        with tf1.variable_scope(way or tf1.get_variable_scope()):
            spec = case["cell_bw" if way == "bw" else "cell"]
            built.append(hand_cells.build(TENSORFLOW, spec))
    given = inputs(case, draw)
    for way, cell in zip(ways, built, strict=True):
        if case["initial_state"] in ("given", way):
            given[f"initial_state_{way}".rstrip("_")] = draw.state(cell)
    time_major, lengths = case["time_major"], case["lengths"]
    dirty = graphs.pad(case, given["inputs"], lengths, time_major)

    def call(fed):
        found = run_driver(case, built, **fed)
        tops = [f"params_{way}".rstrip("_") for way in ways]
        weights = graphs.variables(lambda scopes: path_of(scopes, built), *tops)
        return dict(zip(("outputs", "state"), found, strict=True)), weights

    return given, given | {"inputs": dirty}, call


def inputs(case: Case, draw: graphs.Draw) -> dict[str, Any]:
    """The inputs of a driver or of a cell, without padding."""
    axes = [case["batch"], case["time"]]
    axes = axes[::-1] if case["time_major"] else axes
    axes = axes[:1] if case["function"] == "cell" else axes
    leaf = lambda size: draw.sized(size, axes, 1.0)
    return {"inputs": trees.sizes(case["inputs"], leaf)}


def run_driver(case: Case, built: list[Any], inputs: Any, **states: Any) -> Any:
    """Outputs and state of the case's function."""
    state, lengths = states.get("initial_state"), lengths_of(case)
    dtype = case["dtype"] if case["pass_dtype"] else None
    if case["function"] == "cell":
        return built[0](inputs, state)
    if case["function"] == "fused":
        return built[0](inputs, state, dtype, lengths)
    if case["by_parts"]:
        return two_by_one(case, built, inputs, states)
    driver = getattr(tf1.nn, case["function"])
    options = {"dtype": dtype, "time_major": case["time_major"], **states}
    return driver(*built, inputs, lengths, **options)


def two_by_one(case: Case, built: list[Any], inputs: Any, states: Any) -> Any:
    """Two directions with each leaf reversed for itself."""
    lengths = lengths_of(case)

    def leaf(_, array):
        if lengths is None:
            return tf.reverse(array, [1])
        return tf.reverse_sequence(array, lengths, seq_axis=1, batch_axis=0)

    found = []
    given = {"fw": inputs, "bw": trees.map_leaves(leaf, inputs)}
    for cell, (way, x) in zip(built, given.items(), strict=True):
        state = states.get(f"initial_state_{way}")
        with tf1.variable_scope(way):
            options = {"initial_state": state, "dtype": case["dtype"]}
            found.append(tf1.nn.dynamic_rnn(cell, x, lengths, **options))
    (outputs, state), (outputs_bw, state_bw) = found
    return (outputs, trees.map_leaves(leaf, outputs_bw)), (state, state_bw)


def refused(error: Case) -> str | None:
    """What class of exception a bad call raises."""

    def make():
        built = [hand_cells.build(TENSORFLOW, error["cell"])]
        given = {
            key: hand_cells.argument(TENSORFLOW, v)
            for key, v in error["arguments"].items()
        }
        if error["function"] == "build":
            return (), {}
        if error["function"] == "zero_state":
            return built[0].zero_state(**given), {}
        if error["function"] == "cell":
            return built[0](**given), {}
        if error["cell_bw"] is not None:
            built.append(hand_cells.build(TENSORFLOW, error["cell_bw"]))
        return getattr(tf1.nn, error["function"])(*built, **given), {}

    return graphs.raised(make)


if __name__ == "__main__":
    graphs.record("tf1", "cases", build, refused)
