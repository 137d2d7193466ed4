"""Writes the goldens of `tests/golden/tf1_loops` from live TensorFlow.

What it needs and what it writes are as in `make_tf1.py`:

    python tests/golden/generate/make_tf1_loops.py

A case has these arrays, packed as `store.py` tells:

- `params`, `start`: of its cells, nested as the case's `cells`;
- `given`: the arguments that were drawn, and the values;
- `results`: what the function gives; a TensorArray is its `size` and its `stack`;
- `w_results`: cotangents of the floating-point leaves of the results;
- `grads`: gradients of `sum(results * w_results)` for all that is floating-point.

`cases.json` gets the structures of these trees, and the class that each refusal raises.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
from golden import store, trees
from golden.generate import make_tf1, tf1_cells, tf1_loops

tf, tf1 = make_tf1.tf, make_tf1.tf1
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "tf1_loops"
# What a variable's name says beyond its path in jaxrnn's nested dicts.
_SCOPES = (make_tf1._SCOPES | {"decoder"}) - {"fw", "bw"}
Case = dict[str, Any]


class Draw(make_tf1.Draw):
    """Random arrays of one case, of few digits, so that the files are small."""

    def array(self, shape: Any, dtype: str, scale: float) -> np.ndarray:
        """Normal numbers in steps that every dtype holds, or small integers."""
        drawn = super().array(shape, dtype, scale)
        if tf.as_dtype(dtype).is_integer:
            return drawn
        steps = np.clip(np.round(drawn.astype(np.float64) * 64), -255, 255)
        return (steps / 64).astype(drawn.dtype)


def _each_cell(specs: Any, fn: Any, path: tuple[str, ...] = ()) -> Any:
    """`specs` with `fn(spec, path)` for each cell's specification."""
    if specs is None or specs.keys() & {"class", "cells", "custom", "not_a_cell"}:
        return fn(specs, path)
    return {key: _each_cell(spec, fn, (*path, key)) for key, spec in specs.items()}


def _cells(case: Case) -> Any:
    """The case's cells, nested as their specifications."""

    def build(spec, path):
        if spec is None:
            return None
        with tf1.variable_scope("/".join(path) or tf1.get_variable_scope()):
            return tf1_cells.build(spec, case["dtype"])

    return _each_cell(case["cells"], build)


def _starts(case: Case, cells: Any, draw: Draw) -> Any:
    """The states that are given, nested as the cells, or None."""
    if case["initial_state"] == "zero":
        return None
    built = dict(trees.leaves(cells))

    def state(_, path):
        return draw.state(built["".join(f"/{key}" for key in path)])

    return _each_cell(case["cells"], state)


def _parameters() -> dict[str, Any]:
    """Nested dicts of the graph's variables."""
    params: dict[str, Any] = {}
    for variable in tf1.trainable_variables():
        parts = variable.name.removesuffix(":0").split("/")
        *above, last = [part for part in parts if part not in _SCOPES]
        node = params
        for part in above:
            node = node.setdefault(part, {})
        if last in node:
            raise ValueError(f"Two variables for {variable.name}.")
        node[last] = variable
    return params


def _given(case: Case, draw: Draw) -> dict[str, Any]:
    """The arguments that are drawn, and the values."""

    def drawn(size):
        return draw.array(size["shape"], size.get("dtype", case["dtype"]), 1.0)

    given = {key: trees.sizes(tree, drawn) for key, tree in case["arguments"].items()}
    return given | {
        key: np.asarray(value["values"], value["dtype"])
        for key, value in case["values"].items()
    }


