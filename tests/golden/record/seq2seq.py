"""Records `seq2seq/` from contrib's own sources: decoders, their helpers and losses.

It needs what `contrib_sources.py` needs; rows of `seq2seq/cases.json` are the cases:

    python -m tests.golden.record.seq2seq WHEEL

Objects with fields become dicts, except LSTM states, so that files name no class.
"""

from typing import Any

from .. import hand_cells, hand_decoders, trees
from ..hand_decoders import END, UNITS
from . import graphs, tf1_loops
from .contrib_sources import contrib, gather_tree
from .graphs import Case, tf
from .library import TENSORFLOW

tile_batch = contrib.beam_search_decoder.tile_batch


def build(case: Case, draw: graphs.Draw) -> tuple[Any, Any, Any]:
    """What a case is given, twice, and its call."""
    given = {"given": tf1_loops.drawn(case, draw)}
    if case["function"] == "decode":
        cell = hand_cells.build(TENSORFLOW, case["cells"])
        given["start"] = draw.state(cell)

    def call(fed):
        if case["function"] == "sequence_loss":
            functions = hand_decoders.functions(TENSORFLOW, case, fed["given"])
            options = case["options"] | functions
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
    options, embedding = hand_decoders.options(TENSORFLOW, case, given)
    width = options.get("beam_width", 1)
    if not case["helper"]:
        state = tile_batch(state, width)
    if case["attention"]:
        cell = attending(case, given, cell, width)
        zeros = cell.zero_state(case["batch"] * width, tf.as_dtype(case["dtype"]))
        state = zeros._replace(cell_state=state)
    layer = layer_of(case, given)
    if case["helper"]:
        helper = hand_decoders.helper(TENSORFLOW, case, given)
        decoder = contrib.basic_decoder.BasicDecoder(cell, helper, state, layer)
    else:
        options["output_layer"] = layer
        model = cell, embedding, given["start"], END, state
        decoder = contrib.beam_search_decoder.BeamSearchDecoder(*model, **options)
    found = contrib.decoder.dynamic_decode(decoder, **case["options"])
    results = dict(zip(("outputs", "state", "lengths"), found, strict=True))
    short = lambda _, x: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x
    return trees.map_leaves(short, hand_decoders.plain(results))


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


if __name__ == "__main__":
    graphs.record("seq2seq", "cases", build)
