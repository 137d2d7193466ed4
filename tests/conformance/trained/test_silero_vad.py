"""silero-vad detects speech: convolutions and an LSTM of 128 units, in an ONNX file.

`examples/speech_detection` rebuilds the network; onnxruntime, which runs another file
of the package with the same weights, frame by frame, is the oracle.
"""

import jax
import numpy as np
import pytest
from speech_detection.model import CONTEXT, DETECTOR, FRAME, detect, load

import jaxrnn.export

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
PACKAGE = "silero-vad==6.2.3"
LENGTHS = [40, 17, 1]


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
    """The probabilities of one recording, and the state after it, frame by frame."""
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    found = []
    for frame in frames:
        samples = np.concatenate([before, frame])[None]
        given = {"input": samples, "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, given)
        found.append(probability[0])
        before = frame[-CONTEXT:]
    return np.stack(found), state


def test_trained_silero_vad(weights, session):
    """As padded recordings with NaN in the padding, and as a stream of frames."""
    frames = draw_frames()
    is_padding = np.arange(frames.shape[1]) >= np.array(LENGTHS)[:, None]
    padded = np.where(is_padding[..., None], np.nan, frames)
    got = jax.jit(detect)(weights, padded, np.array(LENGTHS))
    stream = jaxrnn.export.Streamer(DETECTOR.bind(weights), batch_size=len(LENGTHS))
    streamed = np.stack([stream(frames[:, t]) for t in range(frames.shape[1])], axis=1)
    wants = [theirs(session, row) for row in frames]
    for row, (want, state) in enumerate(wants):
        assert np.ptp(want) > 0.3  # The signal is not constant for the network.
        np.testing.assert_allclose(streamed[row], want, rtol=0, atol=5e-5)
        want = want[: LENGTHS[row]]
        np.testing.assert_allclose(got[row, : LENGTHS[row]], want, rtol=0, atol=5e-5)
        _, (c, h) = stream.state
        np.testing.assert_allclose(h[row], state[0, 0], rtol=0, atol=5e-5)
        np.testing.assert_allclose(c[row], state[1, 0], rtol=0, atol=5e-5)
