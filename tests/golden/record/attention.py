"""Records `attention.npz` from contrib's own sources: attention over `dynamic_rnn`.

It needs what `contrib_sources.py` needs; the rows of `attention.json` are the cases:

    python -m tests.golden.record.attention WHEEL

The keys are a case's name and then

- `params/...`, `inputs`, `memory/...`, `cell_state/...`: what is given;
- `outputs`, `state/...`: what is computed;
- `w/...`: cotangents, and `grads/...`, the gradients of the sum of their products with
  outputs and last states.
"""

import json
from typing import Any

import numpy as np

from .. import store
from . import graphs
from .contrib_sources import contrib
from .graphs import Case, tf, tf1

BATCH, TIME, DEPTH, UNITS = 3, 4, 3, 4
# Steps and depth of the first memory and of the second, and their lengths.
MEMORIES, LENGTHS = ((5, 6), (7, 2)), ([5, 1, 3], [2, 7, 4])


def swap_signs(keys, values):
    """Keys and values of one's own."""
    return -keys, tf.concat([values, -values], axis=-1)


def sum_of_halves(inputs, attention):
    """Inputs of a cell of one's own."""
    return tf.concat([inputs * 0.5, tf.tanh(attention)], axis=-1)


def sharpened(mechanism, cell_output, attention_state, attention_layer):
    """An attention of one's own."""
    alignments, state = mechanism(cell_output, state=attention_state)
    context = tf.einsum("bt,btd->bd", alignments**2, mechanism.values)
    return context, alignments, state


OWN = {f.__name__: f for f in (swap_signs, sum_of_halves, sharpened)}
OWN["hardmax"] = contrib.attention_wrapper.hardmax


def options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Options, with functions for their names; a mode is only a name."""
    return {
        key: OWN.get(value, value) if isinstance(value, str) else value
        for key, value in options.items()
    }


def attending(case: Case, given: dict[str, Any], dtype: tf.DType) -> Any:
    """The cell with its attention, which holds the memories."""
    mechanisms = [
        getattr(contrib.attention_wrapper, kind)(
            UNITS,
            given[f"memory/{i}"],
            memory_sequence_length=LENGTHS[i] if case["memory_lengths"] else None,
            dtype=dtype,
            **options_of(options),
        )
        for i, (kind, options) in enumerate(case["mechanisms"])
    ]
    kind, units = case["cell"]
    cell, state = getattr(tf1.nn.rnn_cell, kind)(units, dtype=dtype), None
    if case["given_cell_state"]:
        parts = [given[f"cell_state/{name}"] for name in "ch"]
        state = tf1.nn.rnn_cell.LSTMStateTuple(*parts)
    options = {"initial_cell_state": state, "dtype": dtype}
    listed = mechanisms if case["several"] else mechanisms[0]
    wrapper = contrib.attention_wrapper.AttentionWrapper
    return wrapper(cell, listed, **options, **options_of(case["wrapper"]))


def parts_of(case: Case, state: Any) -> dict[str, tf.Tensor]:
    """The parts of the last state, by name."""
    cells = getattr(state.cell_state, "_asdict", lambda: {"h": state.cell_state})()
    parts = {"state/time": state.time, "state/attention": state.attention}
    parts |= {f"state/{name}": part for name, part in cells.items()}
    for i in range(len(case["mechanisms"])):
        pick = lambda x, i=i: x[i] if case["several"] else x
        parts[f"state/alignments/{i}"] = pick(state.alignments)
        if case["wrapper"].get("alignment_history"):
            history = pick(state.alignment_history).stack()
            history.set_shape((TIME, BATCH, MEMORIES[i][0]))
            parts[f"state/history/{i}"] = history
    return parts


def build(case: Case, names: dict[str, list[str]], draw: graphs.Draw) -> Any:
    """What a case is given, twice, and its call; lists whose `names` are filled in."""
    shapes = {"inputs": (BATCH, TIME, DEPTH)}
    for i in range(len(case["mechanisms"])):
        shapes[f"memory/{i}"] = (BATCH, *MEMORIES[i])
    if case["given_cell_state"]:
        shapes |= {f"cell_state/{name}": (BATCH, UNITS) for name in "ch"}
    drawn = [draw.array(shape, case["dtype"], 1.0) for shape in shapes.values()]
    names["given"], dtype = list(shapes), tf.as_dtype(case["dtype"])

    def call(fed):
        given = dict(zip(shapes, fed["given"], strict=True))
        cell = attending(case, given, dtype)
        options = {"initial_state": cell.zero_state(BATCH, dtype), "dtype": dtype}
        lengths = case["lengths"] and tf.constant(case["lengths"])
        found = tf1.nn.dynamic_rnn(cell, given["inputs"], lengths, **options)
        results = {"outputs": found[0], **parts_of(case, found[1])}
        weights = tf1.trainable_variables()
        names["results"] = list(results)
        names["params"] = [path_of(variable) for variable in weights]
        return {"results": list(results.values())}, {"params": weights}

    return {"given": drawn}, {"given": drawn}, call


def path_of(variable: tf.Variable) -> str:
    """The name of a variable below the driver and its attention."""
    name = variable.name.removesuffix(":0").removeprefix("rnn/attention_wrapper/")
    return "params/" + name.removeprefix("rnn/")


def run(case: Case) -> dict[str, np.ndarray]:
    """All arrays of a case, under its name."""
    names: dict[str, list[str]] = {}
    _, arrays = graphs.run(case, lambda _, draw: build(case, names, draw))
    made = {}
    for path, array in arrays.items():
        *kind, group, index = path[1:].split("/")
        kind = ["w"] if group == "w_results" else kind
        name = names[group.removeprefix("w_")][int(index)]
        made["/".join([case["name"], *kind, name])] = array
    return made


if __name__ == "__main__":
    arrays = {}
    for row in json.loads((store.HERE / "attention.json").read_text()):
        arrays |= run({"folder": "", "padding": None} | row)
    np.savez_compressed(store.HERE / "attention.npz", **arrays)
