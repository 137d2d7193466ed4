"""Writes `tests/golden/convert/tf1_contrib.json`: the names of contrib's variables.

It needs what `make_contrib.py` needs, and builds the graphs of the same cases:

    python tests/golden/generate/make_convert_contrib.py --contrib PATH

For each setting of a cell there is one case, the first, with the name of each variable
in the graph and the keys of the parameter in jaxrnn's nested dicts, joined by slashes.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

GOLDEN = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(GOLDEN.parent))

# First, as in `make_contrib`.
from golden.generate import make_contrib, make_tf1  # noqa: E402

# isort: split
from golden import contrib_specs  # noqa: E402
from golden.generate import contrib_sources, tf1_cells  # noqa: E402

tf1 = make_tf1.tf1


def names(case: dict[str, Any]) -> dict[str, str]:
    """The variables of the case's graph."""
    with tf1.Graph().as_default():
        cells = make_tf1._build(case, [""])
        draw = make_tf1.Draw(case)
        inputs = make_tf1._placeholders(draw.inputs())
        state = make_tf1._constants(draw.state(cells[0]))
        make_tf1._one_way(case, cells, inputs, [state])
        found = {}
        for variable in tf1.trainable_variables():
            _, path = make_contrib.parameter_path(variable, cells)
            found[variable.name.removesuffix(":0")] = "/".join(path)
    return found


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrib", type=pathlib.Path, required=True)
    make_tf1.prepare()
    tf1_cells.MODULES.extend(
        vars(contrib_sources.load(parser.parse_args().contrib)).values()
    )
    found, seen = {}, []
    for family, cases in contrib_specs.families().items():
        for case in cases:
            if case["cell"] not in seen:
                seen.append(case["cell"])
                found[f"{family}/{case['name']}"] = names(case)
    path = GOLDEN / "convert" / "tf1_contrib.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
