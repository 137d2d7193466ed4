"""Fills the list of pages in `docs/index.md`, which is also the site's navigation.

`python docs/_extensions/page_list.py` writes the heading and the first sentence of each
page into the list. To add a page, add a row with a link to the page, and run this
program.
"""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[1]
ROW = re.compile(r"^- \[[^\]]*\]\(([\w/.]+)\.md\).*$", re.MULTILINE)
SECTION = re.compile(r"^## (.*)\n((?:\n|- .*\n)+)", re.MULTILINE)


def fill(text: str) -> str:
    """The list, with the current headings and first sentences."""
    return ROW.sub(lambda row: describe(row[1]), text)


def describe(page: str) -> str:
    """The row of a page."""
    title, first = (DOCS / f"{page}.md").read_text().split("\n\n")[:2]
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", first.replace("\n", " "))
    sentence = re.match(r".*?[.?](?= |$)", text)[0].rstrip(".")
    return f"- [{title.removeprefix('# ')}]({page}.md): {sentence}"


def navigation(text: str) -> str:
    """The navigation of the site: a table of contents for each section of the list."""

    def toctree(section: re.Match) -> str:
        pages = "\n".join(map(document, ROW.findall(section[2])))
        options = f":caption: {section[1]}\n:maxdepth: 1\n:hidden:"
        return f"{section[0]}\n```{{toctree}}\n{options}\n\n{pages}\n```\n\n"

    return SECTION.sub(toctree, text)


def document(page: str) -> str:
    """The site's name of a page; `repository.py` copies the pages outside of `docs`."""
    return page.replace("../", "repository/")


def introduction() -> str:
    """What README.md says before its commands for a clone, with links from `docs/`."""
    text = (DOCS.parent / "README.md").read_text().partition("## Development")[0]
    return re.sub(r"\]\((?![a-z]+:|docs/|#)", "](../", text).replace("](docs/", "](")


def add_navigation(app: object, page: str, source: list[str]) -> None:
    """Add the navigation and the README's introduction to the front page."""
    if page == "index":
        app.env.note_dependency(DOCS.parent / "README.md")
        start = f"{introduction()}## Documentation\n"
        source[0] = navigation(source[0]).replace("# Documentation\n", start, 1)


def setup(app: object) -> dict:
    """Connect the hook."""
    app.connect("source-read", add_navigation)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    index = DOCS / "index.md"
    index.write_text(fill(index.read_text()))
