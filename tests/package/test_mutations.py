"""Mutants are drawn by a seed, are valid Python, and are found again."""

import ast
import dataclasses
import pathlib
import shutil

import mutations
import pytest
from mutations import Mutant

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_seed_draws_mutants_that_can_be_applied_and_undone(tmp_path):
    for folder in ("jaxrnn/_cells", "native/src"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    drawn = mutations.draw(tmp_path, seed=3, count=40)
    assert mutations.draw(tmp_path, seed=3, count=40) == drawn
    assert sum(mutant.room == "native" for mutant in drawn) == 4
    for mutant in drawn:
        file, old = mutations.apply(mutant, tmp_path)
        assert file == tmp_path / mutant.file
        new = file.read_text()
        file.write_text(old)
        lines = zip(old.splitlines(), new.splitlines(), strict=False)
        changed = [number for number, (a, b) in enumerate(lines, 1) if a != b]
        assert changed[0] >= mutant.line
        assert new.splitlines()[mutant.line - 1].strip() == mutant.new
        if file.suffix == ".py":
            assert ast.dump(ast.parse(new)) != ast.dump(ast.parse(old))


def test_a_line_is_found_in_another_file(tmp_path):
    (tmp_path / "jaxrnn").mkdir()
    mutant = Mutant("jaxrnn/a.py", 9, "x = 1", "x = 2", "off by one")
    with pytest.raises(LookupError):
        mutations.apply(mutant, tmp_path)
    elsewhere = tmp_path / "jaxrnn/b.py"
    elsewhere.write_text("\n\ndef f():\n    x = 1\n")
    assert mutations.apply(mutant, tmp_path)[0] == elsewhere
    assert elsewhere.read_text() == "\n\ndef f():\n    x = 2\n"


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        ("a < b", ["(a <= b)"]),
        (
            "(a - 1) * b",
            ["(a - 1)", "(b)", "((a + 1)) * b", "((a)) * b", "(a - (2)) * b"],
        ),
        ("a and b", ["(a or b)", "(a)"]),
        ("jnp.where(m, a, b)", ["(a)", "(b)"]),
        ("not a", ["(a)"]),
        ("jnp.dot(x.T, w)", ["jnp.dot((x), w)"]),
        ("(1,) * n + x", ["((2),) * n + x"]),
        ("-x if a else x", ["(-x if not a else x)", "(x) if a else x"]),
    ],
)
def test_each_kind(tmp_path, code, broken):
    file = tmp_path / "a.py"
    file.write_text(f"def f():\n    return {code}\n")
    found = [mutant.new for mutant in mutations.python_mutants(file, tmp_path)]
    assert sorted(found) == sorted(f"return {one}" for one in broken)


def test_messages_are_not_broken(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("raise ValueError(a - 1)\nx = f'{a - 1}'\n")
    assert not list(mutations.python_mutants(file, tmp_path))


def test_the_table_names_those_that_escaped():
    caught = Mutant("jaxrnn/a.py", 1, "x < 1", "x <= 1", "comparison")
    escaped = dataclasses.replace(caught, file="native/src/b.h", line=7)
    rows = [
        {"mutant": dataclasses.asdict(caught), "result": "caught", "by": "a test"},
        {"mutant": dataclasses.asdict(escaped), "result": "escaped", "by": ""},
    ]
    table = mutations.table(rows)
    assert "| a | 1 | 1 |" in table
    assert "| native | 1 | 0 |" in table
    assert table.endswith("native/src/b.h\n  - x < 1\n  + x <= 1")
