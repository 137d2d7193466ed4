"""What the pages of the reference show of a name, and which texts a name must have."""

import importlib
import inspect
import pathlib
import pkgutil

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module("reference")


SIGNATURES = [
    # A function, whose types are those of the source.
    ("jaxrnn.dynamic_rnn", "sequence_length: Lengths | None = None, initial"),
    ("jaxrnn.dynamic_rnn", "scope: str | None = None, *, resets: ArrayLike"),
    # Fields with checks, and fields of a base class.
    ("jaxrnn.LSTMCell", "(num_units: int, use_peepholes: bool = False"),
    ("jaxrnn.contrib.Conv2DLSTMCell", "forget_bias: float = 1.0"),
    # Defaults that are functions, types and objects.
    ("jaxrnn.Stage", "kernel: Initializer = glorot_uniform"),
    ("jaxrnn.nnx.RNN", "param_dtype: DType = float32"),
    ("jaxrnn.extend.fields.size", "(*, default: Any = ...)"),
    # A method that declares the type of `self`.
    ("jaxrnn.BoundCell.start", "(state: PyTree)"),
    # Arguments that are no attributes, without those that Flax adds.
    ("jaxrnn.nnx.RNN", "(cell: RNNCell[State], in_features: int | PyTree, *, time"),
    ("jaxrnn.linen.RNN", "(cell: RNNCell[State], *, time_major: bool = False"),
]


@pytest.mark.parametrize(("path", "part"), SIGNATURES)
def test_a_signature_has_the_types_of_the_source(reference, path, part):
    value = pkgutil.resolve_name(path)
    kind = "class" if inspect.isclass(value) else "function"
    assert part in reference.write_signature(None, kind, path, value)[0]


MEMBERS = [
    # The sizes of a cell, without what drivers call.
    ("jaxrnn.LSTMCell", {"output_size", "state_size"}),
    # The methods of a private base class.
    ("jaxrnn.nnx.Bidirectional", {"__call__", "get_cells", "set_cells", "set_view"}),
    # No methods that JAX calls on a pytree.
    ("jaxrnn.memory.Recompute", set()),
]


@pytest.mark.parametrize(("path", "names"), MEMBERS)
def test_a_page_describes_what_no_public_base_class_describes(reference, path, names):
    assert {each.name for each in reference.members(path)} == names


LINKS = [
    ("guide/cells", "../api/jaxrnn.md#LSTMCell", "#jaxrnn.LSTMCell"),
    ("index", "api/memory.md#Keep", "#jaxrnn.memory.Keep"),
    ("guide/weights", "../api/convert.md#torch.load", "#jaxrnn.convert.torch.load"),
    ("api/jaxrnn", "#RNNCell", "#jaxrnn.RNNCell"),
    ("guide/cells", "../api/contrib.md#attention", "../api/contrib.md#attention"),
    ("guide/cells", "#LSTMCell", "#LSTMCell"),
]


@pytest.mark.parametrize(("page", "link", "target"), LINKS)
def test_links_to_rows_of_tables_lead_to_pages(reference, page, link, target):
    file = ROOT / "docs" / f"{page}.md"
    source = [f"{file.read_text()}\n[A link.]({link})\n"]
    reference.link_names(None, page, source)
    assert source[0].endswith(f"\n[A link.]({target})\n")


def test_rows_of_tables_lead_to_pages(reference):
    source = [(reference.API / "contrib.md").read_text()]
    reference.link_names(None, "api/contrib", source)
    assert "| [`dynamic_rnn`](#jaxrnn.lite.dynamic_rnn) | Runs `cell` over" in source[0]


def test_code_before_a_letter_is_separated(reference):
    assert reference.separate("Two `Array`s, `x`.") == "Two `Array`\\ s, `x`."
