"""`tests/without_loops.py` deletes the loops, and finds a result that changes."""

import pickle
import subprocess

import numpy as np
import pytest
import without_loops
from mutations import make_environment

PROGRAM = """
import jax, jax.numpy as jnp, jaxrnn, jaxrnn.extend
from jaxrnn import *
cell, x = jaxrnn.LSTMCell(3), jnp.ones((2, 4, 3))
bound = cell.bind(cell.init(jax.random.key(0), x[:, 0]))
print(jaxrnn.explain(bound, x, dtype=x.dtype).loop)
"""


def test_a_copy_has_no_loops(tmp_path):
    copy = without_loops.without_loops(tmp_path)
    python = make_environment(tmp_path / "environment")
    run = [python, "-c", PROGRAM]
    done = subprocess.run(run, cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout == "scan\n"
    files = (copy / "jaxrnn").rglob("*.py")
    assert not [file for file in files if "import _loops" in file.read_text()]


@pytest.mark.parametrize("difference", [0, 1e-9])
def test_a_difference_is_found(difference, tmp_path, monkeypatch, capsys):
    found = {"gru": ("xla", [np.ones(3)])}, {"gru": ("scan", [np.ones(3) + difference])}
    answers = iter(found)

    def run(command, **options):
        (tmp_path / "results").write_bytes(pickle.dumps(next(answers)))

    monkeypatch.setattr(subprocess, "run", run)
    if difference:
        with pytest.raises(AssertionError, match="gru"):
            without_loops.compare(tmp_path / "copy", "python")
        return
    without_loops.compare(tmp_path / "copy", "python")
    assert capsys.readouterr().out.startswith("1 cells, 1 in loops; largest difference")
