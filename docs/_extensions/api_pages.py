"""Fills the tables of names in `docs/api`, and makes the site's page for each name.

`python docs/_extensions/api_tables.py` writes a row: a link to the file whose docstring
is the reference, and the first line of the docstring. To document a new name, add a row
to the table below the module's name, and run this program.
"""

import ast
import functools
import importlib
import os
import pathlib
import re
import tempfile

API = pathlib.Path(__file__).parents[1] / "api"
MODULE = re.compile(r"^#+ (jaxrnn[\w.]*)$")
ROW = re.compile(r'^\| (?:<a id="[\w.]+"></a>)?\[`(\w+)`\]\([^)]*\) \| (.*) \|$')
LINK = re.compile(r"\]\((?:[\w./]*/)?(\w+)\.md#([A-Za-z_][\w.]*)\)")


def names(text: str) -> dict[int, tuple[str, str]]:
    """The module and the name of each row of a page, by the number of the line."""
    module, found = "", {}
    for i, line in enumerate(text.splitlines()):
        if heading := MODULE.match(line):
            module = heading[1]
        elif row := ROW.match(line):
            found[i] = module, row[1]
    return found


def anchor(module: str, name: str) -> str:
    """What follows the page in a link to a name: `memory.md#Keep`."""
    return ".".join([*module.split(".")[2:], name])


def fill(text: str) -> str:
    """The text of a page, with the current files and docstrings in its tables."""
    lines = text.splitlines()
    for i, (module, name) in names(text).items():
        value = getattr(importlib.import_module(module), name)
        description = ROW.match(lines[i])[2]  # A constant has no docstring.
        if callable(value):
            description = value.__doc__.strip().splitlines()[0]
        file = os.path.relpath(source_of(module, name), API)
        link = f'<a id="{anchor(module, name)}"></a>[`{name}`]({file})'
        lines[i] = f"| {link} | {description} |"
    return "\n".join(lines) + "\n"


def source_of(module: str, name: str) -> str:
    """The file that defines a public name.

    `export` sets `__module__` of public names to the public module. So this function
    follows the imports of the public module.
    """
    found = importlib.import_module(module)
    for node in ast.parse(pathlib.Path(found.__file__).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    relative = "." * node.level + (node.module or "")
                    inner = importlib.util.resolve_name(relative, found.__package__)
                    return source_of(inner, alias.name)
    return found.__file__


def write_pages(app: object) -> None:
    """Write the site's pages of all names to `docs/api/generated`."""
    from sphinx.ext.autosummary.generate import generate_autosummary_docs

    text = f".. autosummary::\n   :toctree: {API / 'generated'}\n\n"
    for page in API.glob("*.md"):
        for module, name in names(page.read_text()).values():
            text += f"   {module}.{name}\n"
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "names.rst"
        source.write_text(text)
        generate_autosummary_docs([str(source)], app=app)


@functools.cache
def public_names() -> dict[tuple[str, str], str]:
    """The full name of each row, by the page and the anchor that a link has."""
    return {
        (page.stem, anchor(module, name)): f"{module}.{name}"
        for page in API.glob("*.md")
        for module, name in names(page.read_text()).values()
    }


def link_names(app: object, page: str, source: list[str]) -> None:
    """Turn links to rows of the tables into links to the site's pages of the names."""
    public = public_names()

    def target(link: re.Match) -> str:
        return f"](#{public[link.groups()]})" if link.groups() in public else link[0]

    if re.fullmatch(r"api/\w+", page):
        source[0] = link_pages(source[0])
    source[0] = LINK.sub(target, source[0])


def link_pages(text: str) -> str:
    """A page of the API that links the pages of its names, also in the navigation."""
    lines, pages = text.splitlines(), ""
    for i, (module, name) in names(text).items():
        row = ROW.match(lines[i])
        lines[i] = f"| [`{name}`](#{module}.{name}) | {row[2]} |"
        pages += f"generated/{module}.{name}\n"
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", pages, "```", ""])


def setup(app: object) -> dict:
    """Connect the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_names)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    for page in API.glob("*.md"):
        page.write_text(fill(page.read_text()))
