"""The code that messages show in backquotes is Python, and its names exist.

Renaming an argument, a function or a method without its advice fails here.
`test_advice.py` also follows advice.
"""

import ast
import builtins
import collections
import contextlib
import importlib
import inspect
import pathlib
import pydoc
import re

import numpy as np
import pytest

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "jaxrnn").rglob("*.py"))
HOLE = "any_value"  # Stands for what an f-string inserts.
NAMES = "contrib convert decode export extend initializers linen lite memory nnx "
NAMES += "testing typing"
MODULES = [jaxrnn, jaxrnn.extend.fields, *(getattr(jaxrnn, n) for n in NAMES.split())]
IMPORTED = {"jnp": "jax.numpy", "lax": "jax.lax", "nnx": "flax.nnx", "np": "numpy"}
IMPORTED |= {"convert": "jaxrnn.convert", "fields": "jaxrnn.extend.fields"}
IMPORTED |= {name: name for name in ("jax", "jaxrnn")}

# Names that are not jaxrnn's: of what users hold, of a loop function's arguments and
# results, of JAX, and of other libraries.
OTHERS = set(
    "batch h0 k1 k2 kernel layer model module node packed rate table times variables "
    "window "
    "cell_output emit_output loop_state next_cell_state next_input "
    "in_specs jax_enable_x64 jit static_argnames vmap P "
    "R Inputs get_weights legacy_seq2seq orthogonal "
    "number_over_rows onnx recurrent_activation tf".split()
)
# What is no Python, or no name of jaxrnn in a call: `RNN` is any module of Flax.
NOTATION = {"[x_k, m'_{k-1}]", f"pip install {HOLE}", "RNN(cell, name='rnn')"}
# How other notation becomes Python.
FORMS = [
    (r" -> .*$", ""),  # What a function returns.
    (r"(\w+) \[.*?\]", r"\1"),  # The axes of an argument.
    (r"^(\w+)=$", r"f(\1=0)"),
    (r"^(\w+=[^=].*)$", r"f(\1)"),
    (r"^@", ""),
    (r"^\.", f"{HOLE}."),
    (r"^(def .*)$", r"\1: pass"),
    (r"^if$", "True"),
]

VALUES = [
    (name, getattr(module, name)) for module in MODULES for name in module.__all__
]
SIGNATURES = collections.defaultdict(list)  # Of functions and methods, by their names.
ATTRIBUTES = {*dir(np.ma.MaskedArray), *dir(dict)}
for name, value in VALUES:
    if inspect.isfunction(value) or inspect.isclass(value):
        SIGNATURES[name].append(inspect.signature(value))
    if inspect.isclass(value):
        ATTRIBUTES |= {*dir(value)}
        for method in dir(value):
            function = inspect.getattr_static(value, method)
            if inspect.isfunction(function):
                signature = inspect.signature(function)
                _, *parameters = signature.parameters.values()
                SIGNATURES[method].append(signature.replace(parameters=parameters))
PARAMETERS = {
    name for each in SIGNATURES.values() for s in each for name in s.parameters
}
KNOWN = {*vars(builtins), *IMPORTED, *OTHERS, *ATTRIBUTES, *PARAMETERS, "f"}
KNOWN |= {name for name, _ in VALUES} | SIGNATURES.keys()


def strings(node):
    """The strings of a program that are no docstrings, without holes."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        texts = [getattr(part, "value", HOLE) for part in node.values]
        yield "".join(text if isinstance(text, str) else HOLE for text in texts)
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_text = lambda part: (
        isinstance(node, ast.JoinedStr) and type(part) is ast.Constant
    )
    for child in [] if is_docstring else ast.iter_child_nodes(node):
        if not is_text(child):
            yield from strings(child)


def wrong_names(code):
    """The names in a piece of code that do not exist, and calls that do not fit."""
    if code in NOTATION or (ROOT / code).is_file():
        return
    for pattern, form in FORMS:
        code = re.sub(pattern, form, code)
    tree = ast.parse(code)
    if isinstance(getattr(tree.body[0], "value", None), ast.List | ast.Tuple):
        return  # The axes of an array, or what a function returns.
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield from {node.id} - KNOWN - own
        elif isinstance(node, ast.Attribute):
            if not exists(ast.unparse(node)):
                yield node.attr
        elif isinstance(node, ast.Call) and not accepts(node):
            yield f"{ast.unparse(node.func)}()"


def exists(path):
    """Whether a module, or a value of some class, has an attribute."""
    root, *names = path.split(".")
    if root not in IMPORTED:
        return root in ("onnx", "tf") or names[-1] in KNOWN
    value = importlib.import_module(IMPORTED[root])
    try:
        pydoc.resolve(".".join([value.__name__, *names]))
    except ImportError:
        return HOLE in names
    return True


def accepts(call):
    """Whether some function of jaxrnn, if any has this name, has these arguments."""
    keywords = dict.fromkeys(keyword.arg for keyword in call.keywords)
    *owner, name = ast.unparse(call.func).split(".")
    if name == "f":
        return keywords.keys() <= PARAMETERS
    for signature in SIGNATURES.get(name, ()):
        with contextlib.suppress(TypeError):
            return signature.bind_partial(*call.args, **keywords)
    others = (["jax"], ["jnp"], ["np"], ["nnx"])
    return name not in SIGNATURES or owner in others


def wrong(source):
    """What is wrong, by the code in backquotes."""
    found = {}
    for text in strings(ast.parse(source)):
        for code in re.findall("`([^`]*)`", text):
            if names := [name for name in wrong_names(code) if HOLE not in name]:
                found[code] = names
    return found


def test_names_in_messages_exist():
    assert {file.name: w for file in FILES if (w := wrong(file.read_text()))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "seq_axs=1",
        "sequence_len=",
        "packed_rn",
        "jaxrnn.dynamic_rn",
        "jnp.asaray",
        "{name}.bnd(params)",
        "cell.bind(params, keys=key)",
        "reverse_sequence(inputs, lengths, 1, batch_axes=0)",
        "GRUCell(2, 3, 4, 5, 6, 7, 8, 9)",
    ],
)
def test_a_wrong_name_is_found(code):
    source = f'''"""A `docstring`."""\nfail(f"Pass `{code}`.")'''
    assert wrong(source)
