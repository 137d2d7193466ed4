"""What the reference shows; its pages are the golden of docstrings in Markdown."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


def test_attributes_are_arguments_if_the_constructor_has_them(extensions):
    markdown = extensions("docstrings").markdown
    text = "A.\n\nAttributes:\n    a: An int.\n"
    for arguments, title in (["a", "b"], "Arguments"), (["b"], "Attributes"):
        got = markdown(text, link=lambda code: None, arguments=arguments)
        assert f"**{title}**\n\n- `a`: An int." in got


ENTRIES = [
    # A function, whose types are those of the source.
    ("jaxrnn.dynamic_rnn", "    sequence_length: Lengths | None = None,", True),
    ("jaxrnn.dynamic_rnn", ") -> tuple[PyTree, ...]\n```", True),
    # Fields with checks, and fields of a base class.
    ("jaxrnn.LSTMCell", "class jaxrnn.LSTMCell(\n    num_units: int,\n", True),
    ("jaxrnn.LSTMCell", "    forget_bias: float = 1.0,", True),
    ("jaxrnn.LSTMCell", "[`jaxrnn.RNNCell`](#RNNCell)", True),
    # Defaults that are functions, types and objects.
    ("jaxrnn.Stage", "kernel: Initializer = glorot_uniform", True),
    ("jaxrnn.nnx.RNN", "param_dtype: DType = float32", True),
    ("jaxrnn.extend.fields.size", "(*, default: Any = ...)", True),
    # Arguments that are no attributes, and a method of a private base class.
    ("jaxrnn.nnx.RNN", "    in_features: int | PyTree,\n    *,\n", True),
    ("jaxrnn.nnx.RNN", "Runs the module over sequences.", True),
    # A constant, and an abstract class.
    ("jaxrnn.testing.LAWS", "```python\njaxrnn.testing.LAWS\n```", True),
    ("jaxrnn.RNNCell", "```python\nclass jaxrnn.RNNCell\n```", True),
    # What drivers read, an argument that Flax adds, and JAX's methods.
    ("jaxrnn.LSTMCell", "stages", False),
    ("jaxrnn.LSTMCell", "LSTMCell.enter", False),
    ("jaxrnn.linen.RNN", "parent", False),
    ("jaxrnn.TensorArray", "tree_", False),
]


@pytest.mark.parametrize(("path", "part", "is_shown"), ENTRIES)
def test_an_entry_shows_what_users_need(extensions, path, part, is_shown):
    names = extensions("api_names").public().values()
    [name] = (name for name in names if name.path == path)
    shown = "\n\n".join(extensions("api_entries").entry(name, seen={}))
    assert (part in shown) == is_shown


def test_methods_of_a_private_base_class_are_described_once():
    page = (ROOT / "docs" / "api" / "nnx.md").read_text()
    assert page.count("Runs the module over sequences.") == 1
    assert page.count("\n- [`RNN.__call__`](#RNN.__call__)\n") == 2
