"""Writes the reference in `docs/api` from the docstrings.

`python docs/_extensions/api_pages.py` fills the tables of names, and writes the entries
of the names below the tables. The introductions and the order of the names are written
by hand. To document a new name, add a row to the table below the module's name, and run
this program.
"""

import pathlib

import docstrings
from api_entries import entry
from api_names import API, names

REFERENCE = """
<!-- docs/_extensions/api_pages.py writes the rest from the docstrings. -->

## Reference

[`jaxrnn.typing`](typing.md) explains the types in the signatures.
"""


def fill(page: pathlib.Path) -> str:
    """The text of a page, from the current docstrings."""
    lines = page.read_text().split(REFERENCE)[0].rstrip("\n").splitlines()
    entries, seen = [], {}
    for i, name in names(page).items():
        first = name.definition.docstring.value.splitlines()[0]
        description = docstrings.escaped(first, link=lambda code: None)
        lines[i] = f"| [`{name.name}`](#{name.anchor}) | {description} |"
        entries += entry(name, seen)
    parts = [REFERENCE.rstrip("\n"), *entries] if entries else []
    return "\n".join(lines) + "\n" + "\n\n".join(parts) + "\n" * bool(parts)


if __name__ == "__main__":
    for page in API.glob("*.md"):
        page.write_text(fill(page))
