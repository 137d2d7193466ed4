"""Writes the goldens of `tests/golden/tf1` from live TensorFlow.

It needs TensorFlow 2.21 with `tf_keras` 2.21, for the cells of `tf.compat.v1`, and
runs in graph mode with while loops of version 2:

    python tests/golden/generate/make_tf1.py

The cases are those of `cases.json`: to add one, add a row with its keys that are not
the defaults. Two runs on one machine write the same bytes. Per family there is one
`<family>.npz` without pickles. Its keys are a case's name and then

- `params/...`, `inputs/...`, `initial_state/...`: what the driver is given, for two
  directions `params_fw/...`, `params_bw/...` and so on;
- `outputs/...`, `state/...`: what it gives;
- `w_outputs/...`, `w_state/...`: cotangents of the floating-point leaves;
- `grads/params/...` and so on: gradients of `sum(outputs * w_outputs) +
  sum(state * w_state)` for all that is floating-point.

`bfloat16` arrays are kept as `uint16`. `cases.json` gets the structures of these trees,
and the class that each bad call raises.
"""

import os
import pathlib
import sys
import warnings
import zlib
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Its tanh is approximate.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
import tensorflow as tf
from golden import store, trees
from golden.generate import tf1_cells, tf1_errors

tf1 = tf.compat.v1
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "tf1"
_PADDING = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
# What a variable's name says beyond its path in jaxrnn's nested dicts.
_SCOPES = {"rnn", "bidirectional_rnn", "fw", "bw", "hand", "multi_rnn_cell"}
_SCOPES |= {"basic_rnn_cell", "basic_lstm_cell", "lstm_cell", "gru_cell"}


def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(tf.as_dtype(name).as_numpy_dtype)


def _is_float(array: Any) -> bool:
    return tf.as_dtype(array.dtype).is_floating


class Draw:
    """Random arrays of one case, the same in every run."""

    def __init__(self, case: dict[str, Any]):
        """Seeds the draws by the case's name."""
        self._case = case
        self._rng = np.random.default_rng(zlib.crc32(case["name"].encode()))

    def array(self, shape: Any, dtype: str, scale: float) -> np.ndarray:
        """Normal numbers, or small ones of an integer type."""
        if tf.as_dtype(dtype).is_integer:
            return self._rng.integers(0, 5, shape).astype(dtype)
        drawn = scale * self._rng.standard_normal(tuple(shape))
        return np.asarray(drawn).astype(_numpy_dtype(dtype))

    def inputs(self) -> Any:
        """The driver's or the cell's inputs, with finite padding."""
        case = self._case
        axes = (case["batch"], case["time"])
        axes = axes[::-1] if case["time_major"] else axes
        axes = axes if case["function"] != "cell" else axes[:1]

        def leaf(size):
            shape = (*axes, *size["shape"])
            return self.array(shape, size.get("dtype", case["dtype"]), 1.0)

        return trees.sizes(case["inputs"], leaf)

    def state(self, cell: Any) -> Any:
        """A state to give, like the cell's zero state or as the case says."""
        case = self._case

        def sized(size):
            batch = [case["batch"]] if size.get("batched", True) else []
            shape = batch + size["shape"]
            return self.array(shape, size.get("dtype", case["dtype"]), 0.5)

        if case["state"] not in (None, "zero"):
            return trees.sizes(case["state"], sized)
        zeros = cell.zero_state(case["batch"], tf.as_dtype(case["dtype"]))
        if case["state"] == "zero":
            return trees.map_leaves(lambda _, zero: _zeros(zero), zeros)
        drawn = trees.map_leaves(
            lambda _, zero: self.array(zero.shape, case["dtype"], 0.5), zeros
        )
        if case["state_type"] is not None:
            drawn = {"tuple": tuple, "list": list}[case["state_type"]](drawn)
        return drawn


def _zeros(leaf: Any) -> np.ndarray:
    """Shape and dtype of a zero state's leaf, which may be a Python integer."""
    if isinstance(leaf, int):
        return np.zeros((), np.int32)
    return np.zeros(leaf.shape, leaf.dtype.as_numpy_dtype)


def pad(case: dict[str, Any], inputs: Any) -> Any:
    """`inputs` with the case's padding beyond each row's length."""
    if case["padding"] is None:
        return inputs
    steps = np.arange(case["time"])
    dead = steps[None, :] >= np.asarray(case["lengths"]["values"])[:, None]
    dead = dead.T if case["time_major"] else dead

    def leaf(_, array):
        array = array.copy()
        array[dead] = _PADDING[case["padding"]]
        return array

    return trees.map_leaves(leaf, inputs)


