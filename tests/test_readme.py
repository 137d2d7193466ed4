"""The README's code runs as it stands, and CI runs the README's command."""

import contextlib
import io
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_code_blocks_print_what_the_readme_says(users_flags):
    # In a process of its own, for JAX's usual settings.
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    wanted = re.findall(r"^```text\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 3
    assert run.stdout == "".join(wanted)


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


def test_draw_lengths(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import draw_lengths

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        draw_lengths.main(tmp_path / "lengths.png")
    assert "lengths.png" in printed.getvalue()
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
