"""The public names, which the tables of the pages in `docs/api` list."""

import dataclasses
import functools
import importlib
import pathlib
import re

import griffe
from cell_examples import is_concrete_cell

ROOT = pathlib.Path(__file__).parents[2]
API = ROOT / "docs" / "api"
MODULE = re.compile(r"^#+ (jaxrnn[\w.]*)$")
ROW = re.compile(r"^\| \[`(\w+)`\]\([^)]*\) \| .* \|$")


@dataclasses.dataclass(frozen=True)
class Name:
    """A public name, with the page and the module that list it."""

    page: str
    module: str
    name: str

    @property
    def path(self) -> str:
        """What users write: `jaxrnn.memory.Keep`."""
        return f"{self.module}.{self.name}"

    @property
    def anchor(self) -> str:
        """The heading, and what follows the page in a link: `memory.md#Keep`."""
        parts = [part for part in self.module.split(".")[1:] if part != self.page]
        return ".".join([*parts, self.name])

    @property
    def value(self) -> object:
        """The object."""
        return getattr(importlib.import_module(self.module), self.name)

    @functools.cached_property
    def definition(self) -> griffe.Object:
        """The source of the object, also if the module imports it from elsewhere."""
        found = package()[self.path.removeprefix("jaxrnn.")]
        return found.final_target if found.is_alias else found


@functools.cache
def package() -> griffe.Module:
    """The source of the package."""
    return griffe.load("jaxrnn", search_paths=[ROOT])


def names(page: pathlib.Path) -> dict[int, Name]:
    """The names in the tables of a page, by the number of the line."""
    module, found = "", {}
    for i, line in enumerate(page.read_text().splitlines()):
        if heading := MODULE.match(line):
            module = heading[1]
        elif row := ROW.match(line):
            found[i] = Name(page.stem, module, row[1])
    return found


@functools.cache
def public() -> dict[str, Name]:
    """All names, by the paths of their definitions."""
    found = [name for page in API.glob("*.md") for name in names(page).values()]
    return {name.definition.path: name for name in found}


@functools.cache
def addresses(page: str) -> dict[str, str]:
    """The links on a page, by what docstrings write: `Keep` or `memory.Keep`."""
    found = {f"jaxrnn.{each.stem}": each.name for each in API.glob("*.md")}
    for name in public().values():
        is_here = name.page == page
        address = f"#{name.anchor}" if is_here else f"{name.page}.md#{name.anchor}"
        methods = [each.name for each in own_members(name) if each.is_function]
        texts = [name.path, name.path.removeprefix("jaxrnn."), *[name.anchor] * is_here]
        for text in texts:
            found[text] = address
            found |= {f"{text}.{method}": f"{address}.{method}" for method in methods}
    return found


def own_members(name: Name) -> list[griffe.Object]:
    """The documented members of a class that no public base class describes.

    Drivers call most methods of a built-in cell. Its entry describes only its sizes,
    and what no base class has.
    """
    if not name.definition.is_class:
        return []
    shown, hidden, is_cell = {}, set(), is_concrete_cell(name.value)
    for each in [name.definition, *name.definition.mro()]:
        is_base, is_public = each is not name.definition, each.path in public()
        for key, member in each.members.items():
            # JAX calls the methods `tree_...` of a pytree.
            is_private = key.startswith(("_", "tree_")) and key != "__call__"
            if is_private or not member.docstring:
                continue
            is_internal = is_cell and key not in ("state_size", "output_size")
            if is_base and (is_public or is_internal):
                hidden.add(key)
            else:
                shown.setdefault(key, member)
    return [member for key, member in shown.items() if key not in hidden]


def slug(heading: str) -> str:
    """What follows the page in a link to a heading. Public names keep their case."""
    anchors = {name.anchor for name in public().values()}
    if heading in anchors or heading.rpartition(".")[0] in anchors:
        return heading
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