def _lengths(case: dict[str, Any]) -> tf.Tensor | None:
    lengths = case["tf_lengths"] or case["lengths"]
    if lengths is None:
        return None
    return tf.constant(lengths["values"], lengths["dtype"])


def _constants(tree: Any) -> Any:
    return trees.map_leaves(lambda _, array: tf.constant(array), tree)


def _placeholders(tree: Any) -> Any:
    return trees.map_leaves(lambda _, a: tf1.placeholder(a.dtype, a.shape), tree)


def _one_way(case, cells, inputs, states):
    (cell,), (state,) = cells, states
    if case["function"] == "cell":
        return cell(inputs, state)
    return tf1.nn.dynamic_rnn(
        cell,
        inputs,
        sequence_length=_lengths(case),
        initial_state=state,
        dtype=case["dtype"] if case["pass_dtype"] else None,
        time_major=case["time_major"],
    )


def _two_ways(case, cells, inputs, states):
    if case["by_parts"]:
        return _two_by_one(case, cells, inputs, states)
    return tf1.nn.bidirectional_dynamic_rnn(
        *cells,
        inputs,
        sequence_length=_lengths(case),
        initial_state_fw=states[0],
        initial_state_bw=states[1],
        dtype=case["dtype"] if case["pass_dtype"] else None,
        time_major=case["time_major"],
    )


def _two_by_one(case, cells, inputs, states):
    """Two directions with each leaf reversed for itself."""
    lengths = _lengths(case)

    def leaf(_, array):
        if lengths is None:
            return tf.reverse(array, [1])
        return tf.reverse_sequence(array, lengths, seq_axis=1, batch_axis=0)

    outputs, finals = [], []
    given = (inputs, trees.map_leaves(leaf, inputs))
    for scope, cell, x, state in zip(("fw", "bw"), cells, given, states, strict=True):
        with tf1.variable_scope(scope):
            output, final = tf1.nn.dynamic_rnn(
                cell, x, lengths, initial_state=state, dtype=case["dtype"]
            )
        outputs.append(output)
        finals.append(final)
    outputs[1] = trees.map_leaves(leaf, outputs[1])
    return tuple(outputs), tuple(finals)


def _build(case: dict[str, Any], suffixes: list[str]) -> list[Any]:
    cells = []
    for suffix in suffixes:
        with tf1.variable_scope(suffix.lstrip("_") or tf1.get_variable_scope()):
            spec = case["cell_bw" if suffix == "_bw" else "cell"]
            cells.append(tf1_cells.build(spec, case["dtype"]))
    return cells


def _parameter_path(variable: tf.Variable) -> tuple[str, list[str]]:
    """The direction (`""`, `"fw"` or `"bw"`) of a variable and its path within."""
    parts = variable.name.removesuffix(":0").split("/")
    direction = next((part for part in parts if part in ("fw", "bw")), "")
    return direction, [part for part in parts if part not in _SCOPES]


def _parameters(suffixes: list[str]) -> dict[str, Any]:
    """Nested dicts of the graph's variables, per direction."""
    params: dict[str, Any] = {f"params{suffix}": {} for suffix in suffixes}
    for variable in tf1.trainable_variables():
        direction, path = _parameter_path(variable)
        node = params["params" + (f"_{direction}" if direction else "")]
        for part in path[:-1]:
            node = node.setdefault(part, {})
        if path[-1] in node:
            raise ValueError(f"Two variables for {path}.")
        node[path[-1]] = variable
    return params


def _run(session: tf1.Session, tree: Any, feed: dict[Any, Any]) -> Any:
    """The values of a tree of tensors."""
    paths = dict(trees.leaves(tree))
    values = dict(zip(paths, session.run(list(paths.values()), feed), strict=True))
    return trees.map_leaves(lambda path, _: np.asarray(values[path]), tree)


def _floats(tree: Any) -> dict[str, Any]:
    return {path: leaf for path, leaf in trees.leaves(tree) if _is_float(leaf)}


