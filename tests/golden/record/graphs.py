"""What the recorders of TensorFlow share: drawn arrays, graphs, gradients and files.

It needs `tensorflow-cpu` 2.21 and `tf_keras` 2.21, for the cells of `tf.compat.v1`.
Graphs have while loops of version 2. Two runs on one machine write the same bytes.
"""

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Its tanh is approximate.

import numpy as np
import tensorflow as tf

from .. import store, trees

tf1 = tf.compat.v1
warnings.simplefilter("ignore")
tf1.disable_eager_execution()
tf1.enable_control_flow_v2()
tf1.logging.set_verbosity(tf1.logging.FATAL)
Case = store.Case
PADDING = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
# What a variable's name says beyond its path in jaxrnn's nested dicts.
SCOPES = {"rnn", "hand", "decoder", "multi_rnn_cell", "basic_rnn_cell", "gru_cell"}
SCOPES |= {"bidirectional_rnn", "basic_lstm_cell", "lstm_cell"}


def is_float(array: Any) -> bool:
    """Whether an array or a tensor is floating-point."""
    return tf.as_dtype(array.dtype).is_floating


def is_packed(case: Case) -> bool:
    """Whether a case is one run of bytes, and its arrays have few digits."""
    return case["folder"] in ("tf1_loops", "seq2seq")


class Draw:
    """Random arrays of one case, the same in every run."""

    def __init__(self, case: Case):
        """Seeds the draws by the case's name."""
        self.case = case
        self.rng = np.random.default_rng(zlib.crc32(case["name"].encode()))

    def array(self, shape: Iterable[int], dtype: str, scale: float) -> np.ndarray:
        """Normal numbers, or small ones of an integer type."""
        if tf.as_dtype(dtype).is_integer:
            return self.rng.integers(0, 5, shape).astype(dtype)
        drawn = np.asarray(scale * self.rng.standard_normal(tuple(shape)))
        drawn = drawn.astype(tf.as_dtype(dtype).as_numpy_dtype)
        if not is_packed(self.case):
            return drawn
        steps = np.clip(np.round(drawn.astype(np.float64) * 64), -255, 255)
        return (steps / 64).astype(drawn.dtype)

    def sized(self, size: dict[str, Any], axes: list[int], scale: float) -> np.ndarray:
        """An array for a leaf of a tree of sizes."""
        axes = axes if size.get("batched", True) else []
        dtype = size.get("dtype", self.case["dtype"])
        return self.array([*axes, *size["shape"]], dtype, scale)

    def parameter(self, path: str, variable: tf.Variable) -> np.ndarray:
        """Normal numbers, or uniform ones of the case's range for this name."""
        limits = self.case.get("ranges", {}).get(path.rpartition("/")[2])
        if limits is None:
            return self.array(variable.shape, variable.dtype.name, 0.6)
        drawn = self.rng.uniform(*limits, tuple(variable.shape))
        return np.asarray(drawn).astype(variable.dtype.as_numpy_dtype)

    def state(self, cell: Any) -> Any:
        """A state to give, like the cell's zero state or as the case says."""
        case, batch = self.case, [self.case["batch"]]
        if case["state"] not in (None, "zero"):
            return trees.sizes(case["state"], lambda size: self.sized(size, batch, 0.5))
        zeros = cell.zero_state(case["batch"], tf.as_dtype(case["dtype"]))
        if case["state"] == "zero":
            return trees.map_leaves(lambda _, leaf: zeros_like(leaf), zeros)
        drawn = trees.map_leaves(
            lambda _, zero: self.array(zero.shape, case["dtype"], 0.5), zeros
        )
        types = {None: lambda state: state, "tuple": tuple, "list": list}
        return types[case["state_type"]](drawn)


def zeros_like(leaf: Any) -> np.ndarray:
    """Zeros for a zero state's leaf, which may be a Python integer."""
    if isinstance(leaf, int):
        return np.zeros((), np.int32)
    return np.zeros(leaf.shape, leaf.dtype.as_numpy_dtype)


def pad(case: Case, tree: Any, lengths: dict[str, Any], time_major: bool) -> Any:
    """`tree` with the case's padding beyond each row's length."""

    def leaf(_: str, array: np.ndarray) -> np.ndarray:
        steps = np.arange(array.shape[0 if time_major else 1])
        beyond = steps >= np.asarray(lengths["values"])[:, None]
        array = array.copy()
        array[beyond.T if time_major else beyond] = PADDING[case["padding"]]
        return array

    return trees.map_leaves(leaf, tree) if case["padding"] else tree


def placeholders(tree: Any) -> Any:
    """A placeholder for each array or tensor."""
    return trees.map_leaves(lambda _, x: tf1.placeholder(x.dtype, x.shape), tree)


def variables(path_of: Callable[[list[str]], list[str]], *tops: str) -> dict[str, Any]:
    """Nested dicts of the graph's variables, by the keys that `path_of` returns."""
    found: dict[str, Any] = {top: {} for top in tops}
    for variable in tf1.trainable_variables():
        node, scopes = found, variable.name.removesuffix(":0").split("/")
        *above, last = path_of(scopes)
        for part in above:
            node = node.setdefault(part, {})
        if last in node:
            raise ValueError(f"Two variables for {variable.name}.")
        node[last] = variable
    return found


