"""Writes the goldens of `tests/golden/contrib` from contrib's own sources.

It needs what `make_tf1.py` needs, and the folder `tensorflow/contrib` of a checkout
from before TensorFlow 2, which `contrib_sources.py` runs:

    python tests/golden/generate/make_contrib.py --contrib PATH [--only PREFIX]

With `--only`, only the families whose names begin so are written. For each family of
`contrib_cases` there is one `.npz`, as in `make_tf1.py`, and one `.json` of its cases.
"""

import argparse
import pathlib
import sys
from typing import Any

GOLDEN = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(GOLDEN.parent))

import numpy as np  # noqa: E402

# First: TensorFlow reads its settings.
from golden.generate import make_tf1  # noqa: E402

# isort: split
from golden import contrib_specs  # noqa: E402
from golden.generate import contrib_sources, tf1_cells  # noqa: E402

# Wrappers without variables: their cell's variables are at the top.
_BARE = ("ResidualWrapper", "DropoutWrapper", "DeviceWrapper")
_BARE += ("FusedRNNCellAdaptor", "TimeReversedFusedRNN")


def parameter_path(variable: Any, cells: list[Any]) -> tuple[str, list[str]]:
    """Keys of jaxrnn's nested dicts: TensorFlow's scopes below the cell's scope."""
    (cell,) = cells
    parts = variable.name.removesuffix(":0").split("/")
    return "", below(cell, parts[parts[0] == "rnn" :])


def below(cell: Any, parts: list[str]) -> list[str]:
    """The scopes below `cell`'s; its own scope and the scopes of stacks are dropped."""
    parts = parts[parts[0] == _scope(cell) :]
    if type(cell).__name__ == "MultiRNNCell":
        index = int(parts[0].removeprefix("cell_"))
        return [parts[0], *below(cell._cells[index], parts[1:])]
    inner = _inner(cell)
    if type(cell).__name__ in _BARE:
        return below(inner, parts[parts[0] == "rnn" :])
    if inner is not None and parts[0] == _scope(inner):
        return [parts[0], *below(inner, parts)]
    return parts


def _scope(cell: Any) -> str | None:
    scope = getattr(cell, "_scope", None)  # `WeightNormLSTMCell` sets its own.
    if isinstance(scope, str):
        return scope
    return getattr(cell, "_base_name", None) or getattr(cell, "name", None)


def _inner(cell: Any) -> Any:
    """The cell that a wrapper holds, or None."""
    named = (getattr(cell, key, None) for key in ("_cell", "cell", "controller"))
    return next((inner for inner in named if inner is not None), None)


def write(family: str, cases: list[dict[str, Any]]) -> None:
    """Writes one family."""
    arrays, found = {}, []
    for case in cases:
        structures, made = make_tf1.run(case, parameter_path)
        make_tf1.check(made, case)
        arrays |= made
        found.append({**case, "structures": structures})
    np.savez_compressed(GOLDEN / "contrib" / f"{family}.npz", **arrays)
    recorded = {"tensorflow": make_tf1.tf.__version__, "cases": found}
    path = GOLDEN / "contrib" / f"{family}.json"
    path.write_text(make_tf1.readable(recorded))


def main() -> None:
    """Writes the files of all families, or of those asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrib", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="a prefix of families")
    options = parser.parse_args()
    make_tf1.prepare()
    modules = contrib_sources.load(options.contrib)
    tf1_cells.MODULES.extend(vars(modules).values())
    (GOLDEN / "contrib").mkdir(exist_ok=True)
    for family, cases in contrib_specs.families().items():
        if family.startswith(options.only):
            write(family, cases)


if __name__ == "__main__":
    main()
