"""Runs the Python blocks of a page and compares what they print: `run_page.py PAGE`.

A text block right below a Python block holds the output of that block. What a trained
network prints depends on the machine's rounding: below `<!-- varies: numbers -->` the
numbers may differ, and below `<!-- varies: lines -->` only the number of lines is
compared. A block that draws is followed by an image. The blocks run in order, in one
namespace, with JAX's default settings.

`run_page.py PAGE --write` writes the outputs into the page, and the images to their
files.
"""

import contextlib
import difflib
import io
import os
import pathlib
import re
import sys
import types

os.environ.setdefault("MPLBACKEND", "agg")

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(\s*^(?P<comment><!-- varies: (?P<varies>\w+) -->\n)?"
    r"```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?|\s")
IMAGE = re.compile(r"^!\[[^\]]*\]\((?P<file>[^)]*)\)", re.MULTILINE)

# What is compared of a line, by the comment above its block.
COMPARED = {
    None: lambda line: line,
    "numbers": lambda line: NUMBER.sub("", line),
    "lines": bool,
}


def run(page, text):
    """Runs the blocks and checks what they print; returns how many there are."""
    count = 0
    for block, line, printed, _ in run_blocks(page, text):
        expected, got = (block["output"] or "").splitlines(), printed.splitlines()
        compared = COMPARED[block["varies"]]
        if list(map(compared, expected)) != list(map(compared, got)):
            difference = "\n".join(difflib.ndiff(expected, got))
            sys.exit(f"{page}:{line}: the block prints something else:\n{difference}")
        count += 1
    return count


def definitions(page):
    """The names from the blocks of a page that begin with an import or a definition."""
    namespace = {}
    for block in BLOCK.finditer(pathlib.Path(page).read_text()):
        if block["code"].startswith(("import ", "class ", "def ")):
            exec(compile(block["code"], page, "exec"), namespace)
    return types.SimpleNamespace(**namespace)


def write(page, text):
    """Returns the page with the outputs of this run, and stores its images."""
    parts, end = [], 0
    for block, _, printed, image in run_blocks(page, text):
        below = f"{block['comment'] or ''}```text\n{printed}```\n" if printed else ""
        parts += [text[end : block.end("code")], "```\n", below]
        end = block.end()
        if image:
            sys.modules["matplotlib.pyplot"].savefig(image, dpi=110)
    return "".join(parts) + text[end:]


def run_blocks(page, text):
    """Yields each block, its line, what it prints, and the image of what it draws."""
    namespace, blocks = {"__name__": "__main__"}, list(BLOCK.finditer(text))
    ends = [block.start() for block in blocks[1:]] + [len(text)]
    for block, end in zip(blocks, ends, strict=True):
        line = text.count("\n", 0, block.start("code"))
        code = compile("\n" * line + block["code"], page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        image, plt = None, sys.modules.get("matplotlib.pyplot")
        if plt is not None and plt.get_fignums():
            link = IMAGE.search(text, block.end(), end)
            if link is None:
                sys.exit(f"{page}:{line}: the block draws, but no image is below it")
            image = pathlib.Path(page).parent / link["file"]
        yield block, line, printed.getvalue(), image
        if plt is not None:
            plt.close("all")


if __name__ == "__main__":
    page = pathlib.Path(sys.argv[1])
    if "--write" in sys.argv:
        page.write_text(write(str(page), page.read_text()))
    else:
        print(run(str(page), page.read_text()))
