"""Files for other runtimes, ours beside those of TensorFlow and PyTorch.

The same network, with the same sizes, is written by `jaxrnn.export`, by Keras through
TensorFlow's converter, and by `torch.onnx`; each file runs in LiteRT or onnxruntime on
one thread. The rounds are interleaved; a ratio is a file's time by that of ours for the
same runtime in the same round, above 1 ours is faster.

    python -m benchmarks.export

needs `.[export]`, onnxruntime, onnxscript, tensorflow and torch in one environment.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import export

from .core.machine import describe
from .core.ratios import Spread

TIME, DEPTH, UNITS = 100, 64, 128
ROUNDS, RUNS = 15, 20
RESULT = Path(__file__).parent / "results" / "export.json"
X = np.random.default_rng(0).normal(size=(1, TIME, DEPTH)).astype(np.float32)
CELLS = {"lstm": jaxrnn.LSTMCell, "gru": jaxrnn.CudnnCompatibleGRUCell}
CASES = ("lstm", "lstm2", "bilstm", "gru")


def ours(case: str) -> tuple[Callable, object]:
    """The network as a function, and the cells as `to_onnx` takes them."""

    def bind(cell: jaxrnn.RNNCell, seed: int = 0) -> jaxrnn.BoundCell:
        return cell.bind(cell.init(jax.random.key(seed), jnp.ones((1, DEPTH))))

    make = CELLS["gru" if case == "gru" else "lstm"]
    if case == "bilstm":
        pair = ([bind(make(UNITS))], [bind(make(UNITS), 1)])
        run = jaxrnn.stack_bidirectional_dynamic_rnn
        return lambda x: run(*pair, x, dtype=x.dtype)[0], pair
    layers = make(UNITS), make(UNITS)
    cell = bind(jaxrnn.MultiRNNCell(layers) if case == "lstm2" else make(UNITS))
    return lambda x: jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)[0], cell


def by_keras(case: str) -> bytes:
    """The file that TensorFlow's converter makes of a Keras model."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as freeze,
    )

    def layer() -> object:
        kind = tf.keras.layers.GRU if case == "gru" else tf.keras.layers.LSTM
        return kind(UNITS, return_sequences=True)

    if case == "bilstm":
        layers = [tf.keras.layers.Bidirectional(layer())]
    else:
        layers = [layer() for _ in range(2 if case == "lstm2" else 1)]
    model = tf.keras.Sequential(layers)
    model(X)
    spec = [tf.TensorSpec(X.shape, tf.float32, name="inputs")]
    function = tf.function(lambda inputs: model(inputs), input_signature=spec)
    frozen = freeze(function.get_concrete_function())
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()


def by_torch(case: str) -> bytes:
    """The file that `torch.onnx` makes."""
    import io

    import torch

    kind = torch.nn.GRU if case == "gru" else torch.nn.LSTM
    layers = 2 if case == "lstm2" else 1
    net = kind(DEPTH, UNITS, layers, batch_first=True, bidirectional=case == "bilstm")
    file = io.BytesIO()
    inputs = torch.from_numpy(X)
    torch.onnx.export(net.eval(), (inputs,), file, input_names=["x"], dynamo=False)
    return file.getvalue()


def in_litert(file: bytes) -> Callable[[], np.ndarray]:
    """A run of the file, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    (input_,), output = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def run() -> np.ndarray:
        interpreter.reset_all_variables()
        interpreter.set_tensor(input_["index"], X)
        interpreter.invoke()
        return interpreter.get_tensor(output[0]["index"])

    return run


def in_onnxruntime(file: bytes) -> Callable[[], np.ndarray]:
    """A run of the file, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    feed = {session.get_inputs()[0].name: X}
    return lambda: session.run(None, feed)[0]


def files_of(case: str) -> dict[str, tuple[str, Callable, Callable | None]]:
    """For each file: its runtime, what makes it, and the function it must equal."""
    run, cells = ours(case)
    found = {
        "jaxrnn, operators": (
            "LiteRT",
            lambda: export.to_tflite_operators(cells, X),
            run,
        ),
        "jaxrnn, loops": ("LiteRT", lambda: export.to_tflite(run, X), run),
        "Keras": ("LiteRT", lambda: by_keras(case), None),
        "jaxrnn": ("onnxruntime", lambda: export.to_onnx(cells, lengths=False), run),
        "PyTorch": ("onnxruntime", lambda: by_torch(case), None),
    }
    if case == "gru":  # TensorFlow Lite has no operator for it.
        del found["jaxrnn, operators"]
    return found


def measure(case: str) -> list[dict]:
    """A row for each file: bytes, deviation, milliseconds of a run in each round."""
    rows, runs = [], []
    for name, (runtime, make, function) in files_of(case).items():
        file = make()
        run = in_litert(file) if runtime == "LiteRT" else in_onnxruntime(file)
        deviation = None
        if function is not None:
            deviation = float(np.abs(run() - np.asarray(jax.jit(function)(X))).max())
        row = {"case": case, "runtime": runtime, "file": name, "bytes": len(file)}
        rows.append({**row, "deviation": deviation, "ms": []})
        runs.append(run)
    for _ in range(ROUNDS):
        for row, run in zip(rows, runs, strict=True):
            run()
            start = time.perf_counter()
            for _ in range(RUNS):
                run()
            row["ms"].append(1e3 * (time.perf_counter() - start) / RUNS)
    return rows


def report(rows: list[dict]) -> str:
    """The table in Markdown."""
    lines = [
        "| case | runtime | file by | KiB | deviation | ms | by ours (quartiles) |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        same = [
            r
            for r in rows
            if (r["case"], r["runtime"]) == (row["case"], row["runtime"])
        ]
        spread = Spread.of(np.array(row["ms"]) / np.array(same[0]["ms"]))
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.0e}"
        ratio = "" if row is same[0] else str(spread)
        lines.append(
            f"| {row['case']} | {row['runtime']} | {row['file']} | "
            f"{row['bytes'] / 1024:.0f} | {deviation} | {np.median(row['ms']):.2f} | "
            f"{ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures all cases, saves the rounds, and prints the table."""
    rows = [row for case in CASES for row in measure(case)]
    sizes = f"One row of {TIME} steps, {DEPTH} inputs, {UNITS} units, one thread."
    table = report(rows)
    result = {"machine": describe(), "sizes": sizes, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(f"# export\n\n{sizes}\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
