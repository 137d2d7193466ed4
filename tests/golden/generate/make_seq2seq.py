"""Writes the goldens of `tests/golden/seq2seq` from TensorFlow's contrib.

It needs what `make_tf1.py` needs, and the sources of contrib (`contrib_sources.py`):

    python tests/golden/generate/make_seq2seq.py --contrib .../tensorflow/contrib

A case has the arrays of `make_tf1_loops.py`, stored as `loop_store.py` describes.
Objects with fields become dicts, except LSTM states, so that the files name no class.
"""

import argparse
import json
import os
import pathlib
import sys
import warnings
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Its tanh is approximate.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
from golden import loop_store, seq2seq_specs
from golden.generate import contrib_sources, make_tf1, make_tf1_loops, tf1_cells

tf, tf1 = make_tf1.tf, make_tf1.tf1
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "seq2seq"
Case = dict[str, Any]


def attending(case: Case, given: dict[str, Any], contrib: Any, cell: Any) -> Any:
    """The cell with the case's attention, whose memory has the rows of all beams."""
    facts, module = case["attention"], contrib.attention_wrapper
    tile = contrib.beam_search_decoder.tile_batch
    width = case["helper_options"].get("beam_width", 1)
    lengths = given.get("memory_lengths")
    mechanism = getattr(module, facts["mechanism"])(
        seq2seq_specs.UNITS,
        tile(given["memory"], width),
        memory_sequence_length=None if lengths is None else tile(lengths, width),
        dtype=tf.as_dtype(case["dtype"]),
        **facts["options"],
    )
    return module.AttentionWrapper(
        cell, mechanism, facts["layer"], dtype=tf.as_dtype(case["dtype"])
    )


