"""The configuration of Sphinx: `sphinx-build -W docs docs/_build`."""

import pathlib
import re
import sys

import jaxrnn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project, author, copyright = "jaxrnn", "the authors of jaxrnn", "the authors of jaxrnn"
version = release = jaxrnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "page_list",
    "reference",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 4

default_role = "py:obj"  # In docstrings, backquotes hold code and public names.
autodoc_typehints = "none"  # `reference` writes the types.
napoleon_custom_sections = [
    ("Attributes", "params_style"),
    ("Other Parameters", "params_style"),
]
highlight_language = "none"  # Blocks without prompts are equations.
suppress_warnings = ["ref.python"]  # `RNNCellLike` is in two modules.
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

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


def link_files(app: object, page: str, source: list[str]) -> None:
    """Make links to files outside of `docs/`, such as results and source, downloads."""
    folder = (HERE / page).parent

    def download(link: re.Match) -> str:
        is_page = (folder / link[1]).resolve().is_relative_to(HERE)
        return link[0] if is_page else f"](path:{link[1]})"

    source[0] = re.sub(r"\]\((\.\.[\w./-]*\.(?:md|py))\)", download, source[0])


def setup(app: object) -> None:
    """Connect the hook."""
    app.connect("source-read", link_files)
