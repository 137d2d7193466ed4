"""The directive `picture`: a figure that is drawn at build time, for light and dark.

    :::{picture} lengths
    :alt: What the picture shows, for those who do not see it.

    The caption.
    :::

`docs/pictures/lengths.py` has a function `draw() -> matplotlib.figure.Figure`. It is
called once with each of matplotlib's styles "default" and "dark_background".
"""

import importlib.util
import pathlib
import sys
from typing import ClassVar

import matplotlib
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

matplotlib.use("agg")
import matplotlib.pyplot as plt

# Pictures share the module `boxes`.
sys.path.append(str(pathlib.Path(__file__).parents[1] / "pictures"))
STYLES = {"light": "default", "dark": "dark_background"}
COMMON = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxrnn",
    "savefig.transparent": True,
    "savefig.bbox": "tight",
    "font.size": 11,
}


def draw(script: pathlib.Path, folder: pathlib.Path) -> None:
    """Draws a picture for both themes, `<folder>/<name>-<theme>.svg`."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for theme, style in STYLES.items():
        with plt.style.context([style, COMMON]):
            figure = module.draw()
            file = folder / f"{script.stem}-{theme}.svg"
            figure.savefig(file, metadata={"Date": None})
            plt.close(figure)


class Picture(SphinxDirective):
    """A figure with an image for each theme; the argument is the name of a script."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The figures, of which the theme shows one."""
        name = self.arguments[0]
        source = pathlib.Path(self.env.srcdir)
        script, folder = source / "pictures" / f"{name}.py", source / "_pictures"
        folder.mkdir(exist_ok=True)
        self.env.note_dependency(str(script))
        draw(script, folder)
        figures = []
        for theme in STYLES:
            uri = f"/_pictures/{name}-{theme}.svg"
            image = nodes.image(uri=uri, alt=self.options["alt"])
            figure = nodes.figure("", image, classes=[f"only-{theme}", "picture"])
            if self.content:
                caption = nodes.caption("", "")
                self.state.nested_parse(self.content, self.content_offset, caption)
                text = [child for p in caption.children for child in p.children]
                figure += nodes.caption("", "", *text)
            figures.append(figure)
        return figures


def setup(app: object) -> dict:
    """Registers the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