def _pad(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the case's padding beyond each row's length."""
    if case["padding"] is None:
        return given
    lengths = case["values"].get("lengths") or case["values"]["sequence_length"]
    inputs = given["inputs"]
    steps = np.stack(inputs) if isinstance(inputs, list) else inputs
    time_major = case["function"] != "stack_bidirectional_dynamic_rnn"
    facts = {"padding": case["padding"], "lengths": lengths, "time_major": time_major}
    facts["time"] = steps.shape[0 if time_major else 1]
    padded = make_tf1.pad(facts, steps)
    return given | {"inputs": list(padded) if isinstance(inputs, list) else padded}


class Graph:
    """One case's call as a graph: what it is given, its results and its variables."""

    def __init__(self, case: Case, draw: Draw):
        """Builds the cells and the call."""
        cells = _cells(case)
        self.start = _starts(case, cells, draw)
        self.given = _given(case, draw)
        self.fed = make_tf1._placeholders(self.given)
        started = self.start is not None
        self.constants = make_tf1._constants(self.start) if started else None
        self.results = tf1_loops.run(case, cells, self.fed, self.constants)
        self.variables = _parameters()

    def differentiate(self) -> None:
        """Adds the gradients, before anything runs."""
        named = {"params": self.variables, "given": self.fed}
        named |= {"start": self.constants} if self.start is not None else {}
        floats = make_tf1._floats(self.results)
        self.sources = make_tf1._floats(named)
        self.cotangents = make_tf1._placeholders(floats)
        self.grads = tf1.gradients(
            list(floats.values()),
            list(self.sources.values()),
            list(self.cotangents.values()),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def feed(self, given: dict[str, Any]) -> dict[Any, Any]:
        """What to feed for these arguments and values."""
        keys = [key for _, key in trees.leaves(self.fed)]
        return dict(zip(keys, [a for _, a in trees.leaves(given)], strict=True))


def run(case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One case's structures, and its arrays by path."""
    draw = Draw(case)
    with tf1.Graph().as_default(), tf1.Session() as session:
        graph = Graph(case, draw)
        graph.differentiate()
        params = trees.map_leaves(
            lambda _, v: draw.array(v.shape, v.dtype.name, 0.6), graph.variables
        )
        make_tf1._assign(session, graph.variables, params)
        given = _pad(case, graph.given)
        results = make_tf1._run(session, graph.results, graph.feed(given))
        cotangents = {
            path: draw.array(value.shape, value.dtype.name, 1.0)
            for path, value in make_tf1._floats(results).items()
        }
        feed = graph.feed(graph.given)
        feed |= {graph.cotangents[path]: value for path, value in cotangents.items()}
        grads = session.run(graph.grads, feed)
    named = {"params": params, "given": given, "results": results}
    named |= {"start": graph.start} if graph.start is not None else {}
    arrays = dict(trees.leaves(named))
    arrays |= {f"/w_results{path}": value for path, value in cotangents.items()}
    arrays |= {f"/grads{p}": g for p, g in zip(graph.sources, grads, strict=True)}
    return {key: trees.describe(tree) for key, tree in named.items()}, arrays


def raised(case: Case) -> str | None:
    """The name of the class that a refusal raises, or None if nothing is."""
    if case["function"].startswith("stack_"):
        return None
    with tf1.Graph().as_default(), tf1.Session() as session:
        try:
            graph = Graph(case, Draw(case))
            session.run(tf1.global_variables_initializer())
            leaves = [leaf for _, leaf in trees.leaves(graph.results)]
            session.run(leaves, graph.feed(graph.given))
        except Exception as exception:
            return type(exception).__name__
    return None


def check(arrays: dict[str, np.ndarray], case: Case) -> None:
    """Refuses what would make a useless golden."""
    for path, array in arrays.items():
        padded = case["padding"] is not None and path.startswith("/given/inputs")
        is_float = np.issubdtype(array.dtype, np.floating)
        if is_float and not padded and not np.isfinite(array).all():
            raise ValueError(f"{case['name']}{path} is not finite.")


def main() -> None:
    """Writes all files."""
    make_tf1.prepare()
    families: dict[str, dict[str, np.ndarray]] = {}
    lists = store.recorded("tf1_loops")
    for case in lists["cases"]:
        case["structures"], arrays = run(case)
        check(arrays, case)
        packed = families.setdefault(case["family"], {})
        packed[case["name"]] = store.pack(case["structures"], arrays)
    for family, arrays in families.items():
        np.savez_compressed(FOLDER / f"{family}.npz", **arrays)
    for case in lists["refusals"]:
        case["tf"] = raised(case)
    store.rewrite("tf1_loops", tf.__version__, **lists)


if __name__ == "__main__":
    main()
