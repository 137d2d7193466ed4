"""Records `contrib/` from contrib's own sources: cells and wrappers.

It needs what `contrib_sources.py` needs; the rows of `contrib/*.json` are the cases:

    python -m tests.golden.record.contrib WHEEL
"""

import functools
from typing import Any

from .. import store
from . import graphs, tf1

# Wrappers without variables: their cell's variables are at the top.
BARE = ("ResidualWrapper", "DropoutWrapper", "DeviceWrapper")
BARE += ("FusedRNNCellAdaptor", "TimeReversedFusedRNN")


def path_of(scopes: list[str], built: list[Any]) -> list[str]:
    """Keys of jaxrnn's nested dicts: TensorFlow's scopes below the cell's scope."""
    return ["params", *below(built[0], scopes[scopes[0] == "rnn" :])]


def below(cell: Any, parts: list[str]) -> list[str]:
    """The scopes below `cell`'s; its own scope and the scopes of stacks are dropped."""
    parts = parts[parts[0] == scope_of(cell) :]
    if type(cell).__name__ == "MultiRNNCell":
        index = int(parts[0].removeprefix("cell_"))
        return [parts[0], *below(cell._cells[index], parts[1:])]
    named = (getattr(cell, key, None) for key in ("_cell", "cell", "controller"))
    inner = next((inner for inner in named if inner is not None), None)
    if type(cell).__name__ in BARE:
        return below(inner, parts[parts[0] == "rnn" :])
    if inner is not None and parts[0] == scope_of(inner):
        return [parts[0], *below(inner, parts)]
    return parts


def scope_of(cell: Any) -> str | None:
    """The name of the cell's scope."""
    scope = getattr(cell, "_scope", None)  # `WeightNormLSTMCell` sets its own.
    if isinstance(scope, str):
        return scope
    return getattr(cell, "_base_name", None) or getattr(cell, "name", None)


FAMILIES = [path.stem for path in sorted((store.HERE / "contrib").glob("*.json"))]
build = functools.partial(tf1.build, path_of=path_of)

if __name__ == "__main__":
    from . import contrib_sources  # noqa: F401 (registers its classes)

    for family in FAMILIES:
        graphs.record("contrib", family, build)