def squares(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """A loss that is no cross-entropy."""
    wanted = tf.one_hot(labels, seq2seq_specs.VOCAB, dtype=logits.dtype)
    return tf.reduce_sum((logits - wanted) ** 2, axis=-1)


def functions(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The functions among the arguments, by the argument."""
    named = {
        "lookup": lambda ids: tf.gather(given["table"], ids),
        "narrow": lambda outputs: outputs[:, : seq2seq_specs.DEPTH],
        "squares": squares,
    }
    return {k: named[name] for k, name in case["functions"].items() if name in named}


class Graph:
    """One case's call as a graph: what it is given, its results and its variables."""

    contrib: Any = None

    def __init__(self, case: Case, draw: Any):
        """Builds the cell and the call."""
        self.case = case
        self.given = make_tf1_loops._given(case, draw)
        self.fed = make_tf1._placeholders(self.given)
        self.start = self.constants = None
        run = {"sequence_loss": self._loss, "gather_tree": self._tree}
        self.results = run.get(case["function"], lambda: self._decode(draw))()
        attends = case["attention"] is not None
        self.variables = named() if attends else make_tf1_loops._parameters()

    differentiate = make_tf1_loops.Graph.differentiate
    feed = make_tf1_loops.Graph.feed

    def _loss(self) -> Any:
        options = {**self.case["options"], **functions(self.case, self.fed)}
        return {"loss": self.contrib.loss.sequence_loss(**self.fed, **options)}

    def _tree(self) -> Any:
        return {"beams": contrib_sources.gather_tree(**self.fed)}

    def _decode(self, draw: Any) -> Any:
        cell = tf1_cells.build(self.case["cells"], self.case["dtype"])
        self.start = draw.state(cell)
        self.constants = state = make_tf1._constants(self.start)
        if not self.case["helper"]:
            tile = self.contrib.beam_search_decoder.tile_batch
            state = tile(state, self._options()["beam_width"])
        if self.case["attention"]:
            rows = tf.nest.flatten(state)[0].shape[0]
            cell = attending(self.case, self.fed, self.contrib, cell)
            zeros = cell.zero_state(rows, tf.as_dtype(self.case["dtype"]))
            state = zeros._replace(cell_state=state)
        make = self._basic if self.case["helper"] else self._beam
        outputs, state, lengths = self.contrib.decoder.dynamic_decode(
            make(cell, state), **self.case["options"]
        )
        results = {"outputs": outputs, "state": state, "lengths": lengths}
        return plain(results)

    def _basic(self, cell: Any, state: Any) -> Any:
        make = self.contrib.basic_decoder.BasicDecoder
        return make(cell, self._helper(), state, self._layer())

    def _beam(self, cell: Any, state: Any) -> Any:
        return self.contrib.beam_search_decoder.BeamSearchDecoder(
            cell,
            self._embedding(),
            self.fed["start"],
            seq2seq_specs.END,
            state,
            output_layer=self._layer(),
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        found = {**self.case["helper_options"], **functions(self.case, self.fed)}
        return {k: value for k, value in found.items() if k != "embedding"}

    def _embedding(self) -> Any:
        return functions(self.case, self.fed).get("embedding", self.fed["table"])

    def _layer(self) -> Any:
        if "kernel" not in self.fed:
            return None
        # No draw from these logits is in doubt.
        scale = 1e4 if self.case["functions"].get("layer") == "certain" else 1.0
        kernel, bias = self.fed["kernel"], self.fed["bias"]

        class Layer(self.contrib.basic_decoder.layers_base.Layer):
            def call(self, inputs):
                return (tf.tensordot(inputs, kernel, 1) + bias) * scale

            def compute_output_shape(self, shape):
                return tf.TensorShape(shape)[:-1].concatenate(kernel.shape[1])

        return Layer()

    def _helper(self) -> Any:
        helper, fed = getattr(self.contrib.helper, self.case["helper"]), self.fed
        options, name = self._options(), self.case["helper"]
        if name.endswith("TrainingHelper"):
            return helper(fed["inputs"], fed["lengths"], **self._more(options))
        if name == "CustomHelper":
            return helper(*_custom(fed))
        if name == "InferenceHelper":
            functions = (lambda x: x), (lambda x: x[:, 0] > 0.2)
            size = self.case["cells"]["kwargs"]["num_units"]
            facts = [size], self.case["dtype"], fed["first"]
            return helper(functions[0], *facts, functions[1], **options)
        return helper(self._embedding(), fed["start"], seq2seq_specs.END, **options)

    def _more(self, options: dict[str, Any]) -> dict[str, Any]:
        if "table" in self.fed:
            options["embedding"] = self._embedding()
        if "auxiliary" in self.fed:
            options["auxiliary_inputs"] = self.fed["auxiliary"]
        return options


def named() -> dict[str, Any]:
    """Nested dicts of the graph's variables, below the decoder's and its cell's."""
    params: dict[str, Any] = {}
    for variable in tf1.trainable_variables():
        name = variable.name.removesuffix(":0").removeprefix("decoder/")
        *above, last = name.removeprefix("attention_wrapper/").split("/")
        node = params
        for part in above:
            node = node.setdefault(part, {})
        node[last] = variable
    return params


def _custom(fed: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Ids that depend on the time; rows end one after another; the state is halved."""
    start, table = fed["start"], fed["table"]

    def initialize():
        return start < 1, tf.gather(table, start)

    def sample(time, outputs, state):
        del state
        return (tf.argmax(outputs, -1, tf.int32) + time) % seq2seq_specs.VOCAB

    def next_inputs(time, outputs, state, sample_ids):
        del outputs
        half = tf.nest.map_structure(lambda x: x / 2, state)
        return start < time + 2, tf.gather(table, sample_ids), half

    return initialize, sample, next_inputs


def plain(tree: Any) -> Any:
    """The tree with dicts for named tuples, and int32 for int64; no histories."""
    if hasattr(tree, "_fields") and type(tree).__name__ != "LSTMStateTuple":
        tree = dict(zip(tree._fields, tree, strict=True))
        tree.pop("alignment_history", None)
    if isinstance(tree, dict):
        return {key: plain(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [plain(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tf.cast(tree, tf.int32) if tree.dtype == tf.int64 else tree


def check(arrays: dict[str, np.ndarray], case: Case) -> None:
    """Refuses what would make a useless golden; a beam that is none scores -inf."""
    for path, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating):
            allowed = np.isneginf(array) if not case["helper"] else False
            if not (np.isfinite(array) | allowed).all():
                raise ValueError(f"{case['name']}{path} is not finite.")


def main() -> None:
    """Writes all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrib", type=pathlib.Path, required=True)
    warnings.simplefilter("ignore")
    tf1.disable_eager_execution()
    tf1.logging.set_verbosity(tf1.logging.FATAL)
    Graph.contrib = contrib_sources.load(parser.parse_args().contrib)
    FOLDER.mkdir(exist_ok=True)
    families: dict[str, dict[str, np.ndarray]] = {}
    cases = {}
    for case in seq2seq_specs.CASES:
        structures, arrays = make_tf1_loops.run(case, Graph)
        check(arrays, case)
        stored = families.setdefault(case["family"], {})
        stored[case["name"]] = loop_store.pack(structures, arrays)
        cases[case["name"]] = {"mark": loop_store.mark(case), "structures": structures}
    for family, arrays in families.items():
        np.savez_compressed(FOLDER / f"{family}.npz", **arrays)
    rows = ",\n".join(f'"{name}": {json.dumps(case)}' for name, case in cases.items())
    found = f'{{\n"tensorflow": "{tf.__version__}",\n"cases": {{\n{rows}\n}}\n}}\n'
    (FOLDER / "cases.json").write_text(found)


if __name__ == "__main__":
    main()
