"""Records `seq2seq/` from contrib's own sources: decoders, their helpers and losses.

It needs what `contrib_sources.py` needs. The rows of `seq2seq/cases.json` are the
cases. Objects with fields become dicts, except LSTM states: files name no class.
"""

from typing import Any

from .. import hand_cells
from . import graphs, tf1_loops
from .contrib_sources import contrib, gather_tree
from .graphs import Case, tf
from .library import TENSORFLOW

END, VOCAB, DEPTH, UNITS = 1, 6, 3, 4
tile_batch = contrib.beam_search_decoder.tile_batch


def build(case: Case, draw: graphs.Draw) -> tuple[Any, Any, Any]:
    """What a case is given, twice, and its call."""
    given = {"given": tf1_loops.drawn(case, draw)}
    if case["function"] == "decode":
        cell = hand_cells.build(TENSORFLOW, case["cells"])
        given["start"] = draw.state(cell)

    def call(fed):
        if case["function"] == "sequence_loss":
            options = case["options"] | functions(case, fed["given"])
            results = {"loss": contrib.loss.sequence_loss(**fed["given"], **options)}
        elif case["function"] == "gather_tree":
            results = {"beams": gather_tree(**fed["given"])}
        else:
            results = decode(case, cell, fed["given"], fed["start"])
        keys = below_attention if case["attention"] else graphs.without_scopes
        return {"results": results}, graphs.variables(keys, "params")

    return given, given, call


def below_attention(scopes: list[str]) -> list[str]:
    """The keys of a variable below the decoder and its attention."""
    scopes = scopes[scopes[0] == "decoder" :]
    return ["params", *scopes[scopes[0] == "attention_wrapper" :]]


def decode(case: Case, cell: Any, given: dict[str, Any], state: Any) -> Any:
    """The results of `dynamic_decode`."""
    options = case["helper_options"] | functions(case, given)
    table = options.pop("embedding", given.get("table"))
    width = options.get("beam_width", 1)
    if not case["helper"]:
        state = tile_batch(state, width)
    if case["attention"]:
        cell = attending(case, given, cell, width)
        zeros = cell.zero_state(case["batch"] * width, tf.as_dtype(case["dtype"]))
        state = zeros._replace(cell_state=state)
    layer = layer_of(case, given)
    if case["helper"]:
        helper = helper_of(case, given, table, options)
        decoder = contrib.basic_decoder.BasicDecoder(cell, helper, state, layer)
    else:
        options["output_layer"] = layer
        model = cell, table, given["start"], END, state
        decoder = contrib.beam_search_decoder.BeamSearchDecoder(*model, **options)
    found = contrib.decoder.dynamic_decode(decoder, **case["options"])
    return plain(dict(zip(("outputs", "state", "lengths"), found, strict=True)))


def attending(case: Case, given: dict[str, Any], cell: Any, width: int) -> Any:
    """The cell with the case's attention, whose memory has the rows of all beams."""
    facts, module = case["attention"], contrib.attention_wrapper
    lengths, dtype = given.get("memory_lengths"), tf.as_dtype(case["dtype"])
    mechanism = getattr(module, facts["mechanism"])(
        UNITS,
        tile_batch(given["memory"], width),
        memory_sequence_length=None if lengths is None else tile_batch(lengths, width),
        dtype=dtype,
        **facts["options"],
    )
    return module.AttentionWrapper(cell, mechanism, facts["layer"], dtype=dtype)


def functions(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The functions among the arguments, by the argument."""

    def squares(labels, logits):
        wanted = tf.one_hot(labels, VOCAB, dtype=logits.dtype)
        return tf.reduce_sum((logits - wanted) ** 2, axis=-1)

    named = {
        "lookup": lambda ids: tf.gather(given["table"], ids),
        "narrow": lambda outputs: outputs[:, :DEPTH],
        "squares": squares,
    }
    return {k: named[name] for k, name in case["functions"].items() if name in named}


def layer_of(case: Case, given: dict[str, Any]) -> Any:
    """The output layer, if any."""
    if "kernel" not in given:
        return None
    # No draw from these logits is in doubt.
    scale = 1e4 if case["functions"].get("layer") == "certain" else 1.0
    kernel, bias = given["kernel"], given["bias"]

    class Layer(contrib.basic_decoder.layers_base.Layer):
        def call(self, inputs):
            return (tf.tensordot(inputs, kernel, 1) + bias) * scale

        def compute_output_shape(self, shape):
            return tf.TensorShape(shape)[:-1].concatenate(kernel.shape[1])

    return Layer()


def helper_of(case: Case, given: dict[str, Any], table: Any, options: Any) -> Any:
    """The case's helper."""
    name = case["helper"]
    helper = getattr(contrib.helper, name)
    if name.endswith("TrainingHelper"):
        if table is not None:
            options["embedding"] = table
        if "auxiliary" in given:
            options["auxiliary_inputs"] = given["auxiliary"]
        return helper(given["inputs"], given["lengths"], **options)
    if name == "CustomHelper":
        return helper(*custom(given["start"], table))
    if name == "InferenceHelper":
        size = case["cells"]["kwargs"]["num_units"]
        ends = lambda x: x[:, 0] > 0.2
        facts = [size], case["dtype"], given["first"], ends
        return helper(lambda x: x, *facts, **options)
    return helper(table, given["start"], END, **options)


def custom(start: tf.Tensor, table: tf.Tensor) -> tuple[Any, Any, Any]:
    """Ids that depend on the time; rows end one after another; the state is halved."""

    def sample(time, outputs, state):
        return (tf.argmax(outputs, -1, tf.int32) + time) % VOCAB

    def next_inputs(time, outputs, state, sample_ids):
        half = tf.nest.map_structure(lambda x: x / 2, state)
        return start < time + 2, tf.gather(table, sample_ids), half

    return lambda: (start < 1, tf.gather(table, start)), sample, next_inputs


def plain(tree: Any) -> Any:
    """The tree with dicts for named tuples, and int32 for int64; no histories."""
    if hasattr(tree, "_fields") and type(tree).__name__ != "LSTMStateTuple":
        tree = tree._asdict()
        tree.pop("alignment_history", None)
    if isinstance(tree, dict):
        return {key: plain(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [plain(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tf.cast(tree, tf.int32) if tree.dtype == tf.int64 else tree


if __name__ == "__main__":
    graphs.record("seq2seq", "cases", build)
