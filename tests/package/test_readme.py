"""The README's code runs unchanged, and CI runs the README's command."""

import ast
import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import re
import subprocess
import symtable
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@dataclasses.dataclass(frozen=True)
class Block:
    """Code of the README, what is printed below it, and where it stands."""

    heading: str
    number: int
    code: str
    output: str = ""

    @functools.cached_property
    def names(self):
        """Global names that the code reads before it binds them, and all it binds."""
        reads, binds = set(), set()
        for statement in ast.parse(self.code).body:
            top = symtable.symtable(ast.unparse(statement), "README.md", "exec")
            symbols = [
                symbol for table in scopes(top) for symbol in table.get_symbols()
            ]
            read = {
                s.get_name() for s in symbols if s.is_referenced() and s.is_global()
            }
            reads |= read - binds
            bound = [s for s in top.get_symbols() if s.is_assigned() or s.is_imported()]
            binds |= {symbol.get_name() for symbol in bound}
        return reads, binds


def scopes(table):
    """A table of symbols and those within it."""
    yield table
    for inner in table.get_children():
        yield from scopes(inner)


def parse(text):
    """The blocks of Python in a README, each with the block of text right below it."""
    found, heading, end = [], "", 0
    fence = r"^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    for match in re.finditer(rf"^#+ ([^\n]+)|{fence}", text, re.DOTALL | re.MULTILINE):
        if match["language"] == "python":
            number = 1 + sum(block.heading == heading for block in found)
            found.append(Block(heading, number, match["code"]))
        elif match["language"] == "text":
            assert not text[end : match.start()].strip(), "It belongs to no code."
            found[-1] = dataclasses.replace(found[-1], output=match["code"])
        elif match[1]:
            heading = match[1]
        end = match.end()
    return found


BLOCKS = parse(README)


def needed(index):
    """The blocks that a block depends on, and itself."""
    found = {index}
    for name in BLOCKS[index].names[0]:
        earlier = [i for i in range(index) if name in BLOCKS[i].names[1]]
        found |= needed(earlier[-1]) if earlier else set()
    return found


def as_parameter(index):
    block = BLOCKS[index]
    # To check all laws takes as long as all other blocks.
    is_fast = block.number == 1 and "check_cell(" not in block.code
    marks = [] if is_fast else [pytest.mark.slow]
    return pytest.param(index, id=f"{block.heading}-{block.number}", marks=marks)


@pytest.fixture(scope="module")
def user(users_flags):
    """A separate process, which has JAX's default settings."""
    program = [sys.executable, pathlib.Path(__file__).with_name("run_blocks.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, cwd=ROOT, text=True, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("index", [as_parameter(i) for i in range(len(BLOCKS))])
def test_block(index, user):
    blocks = [[i, BLOCKS[i].code] for i in sorted(needed(index))]
    print(json.dumps(blocks), file=user.stdin, flush=True)
    printed, failure = json.loads(user.stdout.readline())
    assert failure is None, failure
    assert printed == BLOCKS[index].output


def test_there_are_blocks():
    assert len(BLOCKS) > 3


def test_a_block_goes_on_from_what_it_reads_alone(monkeypatch):
    fences = ["x = 1", "y = x", "x = 2", "print(y)", "z = 0; print(z)\n```\n```text\n0"]
    text = "# One\n" + "\n".join(f"```python\n{code}\n```" for code in fences)
    monkeypatch.setitem(globals(), "BLOCKS", parse(text))
    assert [sorted(needed(i)) for i in range(5)] == [[0], [0, 1], [2], [0, 1, 3], [4]]
    assert [block.output for block in BLOCKS] == ["", "", "", "", "0\n"]


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("name", ["example", "test"])
def test_each_command_is_one_line(name):
    block = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert len(block.group(1).splitlines()) == 1


def test_ci_takes_its_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"sed -n '[^']*' README.md \| grep[^)]*", script).group(0)
    got = subprocess.run(
        ["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert got.stdout.strip().endswith("-m pytest")
    assert got.stdout.strip() in README


@pytest.mark.slow
def test_draw_lengths(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import draw_lengths

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        draw_lengths.main(tmp_path / "lengths.png")
    assert "lengths.png" in printed.getvalue()
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
