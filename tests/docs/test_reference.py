"""What the pages of the reference show of a name, and which texts a name must have."""

import importlib
import inspect
import pathlib
import pkgutil
import re

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


def test_a_page_says_which_base_class_describes_an_argument(reference):
    text = reference.page_of("jaxrnn.GRUCell")
    assert "`jaxrnn.RNNCell` describes `reuse`, `name`, `dtype`." in text


LINKS = [
    ("guide/cells", "../api/jaxrnn.md#LSTMCell", "#jaxrnn.LSTMCell"),
    ("index", "api/memory.md#Keep", "#jaxrnn.memory.Keep"),
    ("guide/weights", "../api/convert.md#from_torch", "#jaxrnn.convert.from_torch"),
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


def test_every_argument_has_a_text(reference):
    """In the docstring, that of the class, of a base, or of a name in the docstring."""
    silent = []
    for path in sorted({*reference.public().values()}):
        source = reference.source_of(path)
        if source.is_attribute:
            continue
        bases = source.mro() if source.is_class else []
        bases = [each for each in bases if each.path in reference.public()]
        texts = [each.docstring.value for each in (source, *bases)]
        if not inspect.isabstract(pkgutil.resolve_name(path)):
            silent += without_text(reference, path, texts)
        for each in reference.members(path) if source.is_class else []:
            if each.is_function:
                own = [each.docstring.value, *texts]
                silent += without_text(reference, each.path, own)
    assert not silent, "\n".join(silent)


def without_text(reference, path, texts):
    """The arguments of a function or a class of which no text says anything.

    `params: Params` needs no text, because the page of the type has one.
    """
    code = re.findall(r"`([^`]+)`", "\n".join(texts))
    module = path.rpartition(".")[0]
    named = [f"{prefix}{each}" for each in code for prefix in ("jaxrnn.", f"{module}.")]
    for each in {*code, *named} & reference.public().keys():
        texts = [*texts, reference.source_of(each).docstring.value]
    described = set().union(*map(reference.described, texts))
    described |= {word for each in code for word in re.findall(r"\w+", each)}
    return [
        f"{path}: {name}"
        for name, each in reference.signature(path).parameters.items()
        if name not in described
        and name not in map(str.lower, re.findall(r"\w+", each.annotation))
    ]
