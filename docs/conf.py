"""The configuration of Sphinx: `sphinx-build -W docs docs/_build`."""

import pathlib
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
    "repository",  # Leads the links that `page_list` adds to the front page.
    "reference",  # Leads links to names, also those that `repository` has led.
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown", ".copy": "markdown"}
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
html_title = f"jaxrnn {version}"
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "repository_url": "https://github.com/jaxrnn/jaxrnn",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,  # It leads to the source of the page.
    "show_toc_level": 2,
    "max_navbar_depth": 2,  # The pages of the modules list the names.
    "home_page_in_toc": True,
    "navbar_persistent": [],  # The search field is in the sidebar.
}
copybutton_exclude = ".linenos, .gp, .go"
