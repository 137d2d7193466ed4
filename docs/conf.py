"""The configuration of Sphinx: `sphinx-build -W docs docs/_build`."""

import ast
import itertools
import pathlib
import re
import sys
import textwrap

import jaxrnn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
import api_tables  # noqa: E402
import cell_pages  # noqa: E402

PACKAGE = pathlib.Path(jaxrnn.__file__).parent

project, author, copyright = "jaxrnn", "the authors of jaxrnn", "the authors of jaxrnn"
version = release = jaxrnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "api_tables",
    "page_list",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Docstrings have Google's sections. Text in single backquotes is code, and a link if it
# names a documented object.
default_role = "py:obj"
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
autodoc_typehints = "none"  # The docstrings give shapes and dtypes instead.
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
autosummary_context = {"cells": cell_pages.describe_cells()}

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "jaxrnn"
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "max_navbar_depth": 2,  # The pages of the modules list the names.
    "home_page_in_toc": True,
    "navbar_persistent": [],  # The search field is in the sidebar.
}
copybutton_exclude = ".linenos, .gp, .go"


def find_source(app: object, module: str, name: str) -> str | None:
    """The private module that defines a public name, for links to the source."""
    file = pathlib.Path(api_tables.source_of(module, name.split(".")[0]))
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def language_of(lines: list[str]) -> str:
    """The language of the block that `lines` begin with: equations are text."""
    is_inside = lambda line: line.startswith("    ") or not line
    block = "\n".join(itertools.takewhile(is_inside, lines))
    try:
        ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return "pycon" if ">>>" in block else "text"
    return "python"


def as_restructured_text(*event: object) -> None:
    """Convert two conventions of docstrings, which `help` shows, to reStructuredText.

    An indented block below a paragraph is code. A letter may follow code: "`Stage`s".
    """
    lines, before = event[-1], ""
    for i, line in enumerate(lines):
        quoted = lambda m: f"{m[1]}\\ {m[2]}" if m[2] else m[1]
        lines[i] = re.sub(r"(`[^`]+`)(\w?)", quoted, line)
        is_block = line.startswith("    ") and before[:1].strip() and not lines[i - 1]
        if is_block:
            lines[i - 1] = f"\n.. code-block:: {language_of(lines[i:])}\n"
        before = line or before
    lines[:] = "\n".join(lines).split("\n")


def link_files(app: object, page: str, source: list[str]) -> None:
    """Make links to Markdown files outside of `docs/`, such as results, downloads."""
    folder = (HERE / page).parent

    def download(link: re.Match) -> str:
        is_page = (folder / link[1]).resolve().is_relative_to(HERE)
        return link[0] if is_page else f"](path:{link[1]})"

    source[0] = re.sub(r"\]\((\.\.[\w./-]*\.md)\)", download, source[0])


def skip_undocumented_call(
    app: object, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Skip a cell's `__call__`, which only raises an error and has no docstring."""
    return True if name == "__call__" and not value.__doc__ else None


def setup(app: object) -> None:
    """Connect the hooks."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=1)
    app.connect("source-read", link_files)
    app.connect("viewcode-follow-imported", find_source)
    app.connect("autodoc-skip-member", skip_undocumented_call)