def without_scopes(scopes: list[str]) -> list[str]:
    """The keys of a variable, without what cells and drivers add."""
    return ["params", *(part for part in scopes if part not in SCOPES)]


def feed(keys: Any, values: Any) -> dict[Any, Any]:
    """What to feed for two trees of one structure."""
    keys = [key for _, key in trees.leaves(keys)]
    return dict(zip(keys, [value for _, value in trees.leaves(values)], strict=True))


def floats(tree: Any) -> dict[str, Any]:
    """The floating-point leaves by path."""
    return {path: leaf for path, leaf in trees.leaves(tree) if is_float(leaf)}


def run(case: Case, build: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The structures of a case, and its arrays by path.

    `build(case, draw)` draws what is given, and returns it, the same with padding, and
    a function from its tensors to the results and the variables, all as dicts of trees.
    Gradients are those without padding. All is built before anything runs, because a
    while loop cannot be differentiated once it has run.
    """
    draw = Draw(case)
    with tf1.Graph().as_default(), tf1.Session() as session:
        with default(case["dtype"]):
            given, padded, call = build(case, draw)
            fed = placeholders(given)
            results, weights = call(fed)
        sources, ends = floats(weights | fed), floats(results)
        cotangents = {
            path: tf1.placeholder(x.dtype, x.shape) for path, x in ends.items()
        }
        slopes = tf1.gradients(
            list(ends.values()),
            list(sources.values()),
            list(cotangents.values()),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        params = trees.map_leaves(draw.parameter, weights)
        assigned = feed(weights, params).items()
        session.run([tf1.assign(variable, value) for variable, value in assigned])
        paths = dict(trees.leaves(results))
        found = session.run(list(paths.values()), feed(fed, padded))
        values = dict(zip(paths, map(np.asarray, found), strict=True))
        results = trees.map_leaves(lambda path, _: values[path], results)
        drawn = {
            path: draw.array(value.shape, value.dtype.name, 1.0)
            for path, value in floats(results).items()
        }
        clean = feed(fed, given) | {cotangents[path]: w for path, w in drawn.items()}
        grads = session.run(slopes, clean)
    named = params | padded | results
    if "start" in named:  # The last one of a packed case.
        named["start"] = named.pop("start")
    arrays = dict(trees.leaves(named))
    arrays |= {f"/w_{path[1:]}": value for path, value in drawn.items()}
    arrays |= {f"/grads{path}": g for path, g in zip(sources, grads, strict=True)}
    return {key: trees.describe(tree) for key, tree in named.items()}, arrays


def default(dtype: str) -> Any:
    """The scope of a case, whose dtype is the default of variables."""
    return tf1.variable_scope(tf1.get_variable_scope(), dtype=dtype)


def raised(make: Callable[[], Any], dtype: str = "float32") -> str | None:
    """The class that a call or its run raises; it returns results and what is fed."""
    with tf1.Graph().as_default(), tf1.Session() as session:
        try:
            with default(dtype):
                results, fed = make()
            session.run(tf1.global_variables_initializer())
            session.run([leaf for _, leaf in trees.leaves(results)], fed)
        except Exception as exception:
            return type(exception).__name__
    return None


def check(case: Case, arrays: dict[str, np.ndarray]) -> None:
    """Refuses what would make a useless golden; a beam that is none scores -inf."""
    inputs = ("/inputs", "/given/inputs") if case["padding"] else ()
    for path, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not path.startswith(inputs):
            allowed = case.get("helper", "") is None and np.isneginf(array)
            if not (np.isfinite(array) | allowed).all():
                raise ValueError(f"{case['name']}{path} is not finite.")


def stored(
    case: Case, structures: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays of a case as its file holds them, which `store.py` reads."""
    if is_packed(case):
        parts = [arrays[path].tobytes() for path, _ in store.layout(structures)]
        return {case["name"]: np.frombuffer(b"".join(parts), np.uint8)}
    plain = lambda a: a.view(np.uint16) if a.dtype.name == "bfloat16" else a
    return {f"{case['name']}{path}": plain(array) for path, array in arrays.items()}


def record(
    folder: str,
    file: str,
    build: Callable[..., Any],
    refused: Callable[[Case], str | None] | None = None,
) -> None:
    """Runs all rows of a file of cases, and writes it and its arrays."""
    path = store.HERE / folder / f"{file}.json"
    rows, families = json.loads(path.read_text()), {}
    for kind, defaults in rows["defaults"].items():
        for row in rows[kind]:
            case = defaults | row
            if kind != "cases":
                row["tf"] = refused(case)
                continue
            row["structures"], arrays = run(case, build)
            check(case, arrays)
            made = stored(case, row["structures"], arrays)
            families.setdefault(case["family"], {}).update(made)
    for family, arrays in families.items():
        np.savez_compressed(store.HERE / folder / f"{family}.npz", **arrays)
    listed = lambda part: "[\n" + ",\n".join(map(json.dumps, part)) + "\n]"
    texts = {
        key: listed(part) if isinstance(part, list) else json.dumps(part)
        for key, part in (rows | {"tensorflow": tf.__version__}).items()
    }
    lines = ",\n".join(f'"{key}": {text}' for key, text in texts.items())
    path.write_text(f"{{\n{lines}\n}}\n")