class Graph:
    """One case's call as a graph: its arguments, results and gradients.

    A while loop can no longer be differentiated once it has run, so all is built before
    anything runs, with placeholders for what is not known before.
    """

    def __init__(self, case: dict[str, Any], draw: Draw):
        """Builds the cells, the call and its gradients."""
        two = case["function"] == "bidirectional_dynamic_rnn"
        suffixes = ["_fw", "_bw"] if two else [""]
        cells = _build(case, suffixes)
        self.clean = draw.inputs()
        self.states = {
            f"initial_state{suffix}": draw.state(cell)
            for suffix, cell in zip(suffixes, cells, strict=True)
            if case["initial_state"] in ("given", suffix.lstrip("_"))
        }
        self.inputs = _placeholders(self.clean)
        states = {key: _constants(state) for key, state in self.states.items()}
        call = _two_ways if two else _one_way
        given = [states.get(f"initial_state{suffix}") for suffix in suffixes]
        outputs, final = call(case, cells, self.inputs, given)
        self.results = {"outputs": outputs, "state": final}
        self.variables = _parameters(suffixes)
        self.sources = _floats({**self.variables, "inputs": self.inputs, **states})
        results = _floats(self.results)
        self.cotangents = _placeholders(results)
        self.grads = tf1.gradients(
            list(results.values()),
            list(self.sources.values()),
            # Not in the order of its values: dicts are rebuilt in key order.
            [self.cotangents[path] for path in results],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def feed(self, inputs: Any) -> dict[Any, Any]:
        """What to feed for these inputs."""
        keys = [key for _, key in trees.leaves(self.inputs)]
        return dict(zip(keys, [a for _, a in trees.leaves(inputs)], strict=True))


def run(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One case's structures and its arrays by path."""
    draw = Draw(case)
    with tf1.Graph().as_default(), tf1.Session() as session:
        graph = Graph(case, draw)
        params = trees.map_leaves(
            lambda _, v: draw.array(v.shape, v.dtype.name, 0.6), graph.variables
        )
        inputs = pad(case, graph.clean)
        _assign(session, graph.variables, params)
        results = _run(session, graph.results, graph.feed(inputs))
        cotangents = {
            path: draw.array(value.shape, value.dtype.name, 1.0)
            for path, value in _floats(results).items()
        }
        feed = graph.feed(graph.clean)
        feed |= {graph.cotangents[path]: value for path, value in cotangents.items()}
        grads = session.run(graph.grads, feed)
    named = {**params, "inputs": inputs, **graph.states, **results}
    arrays = dict(trees.leaves(named))
    arrays |= {f"/w_{path[1:]}": value for path, value in cotangents.items()}
    arrays |= {f"/grads{p}": g for p, g in zip(graph.sources, grads, strict=True)}
    structures = {key: trees.describe(tree) for key, tree in named.items()}
    return structures, {
        f"{case['name']}{path}": _plain(a) for path, a in arrays.items()
    }


def _assign(session: tf1.Session, variables: Any, values: Any) -> None:
    pairs = zip(trees.leaves(variables), trees.leaves(values), strict=True)
    session.run([tf1.assign(variable, value) for (_, variable), (_, value) in pairs])


def _plain(array: np.ndarray) -> np.ndarray:
    """`array` in a type that a file without pickles holds."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def check(arrays: dict[str, np.ndarray], case: dict[str, Any]) -> None:
    """Refuses what would make a useless golden."""
    for path, array in arrays.items():
        padded = case["padding"] is not None and "/inputs" in path
        is_float = np.issubdtype(array.dtype, np.floating)
        if is_float and not (padded and "/grads" not in path):
            if not np.isfinite(array).all():
                raise ValueError(f"{path} is not finite.")


def prepare() -> None:
    """Sets up TensorFlow: graph mode, quiet, with the loops of the goldens."""
    warnings.simplefilter("ignore")
    tf1.disable_eager_execution()
    tf1.logging.set_verbosity(tf1.logging.ERROR)
    if not tf1.control_flow_v2_enabled():
        raise RuntimeError("The goldens need while loops of version 2.")


def main() -> None:
    """Writes all files."""
    prepare()
    families: dict[str, dict[str, np.ndarray]] = {}
    lists = store.recorded("tf1")
    for case in lists["cases"]:
        case["structures"], arrays = run(case)
        check(arrays, case)
        families.setdefault(case["family"], {}).update(arrays)
    for family, arrays in families.items():
        np.savez_compressed(FOLDER / f"{family}.npz", **arrays)
    for error in lists["errors"]:
        error["tf"] = tf1_errors.raised(error)
    store.rewrite("tf1", tf.__version__, **lists)


if __name__ == "__main__":
    main()
