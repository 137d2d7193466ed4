"""What the goldens of contrib cover: cases as plain data, one file for each family.

A family is a file `contrib_cases/<family>.py` with a list `CASES`, whose goldens are
`contrib/<family>.json` and `contrib/<family>.npz`. `specs.py` describes the cases
with these further keys:

- `folder`: the folder of the goldens.
- `ranges`: `{"period": [1.0, 5.0]}` draws the parameters of that name uniformly from
  that range; all others are normal numbers times 0.6.

A cell may have `ours`: keyword arguments that contrib's class does not have.

The function `fused` is one call of a cell that takes whole sequences, time first.
"""

import importlib
import pathlib

from . import specs

HERE = pathlib.Path(__file__).resolve().parent
SHORT = specs._SHORT
cell, wrap, multi = specs._cell, specs._wrap, specs._multi
shape, tuple_of, list_of = specs._shape, specs._tuple, specs._list
lengths = specs._lengths


def function(name):
    """An argument that is a function of `tf.nn` and of `jax.nn`."""
    return {"function": name}


def case(name, family, cell, function="dynamic_rnn", ranges=None, **fields):
    """One case; `specs.py` describes the fields."""
    made = specs._case(name, family, function, cell, **fields)
    return made | {"folder": "contrib", "ranges": ranges or {}}


def each(family, settings, dtypes=("float32", "float64"), **fields):
    """Every setting over whole rows in the first dtype, and ragged rows in the second.

    `settings` are `{name: cell}`. Whole rows start from a given state; sizes, `ranges`
    and so on go to `case`. The order of time and batch, and zero states, alternate.
    """
    whole, ragged = dtypes
    cases = []
    for index, (name, made) in enumerate(settings.items()):
        first = {
            "dtype": whole,
            "initial_state": "given",
            "pass_dtype": index % 2 == 0,
            "time_major": index % 4 > 1,
        }
        second = {
            "dtype": ragged,
            "lengths": lengths(5, 2, 3),
            "initial_state": "given" if index % 3 == 2 else "zero",
            "time_major": index % 2 == 1,
        }
        cases += [
            case(f"{name}-whole-{SHORT[whole]}", family, made, **first | fields),
            case(f"{name}-ragged-{SHORT[ragged]}", family, made, **second | fields),
        ]
    return cases


def half(family, settings, dtypes=("bfloat16", "float16"), **fields):
    """Every setting over ragged rows in half precision, from a given state."""
    fields = {"lengths": lengths(5, 2, 3), "initial_state": "given"} | fields
    return [
        case(f"{name}-{SHORT[dtype]}", family, made, dtype=dtype, **fields)
        for name, made in settings.items()
        for dtype in dtypes
    ]


def families():
    """The cases of each family."""
    paths = sorted((HERE / "contrib_cases").glob("[a-z]*.py"))
    load = lambda name: importlib.import_module(f".contrib_cases.{name}", __package__)
    return {path.stem: load(path.stem).CASES for path in paths}
