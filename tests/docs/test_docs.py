"""What the README and the pages of `docs/` and `examples/` show runs as they say."""

import ast
import concurrent.futures
import importlib
import inspect
import json
import multiprocessing
import os
import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from helpers import assert_near, differentiated, draw, drawn, usual_promotion

import jaxrnn
import jaxrnn.convert
from jaxrnn import LSTMCell, MinGRUCell

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
README = (ROOT / "README.md").read_text()
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


@pytest.mark.fast("README.md")
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page(page, pages, fast_to_compile):
    done = pages.submit(run_page.run, str(page), (ROOT / page).read_text())
    assert done.result() > 0


# What only a clone holds, and the pages about data in a clone, which say so.
OF_A_CLONE = {
    path.stem
    for folder in (".", "tests", "tests/docs", "examples")
    for path in (ROOT / folder).iterdir()
} - {"jaxrnn"}
IN_A_CLONE = {"docs/tutorials/japanese_vowels.md", "docs/recipes/forecasting.md"}


def needed_of_a_clone(code):
    """The modules that a block imports, and the files that it reads, from a clone."""
    nodes = [*ast.walk(ast.parse(code))]
    names = [
        alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names
    ]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    yield from (name for name in names if name.partition(".")[0] in OF_A_CLONE)
    texts = [n.value for n in nodes if isinstance(n, ast.Constant)]
    is_path = lambda text: isinstance(text, str) and "/" in text
    yield from (text for text in filter(is_path, texts) if (ROOT / text).is_file())


def test_pages_run_without_a_clone():
    needed = {
        str(page): found
        for page in PAGES
        if page.parts[0] != "examples"
        for block in run_page.BLOCK.finditer((ROOT / page).read_text())
        if (found := [*needed_of_a_clone(block["code"])])
    }
    assert needed.keys() == IN_A_CLONE
    assert all("clone" in (ROOT / page).read_text() for page in IN_A_CLONE)


def test_what_a_clone_holds_is_found():
    code = "import benchmarks.x, jaxrnn\nfrom tests.a import b\nopen('README.md')"
    code += "\nopen('docs/index.md')"
    assert [*needed_of_a_clone(code)] == ["benchmarks.x", "tests.a", "docs/index.md"]


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


@pytest.mark.slow
def test_the_page_for_linear_attention_differentiates_published_weights():
    """The gradient of one weight, against a difference quotient."""
    with usual_promotion():
        names = run_page.definitions(ROOT / "docs/recipes/linear_attention.md")
        x = draw(2, 5, 16)
        gates = "igate_preact", "fgate_preact"
        sizes = {"q": 8, "k": 8, "v": 16, "ogate_preact": 16} | dict.fromkeys(gates, 2)
        weights = {f"{name}.weight": draw(n, 16) / 4 for name, n in sizes.items()}
        weights |= {f"{name}.bias": draw(2) for name in gates}
        weights["multihead_norm.weight"] = draw(16)

        def loss(weight):
            cell = names.xlstm_cell(weights | {"k.weight": weight}, heads=2)
            return jnp.sum(jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)[0] ** 2)

        weight, direction = weights["k.weight"], draw(8, 16, seed=1)
        got = np.vdot(jax.grad(loss)(weight), direction)
        step = 1e-5 * direction
        want = (loss(weight + step) - loss(weight - step)) / 2e-5
    np.testing.assert_allclose(got, want, rtol=1e-6)


SAID = [
    (None, "loss 0.5", "loss 0.25"),
    (None, "loss 0.5", ""),
    (None, "loss 0.5", "loss 0.5\nloss 0.5"),
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


def test_figures_are_written_to_the_image_below(tmp_path):
    page, image = tmp_path / "page.md", tmp_path / "loss.png"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(1)"
    text = f"```python\n{draw}\n```\n\n"
    with pytest.raises(SystemExit, match="no image is below it"):
        run_page.run(page, text)
    written = run_page.write(page, f"{text}![A loss](loss.png)\n")
    assert "```\n```text\n1\n```\n" in written
    assert image.read_bytes().startswith(b"\x89PNG")
    assert run_page.run(page, written) == 1


MODULES = "contrib convert decode export initializers linen lite memory nnx testing "
MODULES += "typing"


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.mark.parametrize("name", ["", *MODULES.split()])
def test_every_public_name_has_a_row(name, extensions):
    module = importlib.import_module(f"jaxrnn.{name}".removesuffix("."))
    public = {n for n in module.__all__ if not inspect.ismodule(getattr(module, n))}
    rows = [path.rpartition(".") for path in extensions("reference").public().values()]
    assert public == {row for home, _, row in rows if home == module.__name__}


def test_the_tables_of_names_have_the_current_first_sentences(extensions):
    for page in (ROOT / "docs" / "api").glob("*.md"):
        command = "Run `python docs/_extensions/reference.py`."
        assert page.read_text() == extensions("reference").fill(page), command


def test_the_list_has_the_current_heading_and_first_sentence_of_every_page(extensions):
    docs = ROOT / "docs"
    text = (docs / "index.md").read_text()
    assert text == extensions("page_list").fill(text), (
        "Run `docs/_extensions/page_list.py`."
    )
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    listed = set(re.findall(r"\]\(([\w/]+\.md)\)", text))
    assert {page for page in pages if not page.startswith("_")} - listed == {"index.md"}


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


@pytest.mark.slow
def test_a_page_shows_the_same_loop_before_and_after():
    page = (ROOT / "docs/guide/lengths.md").read_text()
    *_, before, after = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    cell = jaxrnn.LSTMCell(16)
    names = {"jax": jax, "jnp": jnp, "jaxrnn": jaxrnn, "cell": cell}
    exec(before + after, names)
    x, lengths = draw(4, 7, 8), np.array([7, 5, 2, 0])
    x[np.arange(7) >= lengths[:, None]] = np.nan
    given = drawn(cell, x[:, 0]), x
    run = lambda name: lambda params, x: names[name](params, x, lengths, draw(4, 7) < 0)
    with jax.numpy_rank_promotion("allow"):
        want = differentiated(run("before"), *given)
    got = differentiated(run("after"), *given)
    assert_near(got, want, tolerance=1e-10)


@pytest.mark.slow
def test_the_port_of_scanned_rnn_draws_its_initial_values_as_flax_does():
    names = run_page.definitions(ROOT / "docs/coming_from/flax.md")
    size = names.TIME, names.ROWS
    given = draw(names.ROWS, names.UNITS), draw(*size, 16)
    given = *map(np.float32, given), np.zeros(size, bool)
    key = jax.random.key(0)
    theirs = names.port(names.OldActorCritic().init(key, *given))["params"]
    ours = names.ActorCritic().init(key, *given)["params"]
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    for params in ours["rnn"], theirs["rnn"]:
        [params] = params.values()
        gates, candidate = params["gates"], params["candidate"]
        from_x, from_h = candidate["input_projection"], candidate["hidden_projection"]
        for part in gates, from_x, from_h:
            assert not part["bias"].any()
        inputs, state = jnp.split(gates["kernel"], 2)
        for kernel in *jnp.split(state, 2, axis=1), from_h["kernel"]:
            np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)
        for kernel in inputs, from_x["kernel"]:
            np.testing.assert_allclose(kernel.std(), 16**-0.5, rtol=0.15)


