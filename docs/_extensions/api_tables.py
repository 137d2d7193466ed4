"""Fills the tables of names in `docs/api`, and makes a page for each name.

`python docs/_extensions/api_tables.py` writes the first line of each docstring into the
tables. To document a new name, add a row with a link to the name, and run this program.
"""

import importlib
import pathlib
import re
import tempfile

API = pathlib.Path(__file__).parents[1] / "api"
ROW = re.compile(r"^\| \[`\w+`\]\(#([\w.]+)\) \|.*\|$", re.MULTILINE)


def fill(text: str) -> str:
    """The text of a page, with the current docstrings in its tables."""
    return ROW.sub(fill_row, text)


def fill_row(row: re.Match) -> str:
    """A row with the first line of the docstring; a constant keeps its row."""
    module, _, name = row[1].rpartition(".")
    value = getattr(importlib.import_module(module), name)
    if not callable(value):
        return row[0]
    return f"| [`{name}`](#{row[1]}) | {value.__doc__.strip().splitlines()[0]} |"


def write_pages(app: object) -> None:
    """Write the pages of all names to `docs/api/generated`."""
    from sphinx.ext.autosummary.generate import generate_autosummary_docs

    text = f".. autosummary::\n   :toctree: {API / 'generated'}\n\n"
    for page in API.glob("*.md"):
        text += "".join(f"   {name}\n" for name in ROW.findall(page.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "names.rst"
        source.write_text(text)
        generate_autosummary_docs([str(source)], app=app)


def link_pages(app: object, page: str, source: list[str]) -> None:
    """Add the pages of the names in a module's tables to the site's navigation."""
    names = ROW.findall(source[0]) if page.startswith("api/") else []
    if names and page != "api/index":
        pages = "".join(f"generated/{name}\n" for name in names)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}```\n"


def setup(app: object) -> dict:
    """Connect the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_pages)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    for page in API.glob("*.md"):
        page.write_text(fill(page.read_text()))
