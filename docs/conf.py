"""How Sphinx builds the documentation: `sphinx-build -W docs docs/_build`."""

import ast
import importlib
import pathlib
import sys

import jaxrnn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project, author, copyright = "jaxrnn", "the authors of jaxrnn", "the authors of jaxrnn"
version = release = jaxrnn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "pictures",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

# Docstrings have Google's sections; what is in single backquotes is code, and a link
# where it is the name of something documented.
default_role = "py:obj"
napoleon_use_rtype = False
autodoc_typehints = "none"  # The docstrings give shapes and dtypes, which say more.
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = "jaxrnn"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}
copybutton_exclude = ".linenos, .gp, .go"


def find_source(app: object, module: str, name: str) -> str | None:
    """The private module that defines a public name, for the links to its source.

    Public names say that they live in the public module (`set_public_module`), so their
    home is read from that module's imports.
    """
    public = importlib.import_module(module)
    for node in ast.parse(pathlib.Path(public.__file__).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            if name.split(".")[0] in {a.asname or a.name for a in node.names}:
                return importlib.util.resolve_name(
                    "." * node.level + (node.module or ""), public.__package__
                )
    return None


def setup(app: object) -> None:
    """Connects the hooks."""
    app.connect("viewcode-follow-imported", find_source)