EVIDENCE = [  # What the README's table says, a page, and what this page says.
    ("a return of 0.999 (of", "examples/rl/README.md", "jaxrnn:     return 0.999 ("),
    ("1), as with a `Sca", "examples/rl/README.md", "ScannedRNN: return 0.999 ("),
    ("at most 5e-6", "docs/conformance.md", "padded and packed | at most 5e-6 |"),
    ("within 1e-10 in", "docs/conformance.md", "of all weights agree to 1e-10"),
    ("`rwkv` within 1e-6", "docs/conformance.md", "outputs agree to 1e-6"),
    ("PyTorch's to 1e-5", "examples/forecasting/README.md", "gradients to 1e-5, on"),
    ("219 MiB for an LSTM", "docs/guide/long_sequences.md", "219 MiB on a CPU"),
    ("5.6 instead of", "docs/guide/long_sequences.md", "and 5.6 MiB with"),
]
# What a page says of the temporary memory, in MiB, of a gradient of the final state.
MEMORY = [
    ("long_sequences", "219 MiB on a CPU", LSTMCell(256), 4000, False),
    ("long_sequences", "5.6 MiB with", LSTMCell(256), 4000, True),
    ("recurrences", "22 MiB on a CPU", MinGRUCell(64), 100_000, False),
    ("recurrences", "1,367 MiB with an LSTM", LSTMCell(64), 100_000, False),
]


@pytest.mark.parametrize(("said", "page", "source"), EVIDENCE)
def test_the_evidence_of_the_readme_is_that_of_its_sources(said, page, source):
    assert said in README
    assert source in (ROOT / page).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("page", "said", "cell", "time", "swap_memory"), MEMORY)
def test_the_memory_that_pages_name_is_that_of_the_program(
    page, said, cell, time, swap_memory
):
    if not jaxrnn.native_status().startswith("native"):
        pytest.skip("needs the native loops")
    options = {"swap_memory": swap_memory}
    if isinstance(cell, LSTMCell):  # The default of a single device.
        options["implementation"] = "native"

    def loss(params, x):
        bound = cell.bind(params)
        _, state = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype, **options)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(state))

    x = jax.ShapeDtypeStruct((8, time, cell.output_size), jnp.float32)
    step = jax.ShapeDtypeStruct((8, cell.output_size), jnp.float32)
    params = jax.eval_shape(cell.init, jax.random.key(0), step)
    program = jax.jit(jax.grad(loss)).lower(params, x).compile()
    got = program.memory_analysis().temp_size_in_bytes / 2**20
    assert said in " ".join((ROOT / f"docs/guide/{page}.md").read_text().split())
    assert got == pytest.approx(float(said.split()[0].replace(",", "")), rel=0.05)


def test_the_readme_counts_the_recorded_runs_of_tensorflow():
    folders = "tf1", "tf1_loops", "seq2seq", "contrib"
    files = [file for name in folders for file in GOLDEN.glob(f"{name}/*.json")]
    runs = sum(len(json.loads(file.read_text())["cases"]) for file in files)
    runs += len(json.loads((GOLDEN / "attention.json").read_text()))
    assert f"{runs} [recorded runs]" in README


def test_one_sentence_says_what_jaxrnn_is():
    [sentence] = re.findall(r"^# jaxrnn\n\n(.*)\.$", README, re.MULTILINE)
    assert jaxrnn.__doc__.startswith(f"{sentence}.\n")
    for file in ("pyproject.toml", "CITATION.cff"):
        assert sentence in (ROOT / file).read_text()
    assert sentence[1:] in (ROOT / "docs/index.md").read_text()


def test_ci_takes_its_commands_from_the_readme():
    for name, end in ("example", ".py"), ("test", "-m pytest"):
        [line] = re.findall(rf"<!-- {name} -->\n```sh\n(.*)\n```", README)
        assert line.endswith(end)
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"sed -n '[^']*' README.md \| grep[^)]*", script).group(0)
    got = subprocess.check_output(["bash", "-c", extract], cwd=ROOT, text=True)
    assert got.strip() == line
