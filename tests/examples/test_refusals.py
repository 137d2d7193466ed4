"""What the examples refuse, other than flags."""

import importlib.metadata
import io
import sys
from unittest.mock import patch

import numpy as np
import scipy.io.wavfile
from distributed import train
from g2p import data, model
from helpers import refusals
from speech_detection import detect


def read_audio(rate, *shape):
    """Reads zeros as a recording."""
    scipy.io.wavfile.write(file := io.BytesIO(), rate, np.zeros(shape, np.int16))
    return detect.read(file)


def without_package(call):
    """Calls a function as if no package were installed."""
    missing = importlib.metadata.PackageNotFoundError
    with patch("importlib.metadata.distribution", side_effect=missing):
        call()


def without_torch():
    with patch.dict(sys.modules, torch=None):
        sys.modules.pop("from_torch", None)
        importlib.import_module("from_torch")


REFUSALS = [
    (SystemExit, "--batch-size", lambda: train.main(train.Config(batch_size=6))),
    (SystemExit, "16000 Hz", lambda: read_audio(8000, 9)),
    (SystemExit, "one channel", lambda: read_audio(16000, 9, 2)),
    (SystemExit, "from a to z", lambda: data.read_word("")),
    (SystemExit, "from a to z", lambda: data.read_word("na\u00efve")),
    (SystemExit, "1 to 28", lambda: data.read_word("a" * 29)),
    (SystemExit, "from a to z", lambda: data.read_word("<end>")),
    (SystemExit, "g2p_en==2.1.0", lambda: without_package(model.package_file)),
    (SystemExit, "silero-vad", lambda: without_package(detect.package_file)),
    (SystemExit, r"\[examples\]' torch", without_torch),
]
test_refuses = refusals(REFUSALS)
