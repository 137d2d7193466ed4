"""Every exported cell against its laws: `tests/cases.py` says which."""

import changed
import jax.numpy as jnp
import pytest
from cases import CASES as CELLS, EVERY_LAW, KINDS, RULES

from jaxrnn import testing

CASES = CELLS | RULES


@pytest.fixture(scope="module")
def setup(request):
    """One setup for all laws of a case, so that shared programs are compiled once."""
    case = CASES[request.param]
    return testing.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)


def rows():
    for name, case in CASES.items():
        for law in (law for law in testing.LAWS if law in case.laws):
            marks = () if law in case.fast else pytest.mark.slow
            yield pytest.param(name, law, marks=marks, id=f"{name}-{law.__name__}")


@pytest.mark.parametrize(("setup", "law"), list(rows()), indirect=["setup"])
def test_law(setup, law):
    law(setup)


def test_every_law_has_rows_in_both_runs():
    for law in testing.LAWS:
        assert any(law in case.fast for case in CASES.values()), law
        assert sum(law in case.laws for case in CASES.values()) > 10, law
    for name, case in CASES.items():
        assert case.fast <= case.laws <= frozenset(testing.LAWS), name
    for name in KINDS.values():
        assert CASES[name].laws == EVERY_LAW, name


CHANGES = {
    "jaxrnn/_cells/gru.py": ({"cells"}, {"gru", "gru_sigmoid", "gru_cudnn"}),
    "jaxrnn/_run/masking.py": (
        {"drivers", "loops", "meshes/test_drivers.py", "run"},
        {*KINDS.values()},
    ),
    "jaxrnn/_flax/nnx.py": ({"layers", "meshes/test_functions.py"}, set()),
    "native/src/team.h": ({"native"}, set()),
    "tests/loops/test_xla_loop.py": ({"loops/test_xla_loop.py"}, set()),
    "README.md": (set(), set()),
}


@pytest.mark.parametrize("file", CHANGES)
def test_a_change_runs_the_tests_of_its_rooms(file):
    found = {path for path in changed.tests_of(file) if exists(path)}
    assert (found, changed.laws_of([file])) == CHANGES[file]


def test_a_change_runs_the_goldens_of_its_cells():
    goldens = changed.goldens_of(["jaxrnn/contrib/_small_cells.py"])
    assert {"indy_lstm-whole-f32", "sru-whole-f32"} <= goldens
    assert "nas-whole-f32" not in goldens
    assert not changed.goldens_of(["jaxrnn/_run/masking.py", "README.md"])


def test_every_file_of_the_package_has_tests():
    for file in (changed.ROOT / "jaxrnn").rglob("*.py"):
        paths = changed.tests_of(str(file.relative_to(changed.ROOT)))
        assert any(map(exists, paths)), file


def exists(path):
    return (changed.ROOT / "tests" / path).exists()
