"""What the site shows of cells: examples that run, and the guide of each."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


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
        "/guide/cells",
        "/guide/recurrences",
        "/guide/seq2seq",
        "/coming_from/tensorflow1",
    }
    assert all((DOCS / f"{texts['guide'][1:]}.md").exists() for texts in cells.values())
