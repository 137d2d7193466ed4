"""silero-vad detects speech: convolutions and an LSTM of 128 units, in an ONNX file.

The first functions are the network; onnxruntime, which runs another file of the package
with the same weights, frame by frame, is the oracle.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
PACKAGE = "silero-vad==6.2.3"
LENGTHS = [40, 17, 1]
FRAME, CONTEXT, UNITS = 512, 64, 128


def load(file):
    """The weights by name; the LSTM's are a bound cell."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(file)
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    weights = {name: x for name, x in arrays.items() if not name.startswith("onnx::")}
    return weights | {"lstm": convert.from_onnx(model)}


def convolve(x, kernel, stride, padding=0):
    """A convolution over the last axis of `[rows, channels, time]`."""
    return jax.lax.conv_general_dilated(x, kernel, [stride], [(padding, padding)])


def encode(weights, samples):
    """Features `[rows, 128]` of frames with the 64 samples before them."""
    x = jnp.pad(samples, [(0, 0), (0, CONTEXT)], mode="reflect")[:, None]
    x = convolve(x, weights["stft.forward_basis_buffer"], stride=128)
    real, imaginary = jnp.split(x, 2, axis=1)
    x = jnp.sqrt(real**2 + imaginary**2)
    for i, stride in enumerate([1, 2, 2, 1]):
        x = convolve(x, weights[f"encoder.{i}.weight"], stride, padding=1)
        x = jax.nn.relu(x + weights[f"encoder.{i}.bias"][:, None])
    return x[..., 0]


def probability(weights, outputs):
    """The probability of speech, `[..., 1]`, from the LSTM's outputs."""
    kernel = weights["output.weight"][:, :, 0].T
    return jax.nn.sigmoid(jax.nn.relu(outputs) @ kernel + weights["output.bias"])


def detect(weights, frames, lengths=None):
    """Probabilities `[recordings, frames, 1]`: all frames are encoded at once."""
    before = jnp.pad(frames[:, :-1, -CONTEXT:], [(0, 0), (1, 0), (0, 0)])
    samples = jnp.concatenate([before, frames], axis=-1)
    x = encode(weights, samples.reshape(-1, CONTEXT + FRAME))
    x = x.reshape(*frames.shape[:2], UNITS)
    outputs, _ = jaxrnn.dynamic_rnn(weights["lstm"], x, lengths, dtype=x.dtype)
    return probability(weights, outputs)


@pytest.fixture
def weights(package):
    return load(package / "silero_vad" / "data" / "silero_vad_16k_sequence.onnx")


@pytest.fixture
def session(package):
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(package / "silero_vad/data/silero_vad.onnx")


def draw_frames():
    """Noise of changing loudness around harmonics, `[recordings, frames, 512]`."""
    rng, t = np.random.default_rng(0), np.arange(max(LENGTHS) * FRAME) / 16_000
    pitch = 120 + 30 * np.sin(4 * t) + np.array([[0], [40], [90]])
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.sin(9 * t) ** 2
    audio = 0.1 * voice + 0.01 * rng.normal(size=voice.shape)
    return audio.astype(np.float32).reshape(len(LENGTHS), -1, FRAME)


def theirs(session, frames):
    """The probabilities `[frames, 1]` of one recording, frame by frame."""
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    found = []
    for frame in frames:
        samples = np.concatenate([before, frame])[None]
        given = {"input": samples, "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, given)
        found.append(probability[0])
        before = frame[-CONTEXT:]
    return np.stack(found)


def test_trained_silero_vad(weights, session):
    """As padded recordings with NaN in the padding."""
    frames = draw_frames()
    is_padding = np.arange(frames.shape[1]) >= np.array(LENGTHS)[:, None]
    padded = np.where(is_padding[..., None], np.nan, frames)
    got = jax.jit(detect)(weights, padded, np.array(LENGTHS))
    for row, (length, recording) in enumerate(zip(LENGTHS, frames, strict=True)):
        want = theirs(session, recording[:length])
        assert length == 1 or np.ptp(want) > 0.3  # The signal is not constant.
        np.testing.assert_allclose(got[row, :length], want, rtol=0, atol=5e-5)
