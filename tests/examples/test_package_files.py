"""The files of packages that the examples read."""

import importlib.metadata

import pytest
from g2p import model
from speech_detection import detect


@pytest.mark.parametrize(
    ("package_file", "requirement"),
    [(model.package_file, "g2p_en==2.1.0"), (detect.package_file, "silero-vad")],
)
def test_a_missing_package_is_named(package_file, requirement, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(SystemExit, match=f"pip install --no-deps {requirement}"):
        package_file()
