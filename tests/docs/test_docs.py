"""The code of pages runs as they say, links lead somewhere, the reference is whole."""

import concurrent.futures
import importlib
import inspect
import multiprocessing
import os
import pathlib
import pkgutil
import re

import jax
import numpy as np
import pytest
import run_page
from helpers import assert_near, usual_promotion

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
# Pages that need other packages: `tests/compilers` runs them.
ELSEWHERE = {"accelerators.md"}
PAGES = [
    page.relative_to(ROOT)
    for page in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("*.md")),
    )
    if "```python" in page.read_text()
    and page.name not in ELSEWHERE
    and "_build" not in page.parts
]


@pytest.fixture(scope="module")
def pages(users_flags):
    """Runs each page in a process of its own, which has already imported packages."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flax.nnx", "jaxrnn.nnx", "matplotlib.pyplot"])
    with concurrent.futures.ProcessPoolExecutor(
        1, context, initializer=os.chdir, initargs=(ROOT,), max_tasks_per_child=1
    ) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page(page, pages, fast_to_compile):
    done = pages.submit(run_page.run, str(page), (ROOT / page).read_text())
    assert done.result() > 0


def test_the_readme_in_this_process(users_settings):
    """A process of its own would import all packages again."""
    assert run_page.run("README.md", (ROOT / "README.md").read_text()) == 2


def test_the_page_for_pytorch_gives_the_results_of_pytorch():
    """With its weights, its batch and its results, which are recorded."""
    recorded = dict(np.load(GOLDEN / "convert" / "torch_checkpoint.npz"))
    text = (ROOT / "docs/coming_from/pytorch.md").read_text()
    imports, run, *_ = [block["code"] for block in run_page.BLOCK.finditer(text)]
    names = {}
    exec(imports, names)
    names |= {"frames": recorded.pop("x"), "lengths": recorded.pop("lengths")}
    want = {name: recorded.pop(name) for name in ("outputs", "h", "c", "logits")}
    assert recorded.keys() == names["state_dict"].keys()
    with usual_promotion():
        exec(run, names | {"state_dict": recorded}, got := {})
    assert_near({name: got[name] for name in want}, want, tolerance=1e-5)


SAID = [
    (None, "loss 0.5", "loss 0.25"),
    ("numbers", "loss -1e-7", "gain 0.5"),
    ("lines", "other text", ""),
]


@pytest.mark.parametrize(("varies", "same", "other"), SAID)
def test_a_page_that_says_something_else_is_found(varies, same, other):
    comment = f"<!-- varies: {varies} -->\n" if varies else ""
    code = '```python\nx = "loss"\n```\n```python\nprint(x, 0.5)\n```\n'
    text = f"# A page\n\n{code}{comment}```text\n%s\n```\n"
    assert run_page.run("page.md", text % same) == 2
    with pytest.raises(SystemExit, match=r"page.md:6: the block prints something"):
        run_page.run("page.md", text % other)


def test_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`([\w/]+/\w+\.py)`", text):
        assert (ROOT / name).exists() or (ROOT / "jaxrnn" / name).exists(), name


def test_links_in_the_repository_lead_somewhere():
    """Links to files, and to headings and rows of tables in pages."""
    folders = "docs", "examples", "benchmarks", "native", "tests"
    files = [*ROOT.glob("*.md")]
    files += [file for name in folders for file in (ROOT / name).rglob("*.md")]
    texts = {file: without_code(file) for file in files if "_build" not in file.parts}
    anchors = {file: anchors_of(text) for file, text in texts.items()}
    dead = []
    for file, text in texts.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            is_dead = not target.exists() or (
                anchor and target.suffix == ".md" and anchor not in anchors[target]
            )
            if is_dead and not re.match("[a-z]+:", link):
                dead.append(f"{file.relative_to(ROOT)}: {link}")
    assert dead == []


def without_code(file):
    return re.sub(
        r"^ *```.*?^ *```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def anchors_of(text):
    """The anchors of headings, as repositories make them, and those in the text."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings]
    return {name.replace(" ", "-") for name in names} | set(
        re.findall(r'<a id="([^"]+)"', text)
    )


@pytest.mark.slow
def test_adam_of_the_page_on_tensorflow_1():
    """TensorFlow's documented formula, also for gradients as small as epsilon."""
    page = (ROOT / "docs/coming_from/tensorflow1.md").read_text()
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names := {})
    gradients = np.geomspace(1e-9, 1, 60).reshape(20, 3).astype(np.float32)
    optimizer = names["tf_adam"](0.01)
    state = optimizer.init(gradients[0])
    m = v = np.zeros(3)
    for t, gradient in enumerate(gradients, 1):
        got, state = jax.jit(optimizer.update)(gradient, state)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.astype(float) ** 2
        rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        np.testing.assert_allclose(got, -rate * m / (np.sqrt(v) + 1e-8), rtol=1e-4)


# The reference.

MODULES = "contrib convert decode export initializers linen lite memory nnx testing "
MODULES += "typing"


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.fixture
def reference(extensions):
    return extensions("reference")


@pytest.mark.parametrize("name", ["", *MODULES.split()])
def test_every_public_name_has_a_row(name, reference):
    module = importlib.import_module(f"jaxrnn.{name}".removesuffix("."))
    public = {n for n in module.__all__ if not inspect.ismodule(getattr(module, n))}
    rows = [path.rpartition(".") for path in reference.public().values()]
    assert public == {row for home, _, row in rows if home == module.__name__}


def test_the_tables_of_names_have_the_current_first_sentences(reference):
    for page in (ROOT / "docs" / "api").glob("*.md"):
        command = "Run `python docs/_extensions/reference.py`."
        assert page.read_text() == reference.fill(page), command


def test_the_list_has_the_current_heading_and_first_sentence_of_every_page(extensions):
    docs = ROOT / "docs"
    text = (docs / "index.md").read_text()
    command = "Run `docs/_extensions/page_list.py`."
    assert text == extensions("page_list").fill(text), command
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    listed = set(re.findall(r"\]\(([\w/]+\.md)\)", text))
    assert {page for page in pages if not page.startswith("_")} - listed == {"index.md"}


def test_signatures_and_members_of_a_page(reference):
    value = jaxrnn.dynamic_rnn
    text = reference.write_signature(None, "function", "jaxrnn.dynamic_rnn", value)[0]
    assert "sequence_length: Lengths | None = None, initial" in text
    names = {each.name for each in reference.members("jaxrnn.nnx.Bidirectional")}
    assert names == {"__call__", "get_cells", "set_cells", "set_view"}


def test_links_to_rows_of_tables_lead_to_pages(reference):
    page = ROOT / "docs/guide/cells.md"
    source = [f"{page.read_text()}\n[A link.](../api/jaxrnn.md#LSTMCell)\n"]
    reference.link_names(None, "guide/cells", source)
    assert source[0].endswith("\n[A link.](#jaxrnn.LSTMCell)\n")


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
