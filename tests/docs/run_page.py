"""Runs the Python blocks of a page and compares what they print: `run_page.py PAGE`.

A block of text right below a block of Python is what the latter prints. The blocks run
in order, in one namespace, with JAX's default settings.
"""

import contextlib
import difflib
import io
import pathlib
import re
import sys

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(\s*^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


def run(page, text):
    """Runs the blocks and returns how many there are."""
    namespace, blocks = {"__name__": "__main__"}, list(BLOCK.finditer(text))
    for block in blocks:
        line = text.count("\n", 0, block.start("code"))
        code = compile("\n" * line + block["code"], page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        pair = (block["output"] or "").splitlines(), printed.getvalue().splitlines()
        difference = "\n".join(difflib.ndiff(*pair))
        if pair[0] != pair[1]:
            sys.exit(f"{page}:{line}: the block prints something else:\n{difference}")
    return len(blocks)


if __name__ == "__main__":
    print(run(sys.argv[1], pathlib.Path(sys.argv[1]).read_text()))
