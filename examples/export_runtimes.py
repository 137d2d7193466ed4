"""Export one trained network to three files, and run each file without JAX.

A stack of two LSTMs identifies nine speakers from two vowels. The network is exported
for LiteRT (TensorFlow Lite), for onnxruntime and, as StableHLO, for IREE. Each runtime
receives the test utterances one by one. The script prints a table with accuracy,
deviation from JAX, time per frame and file size.

Run the script with `pip install -e '.[examples,export]' onnxruntime iree-base-compiler
iree-base-runtime && python examples/export_runtimes.py`. The script skips runtimes that
are not installed.
"""

import pathlib
import time

import japanese_vowels_data as data
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from tqdm import trange

import jaxrnn
from jaxrnn import export

UNITS, BATCH = 48, 27
CELL = jaxrnn.MultiRNNCell((jaxrnn.LSTMCell(UNITS), jaxrnn.LSTMCell(UNITS)))


def init(key):
    """Initial parameters of the cells and of the dense layer on their outputs."""
    frame = jax.ShapeDtypeStruct((1, data.FEATURES), jnp.float32)
    kernel = jax.nn.initializers.glorot_normal()(key, (UNITS, data.SPEAKERS))
    return {"cell": CELL.init(key, frame), "dense": (kernel, jnp.zeros(data.SPEAKERS))}


def frame_logits(params, frames, lengths=None):
    """Logits at each frame, `[utterances, time, speakers]`."""
    cell, (kernel, bias) = CELL.bind(params["cell"]), params["dense"]
    outputs, _ = jaxrnn.dynamic_rnn(cell, frames, lengths, dtype=jnp.float32)
    return outputs @ kernel + bias


def mean_over_frames(logits, lengths):
    """The mean logits of each utterance, `[utterances, speakers]`."""
    valid = np.arange(logits.shape[1]) < lengths[:, None]
    return (logits * valid[..., None]).sum(1) / lengths[:, None]


def train(utterances, epochs):
    """Trains the network with Adam on all utterances; returns its parameters."""
    optimizer = optax.adam(3e-3)
    params = init(jax.random.key(0))

    def loss(params, batch):
        logits = frame_logits(params, batch.frames, batch.lengths)
        mean = mean_over_frames(logits, batch.lengths)
        losses = optax.softmax_cross_entropy_with_integer_labels(mean, batch.labels)
        return jnp.mean(losses)

    @jax.jit
    def update(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, updates), state

    state, random = optimizer.init(params), np.random.default_rng(0)
    for _ in trange(epochs, desc="epochs"):
        for rows in np.split(random.permutation(270), 270 // BATCH):
            params, state = update(params, state, utterances.take(rows))
    return params


def write_files(params, longest, folder):
    """Writes the network in each format, for one utterance of `longest` frames."""
    cell, dense = CELL.bind(params["cell"]), params["dense"]
    frames = jax.ShapeDtypeStruct((1, longest, data.FEATURES), jnp.float32)
    makers = {
        "vowels.tflite": lambda: export.to_tflite_operators(cell, frames, dense=dense),
        "vowels.onnx": lambda: export.to_onnx(cell, dense=dense, lengths=False),
        # With several platforms, the first argument would be the platform's index.
        "vowels.stablehlo": lambda: export.to_stablehlo(
            lambda x: frame_logits(params, x), frames, platforms=["cpu"]
        ),
    }
    folder.mkdir(exist_ok=True)
    for name, make in makers.items():
        (folder / name).write_bytes(make())


def litert(file):
    """A function that runs the network in LiteRT: frames of one utterance to logits."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()

    def call(frames):
        interpreter.reset_all_variables()  # Otherwise, the state is kept.
        return run(inputs=frames)["outputs"]

    return call


def onnxruntime(file):
    """A function as in `litert`, but for onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options)
    return lambda frames: session.run(["outputs"], {"inputs": frames})[0]


def iree(file):
    """A function as in `litert`, but for IREE, which compiles the program first."""
    import iree.compiler  # pyright: ignore[reportMissingImports]
    import iree.runtime  # pyright: ignore[reportMissingImports]

    program = jax.export.deserialize(bytearray(file.read_bytes()))
    compiled = iree.compiler.compile_str(
        program.mlir_module(),
        input_type="stablehlo",
        target_backends=["llvm-cpu"],
        extra_args=["--iree-llvmcpu-target-cpu=host"],
    )
    module = iree.runtime.load_vm_flatbuffer(compiled, driver="local-sync")
    return lambda frames: module.main(frames).to_host()


RUNTIMES = {
    "LiteRT": (litert, "vowels.tflite"),
    "onnxruntime": (onnxruntime, "vowels.onnx"),
    "IREE": (iree, "vowels.stablehlo"),
}


def measure(call, test, want):
    """Accuracy, largest deviation from JAX, and microseconds per frame."""
    call(test.frames[:1])  # Exclude preparation on the first run from the time.
    start = time.perf_counter()
    logits = np.concatenate([call(frames[None]) for frames in test.frames])
    seconds = time.perf_counter() - start
    guesses = mean_over_frames(logits, test.lengths).argmax(1)
    valid = np.arange(logits.shape[1]) < test.lengths[:, None]
    deviation = np.abs(logits - want)[valid].max()
    return (guesses == test.labels).mean(), deviation, 1e6 * seconds / valid.size


def main(
    folder: pathlib.Path = pathlib.Path("export_runtimes_output"), epochs: int = 30
):
    """Trains the network, writes the files into a folder, and runs them.

    Args:
        folder: The folder for the files.
        epochs: Passes over the training utterances.
    """
    utterances, test = data.load()
    params = train(utterances, epochs)
    write_files(params, test.frames.shape[1], folder)
    compiled = jax.jit(lambda frames: frame_logits(params, frames))
    want = np.asarray(compiled(test.frames))
    rows = {"JAX": (*measure(lambda x: np.asarray(compiled(x)), test, want), 0)}
    for name, (runtime, file) in RUNTIMES.items():
        try:
            call = runtime(folder / file)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
            continue
        size = (folder / file).stat().st_size / 1024
        rows[name] = *measure(call, test, want), size
    print("| runtime | test accuracy | deviation | us per frame | KiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (accuracy, deviation, micros, size) in rows.items():
        size_text = f"{size:.1f}" if size else "-"
        cells = f"{accuracy:.1%} | {deviation:.1e} | {micros:.1f} | {size_text}"
        print(f"| {name} | {cells} |")
    print(f"Wrote files to {folder}/")


if __name__ == "__main__":
    tyro.cli(main)
