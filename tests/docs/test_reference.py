"""The conversion of docstrings to the Markdown of the reference."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCSTRING = """\
Runs a cell, `Cell` or <other> * 2.

    h' = f(x)

Args:
    cell: The cell, `size`:

        - one `Cell`
    *rest: Others,
        in order.

Returns:
    A pair: `(h, c)`.

Raises:
    ValueError: If `cell` is None.

Example:
    >>> for i in range(2):
    ...     print(i)
    0
    1
    >>> 2 + 3  # doctest: +SKIP
    5

Source: arXiv:1.
"""
MARKDOWN = """\
Runs a cell, [`Cell`](#Cell) or \\<other> \\* 2.

```text
h' = f(x)
```

**Arguments**

- `cell`: The cell, `size`:

  - one [`Cell`](#Cell)
- `*rest`: Others,
  in order.

**Returns**

A pair: `(h, c)`.

**Raises**

- `ValueError`: If `cell` is None.

**Example**

```python
for i in range(2):
    print(i)
# 0
# 1

2 + 3
# 5
```

Source: arXiv:1."""


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


def test_a_docstring_becomes_markdown(extensions):
    markdown = extensions("docstrings").markdown
    assert markdown(DOCSTRING, link={"Cell": "#Cell"}.get) == MARKDOWN


def test_attributes_are_arguments_if_the_constructor_has_them(extensions):
    markdown = extensions("docstrings").markdown
    text = "A.\n\nAttributes:\n    a: An int.\n"
    for arguments, title in (["a", "b"], "Arguments"), (["b"], "Attributes"):
        got = markdown(text, link=lambda code: None, arguments=arguments)
        assert f"**{title}**\n\n- `a`: An int." in got


def entry(extensions, path):
    names = extensions("api_names").public().values()
    (name,) = (name for name in names if name.path == path)
    return "\n\n".join(extensions("api_entries").entry(name, seen={}))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        # A function, whose types are those of the source.
        ("jaxrnn.dynamic_rnn", "    sequence_length: Lengths | None = None,"),
        ("jaxrnn.dynamic_rnn", ") -> tuple[PyTree, ...]\n```"),
        # Fields with checks, and fields of a base class.
        ("jaxrnn.LSTMCell", "class jaxrnn.LSTMCell(\n    num_units: int,\n"),
        ("jaxrnn.LSTMCell", "    forget_bias: float = 1.0,"),
        ("jaxrnn.LSTMCell", "[`jaxrnn.RNNCell`](#RNNCell)"),
        # Defaults that are functions, types and objects.
        ("jaxrnn.Stage", "kernel: Initializer = glorot_uniform"),
        ("jaxrnn.nnx.RNN", "param_dtype: DType = float32"),
        ("jaxrnn.extend.fields.size", "(*, default: Any = ...)"),
        # Arguments that are no attributes, and a method of a private base class.
        ("jaxrnn.nnx.RNN", "    in_features: int | PyTree,\n    *,\n"),
        ("jaxrnn.nnx.RNN", "Runs the module over sequences."),
        # A constant, and an abstract class.
        ("jaxrnn.testing.LAWS", "```python\njaxrnn.testing.LAWS\n```"),
        ("jaxrnn.RNNCell", "```python\nclass jaxrnn.RNNCell\n```"),
    ],
)
def test_an_entry_shows(extensions, path, shown):
    assert shown in entry(extensions, path)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("jaxrnn.LSTMCell", "stages"),  # Drivers read it; `AffineCell` describes it.
        ("jaxrnn.LSTMCell", "LSTMCell.enter"),
        ("jaxrnn.linen.RNN", "parent"),  # Flax adds this argument.
        ("jaxrnn.TensorArray", "tree_"),
    ],
)
def test_an_entry_does_not_show(extensions, path, hidden):
    assert hidden not in entry(extensions, path)


def test_methods_of_a_private_base_class_are_described_once(extensions):
    page = (ROOT / "docs" / "api" / "nnx.md").read_text()
    assert page.count("Runs the module over sequences.") == 1
    assert page.count("\n- [`RNN.__call__`](#RNN.__call__)\n") == 2
