"""The names in the code that messages show in backquotes exist.

Renaming an argument, a function or a method without its advice fails here.
`test_advice.py` follows advice.
"""

import ast
import builtins
import inspect
import keyword
import pathlib
import re

import flax.nnx
import jax
import numpy as np
import pytest

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "jaxrnn").rglob("*.py"))
HOLE = "any_value"  # Stands for what an f-string inserts.
NAMES = "contrib convert decode export extend initializers linen lite memory nnx "
NAMES += "testing typing"
MODULES = [jaxrnn, jaxrnn.extend.fields, *(getattr(jaxrnn, n) for n in NAMES.split())]

# Names that are not jaxrnn's: of what users hold, of a loop function's arguments and
# results, and of other libraries.
OTHERS = set(
    "batch h0 k1 k2 kernel layer model module node packed rate table times variables y "
    "cell_output emit_output loop_state next_cell_state next_input window "
    "callback in_specs jax jax_enable_x64 jaxrnn jnp np P register_dataclass "
    "static_argnames topologies "
    "R Inputs get_weights install legacy_seq2seq number_over_rows onnx orthogonal pip "
    "recurrent_activation tf".split()
)
EXISTING = {*OTHERS, *NAMES.split(), *keyword.kwlist, *vars(builtins)}
for owner in (
    jax,
    jax.numpy,
    jax.lax,
    np,
    flax.nnx,
    dict,
    np.ma.MaskedArray,
    np.ndarray,
):
    EXISTING |= {*dir(owner)}
for module in MODULES:
    for name in module.__all__:
        value = getattr(module, name)
        calls = [getattr(value, each, None) for each in dir(value)]
        calls = [call for call in [value, *calls] if inspect.isfunction(call)]
        calls += [value] if inspect.isclass(value) else []
        EXISTING |= {name, *dir(value)}
        EXISTING |= {a for call in calls for a in inspect.signature(call).parameters}


def strings(node):
    """The strings below a node that are no docstrings; a hole is what is inserted."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        texts = [getattr(part, "value", HOLE) for part in node.values]
        yield "".join(text if isinstance(text, str) else HOLE for text in texts)
        children = [each for each in node.values if not isinstance(each, ast.Constant)]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        children = []  # A docstring.
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from strings(child)


def wrong(source):
    """The names that do not exist, by the code in backquotes."""
    found = {}
    for text in strings(ast.parse(source)):
        for code in re.findall("`([^`]*)`", text):
            # What strings hold is free, as are the names of two libraries.
            own = re.sub(r"'[^']*'|\b(onnx|tf)(\.\w+)+", "", code)
            names = {n for n in re.findall(r"[A-Za-z_]\w*", own) if HOLE not in n}
            if names - EXISTING and not (ROOT / code).is_file():
                found[code] = names - EXISTING
    return found


def test_names_in_messages_exist():
    assert {file.name: w for file in FILES if (w := wrong(file.read_text()))} == {}


WRONG = ["seq_axs=1", "packed_rn", "jaxrnn.dynamic_rn", "jnp.asaray"]
WRONG += ["{name}.bnd(params)", "cell.bind(params, kys=key)"]


@pytest.mark.parametrize("code", WRONG)
def test_a_wrong_name_is_found(code):
    source = f'''"""A `docstring`."""\nfail(f"Pass `{code}`.")'''
    assert wrong(source)
