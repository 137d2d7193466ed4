"""Records `convert/onnx.npz` from ONNX Runtime and ONNX's own evaluator.

It needs `onnx` 1.23 and `onnxruntime` 1.31:

    python -m tests.golden.record.convert_onnx

Two runs on one machine write the same arrays. A case is one or two nodes, one on the
other. The keys are a case's name and then

- `<node>/W`, `R` and, where there are such, `B` and `P`, in float64;
- `<node>/attributes`: the others, as JSON;
- `<node>/h0`, `c0`: initial states; `x`: what the lowest node is given, time first;
- `outputs`, `<node>/h`, `<node>/c`: what ONNX Runtime gives, in float32;
- `reference/...`: the same of ONNX's evaluator, in float64. It knows none but the usual
  activations; cases with others lack it.

Where both can run they have to agree.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

TIME, BATCH, DEPTH, UNITS = 4, 2, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BOTH = {"direction": "bidirectional"}
AFTER = {"linear_before_reset": 1}
CASES = {
    "lstm": ("LSTM", "B", [{}]),
    "lstm_no_bias": ("LSTM", "", [{}]),
    "lstm_peepholes": ("LSTM", "BP", [{}, {"direction": "forward"}]),
    "lstm_softsign": (
        "LSTM",
        "B",
        [{"activations": ["Sigmoid", "Softsign", "Softsign"]}],
    ),
    "lstm_both": ("LSTM", "BP", [BOTH, BOTH]),
    "gru": ("GRU", "B", [{"linear_before_reset": 0}, {}]),
    "gru_no_bias": ("GRU", "", [{}]),
    "gru_after": ("GRU", "B", [AFTER]),
    "gru_after_relu": ("GRU", "B", [AFTER | {"activations": ["Sigmoid", "Relu"]}]),
    "gru_both": ("GRU", "B", [BOTH]),
    "gru_after_both": ("GRU", "B", [BOTH | AFTER, BOTH | AFTER]),
    "rnn": ("RNN", "B", [{}, {}]),
    "rnn_relu": ("RNN", "B", [{"activations": ["Relu"]}]),
    "rnn_both": ("RNN", "B", [BOTH | {"activations": ["Tanh", "Relu"]}]),
}


def model(kind, given, attributes, dtype):
    """A graph of one node with all that it is given as its inputs."""
    order = ["x", "W", "R", "B", "", "h0", "c0", "P"]
    inputs = [name if name in given else "" for name in order]
    if kind != "LSTM":
        inputs = inputs[:6]
    outputs = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, inputs, outputs, hidden_size=UNITS, **attributes)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [
        [helper.make_tensor_value_info(name, element, shape) for name, shape in shapes]
        for shapes in (
            [(name, array.shape) for name, array in given.items()],
            [(name, [None] * (4 if name == "y" else 3)) for name in outputs],
        )
    ]
    graph = helper.make_graph([node], kind, *values)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10
    )
    onnx.checker.check_model(made)
    return made


def by_runtime(kind, given, attributes):
    """Outputs of ONNX Runtime, which has these operators in float32."""
    given = {name: array.astype(np.float32) for name, array in given.items()}
    made = model(kind, given, attributes, np.float32).SerializeToString()
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def by_reference(kind, given, attributes):
    """Outputs of ONNX's evaluator, in float64."""
    return ReferenceEvaluator(model(kind, given, attributes, np.float64)).run(
        None, given
    )


def through(run, kind, x, nodes):
    """`outputs`, and `<node>/h`, `<node>/c`, of nodes one on the other."""
    made = {}
    for i, (given, attributes) in enumerate(nodes):
        y, *final = run(kind, {"x": x, **given}, attributes)
        made |= {f"{i}/{k}": v for k, v in zip("hc", final, strict=False)}
        x = np.moveaxis(y, 1, 2).reshape(TIME, BATCH, -1)
    return {"outputs": x, **made}


def run(seed, kind, optional, attributes) -> dict[str, np.ndarray]:
    """One case, without its name."""
    draw = np.random.default_rng(seed).normal
    depth, nodes, arrays = DEPTH, [], {"x": draw(size=(TIME, BATCH, DEPTH))}
    for i, own in enumerate(attributes):
        count, rows = 2 if own.get("direction") == BOTH["direction"] else 1, GATES[kind]
        shapes = {
            "W": (rows * UNITS, depth),
            "R": (rows * UNITS, UNITS),
            "B": (2 * rows * UNITS,),
            "P": (3 * UNITS,),
            "h0": (BATCH, UNITS),
            "c0": (BATCH, UNITS),
        }
        names = ["W", "R", *optional, "h0", *(["c0"] if kind == "LSTM" else [])]
        given = {name: draw(0, 0.7, (count, *shapes[name])) for name in names}
        nodes.append((given, own))
        arrays |= {f"{i}/{name}": array for name, array in given.items()}
        arrays[f"{i}/attributes"] = np.array(json.dumps({"op_type": kind, **own}))
        depth = count * UNITS
    made = through(by_runtime, kind, arrays["x"], nodes)
    assert all(array.dtype == np.float32 for array in made.values())
    if not any("activations" in own for own in attributes):
        exact = through(by_reference, kind, arrays["x"], nodes)
        for name, array in exact.items():
            np.testing.assert_allclose(made[name], array, rtol=0, atol=2e-6)
        arrays |= {f"reference/{name}": array for name, array in exact.items()}
    return arrays | made


def main() -> None:
    """Write the file."""
    arrays = {
        f"{name}/{key}": array
        for seed, (name, case) in enumerate(CASES.items())
        for key, array in run(seed, *case).items()
    }
    path = pathlib.Path(__file__).resolve().parents[1] / "convert" / "onnx.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
