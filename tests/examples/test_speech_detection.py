"""Speech detection, with random weights, in small.

`tests/conformance/trained` compares the trained network with onnxruntime.
"""

import numpy as np
import pytest
import scipy.io.wavfile
from speech_detection import detect, model

import jaxrnn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
CHANNELS = [129, 128, 64, 64, 128]


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(scale=0.08, size=shape).astype(np.float32)
    lstm = {"kernel": draw(2 * model.UNITS, 4 * model.UNITS)}
    lstm["bias"] = draw(4 * model.UNITS)
    weights = {
        "lstm": jaxrnn.LSTMCell(model.UNITS, forget_bias=0.0).bind(lstm),
        "stft.forward_basis_buffer": draw(258, 1, 256),
        "output.weight": 50 * draw(1, model.UNITS, 1),
        "output.bias": draw(1),
    }
    for i in range(4):
        weights[f"encoder.{i}.weight"] = draw(CHANNELS[i + 1], CHANNELS[i], 3)
        weights[f"encoder.{i}.bias"] = draw(CHANNELS[i + 1])
    return weights


def test_file_and_frames(weights, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "package_file", lambda: None)
    monkeypatch.setattr(detect, "load", lambda file: weights)
    audio = np.round(2**15 * detect.synthesize(syllables=4)).astype(np.int16)
    file = tmp_path / "speech.wav"
    scipy.io.wavfile.write(file, model.RATE, audio)
    monkeypatch.setattr(detect, "PICTURE", picture)
    whole, streamed, stepped = detect.main(file)
    assert whole.shape == (-(-len(audio) // model.FRAME),)
    assert np.ptp(whole) > 0.1
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(stepped, whole, rtol=0, atol=1e-5)


def test_speech_has_words_and_pauses():
    audio = detect.synthesize(syllables=8)
    loud = np.abs(model.as_frames(audio)).max(axis=1) > 0.05
    starts = np.flatnonzero(np.diff(loud.astype(int)) == 1)
    assert (np.diff(starts) * model.FRAME > model.RATE).sum() == 1  # One long pause.
    assert not loud[: model.RATE // model.FRAME - 1].any()
