"""What the site shows: the pages that a search finds, and the examples of cells."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"

# A search and the page, or a section of it, that is among its first three hits.
SEARCHES = {
    "sequence_length": "guide/lengths",
    "LSTMCell": "api/generated/jaxrnn.LSTMCell",
    "beam search": "guide/seq2seq",
    "dropout": "getting_started",
    "mixed precision": "recipes/mixed_precision",
    "episode": "recipes/reinforcement_learning",
    "CTC": "recipes/speech_ctc",
    "float64": "recipes/system_identification",
    "resume": "recipes/save_and_resume_nnx",
    "R2D2": "recipes/stored_states",
    "irregular": "recipes/missing_values",
    "actor critic": "recipes/reinforcement_learning",
    "ScannedRNN": "coming_from/scanned_rnn",
    "custom cell": "guide/cells",
    "variable length": "guide/lengths",
    "stateful": "guide/long_sequences",
    "BPTT": "guide/long_sequences",
    "256 chips": "guide/devices",
    "stop gradient": "guide/long_sequences",
    "reset state": "guide/resets",
    "NaN gradient": "guide/lengths",
    "mask gaps": "guide/lengths#masks-with-gaps",
    "state every step": "guide/lengths#the-state-of-every-step",
    "embedding": "recipes/character_language_model",
    "sLSTM": "guide/recurrences",
    "gradient clipping": "getting_started",
    "save model": "guide/export",
    "layer normalization": "coming_from/contrib",
    "batch first": "coming_from/pytorch",
    "compile time": "guide/speed",
    "multi gpu": "guide/devices",
    "benchmark": "guide/speed",
    "custom recurrence": "guide/recurrences#custom-linear-recurrences",
    "many to one": "getting_started",
    "topology": "recipes/plan_a_training_step",
    "orthogonal": "guide/cells",
    "last output": "getting_started",
    "double backward": "getting_started",
    "per-example gradients": "guide/speed",
    "adaptive computation": "guide/loops",
    "debug_nans": "guide/lengths",
    "weight drop": "guide/cells",
    "trainable initial state": "guide/cells",
    "zebra gradient packing": "guide/packing",  # No page has all of these words.
}


def find(build):
    """The pages that each search finds, best first, by Sphinx's own code."""
    search = pathlib.Path(__file__).with_name("search.js")
    command = "node", search, build, *SEARCHES
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return dict(zip(SEARCHES, json.loads(done.stdout), strict=True))


@pytest.fixture
def site(tmp_path):
    """The built site: the one in the folder `SITE`, or a new one."""
    if "SITE" in os.environ:
        return ROOT / os.environ["SITE"]
    pytest.importorskip("sphinx_book_theme")
    sphinx = sys.executable, "-m", "sphinx", "-q", "-d", tmp_path / "doctrees"
    subprocess.run([*sphinx, DOCS, tmp_path], check=True, capture_output=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="the search is JavaScript")
def test_searches_find_the_right_page_first(site):
    missed, found = {}, find(site)
    for search, hits in found.items():
        wanted, first = SEARCHES[search], [hit[0] + hit[2] for hit in hits[:3]]
        page, _, section = wanted.partition("#")
        is_there = page.startswith("api/") or (DOCS / f"{page}.md").exists()
        pages = first if section else [name.partition("#")[0] for name in first]
        if is_there and wanted not in pages:
            missed[search] = first
    assert not missed
    assert found["zebra gradient packing"][0][1] == "Packing (without: zebra)"


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    import cell_pages

    return cell_pages.describe_cells()


@pytest.mark.slow
def test_pages_of_cells_have_examples_that_run_and_name_a_guide(cells):
    for name, texts in cells.items():
        exec(texts["example"], scope := {})
        if texts["example"]:
            assert scope["outputs"].shape[:2] == (3, 5), name
    assert {texts["guide"] for texts in cells.values()} == {
        "/guide/attention",
        "/guide/cells",
        "/coming_from/contrib",
        "/guide/recurrences",
    }
    assert all((DOCS / f"{texts['guide'][1:]}.md").exists() for texts in cells.values())
