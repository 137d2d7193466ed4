"""The reference: a page for each public name, which Sphinx's autodoc fills.

The pages in `docs/api` list the names. To document a new name `f`, add the line
"- [`f`]()" to the list below the module's name, and run
`python docs/_extensions/reference.py`, which writes the file, the first line of the
docstring and the signature of each name into the lists.
"""

import functools
import inspect
import os
import pathlib
import pkgutil
import re

import griffe

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
API = ROOT / "docs" / "api"
MODULE = re.compile(r"^#+ (jaxrnn[\w.]*)$", re.MULTILINE)
ROW = re.compile(r"^- (?:<a [^>]*></a>)?\[`(\w+)`\]\(.*$")
SIGNATURE = re.compile(r"\\\n  `.*`$", re.MULTILINE)
ANCHOR = re.compile(r'<a id="([\w.]+)"></a>(\[`\w+`\])\([^)]*\)')
LINK = re.compile(r"\]\(([\w./]*)(#[\w.]+)\)")


def lines_of(page: pathlib.Path) -> list[str]:
    """The lines of a page without the signatures."""
    return SIGNATURE.sub("", page.read_text()).splitlines()


def names(page: pathlib.Path) -> dict[int, str]:
    """What users write for the names in the lists of a page, by the line's number."""
    module, found = "", {}
    for i, line in enumerate(lines_of(page)):
        if heading := MODULE.match(line):
            module = heading[1]
        elif row := ROW.match(line):
            found[i] = f"{module}.{row[1]}"
    return found


@functools.cache
def public() -> dict[str, str]:
    """All names, by the paths of their definitions and by what users write."""
    listed = [path for page in API.glob("*.md") for path in names(page).values()]
    return {source_of(path).path: path for path in listed} | {p: p for p in listed}


@functools.cache
def package() -> griffe.Module:
    """The source of the package."""
    return griffe.load("jaxrnn", search_paths=[ROOT])


def anchor(page: pathlib.Path, path: str) -> str:
    """What leads to the row of a name on a page: `from_torch` on `convert.md`."""
    return ".".join(part for part in path.split(".")[1:] if part != page.stem)


@functools.cache
def addresses() -> dict[str, str]:
    """All names, by their rows: `api/convert.md#from_torch`."""
    return {
        f"api/{page.name}#{anchor(page, path)}": path
        for page in API.glob("*.md")
        for path in names(page).values()
    }


def source_of(path: str) -> griffe.Object:
    """The source of an object, also if the module imports the object."""
    found = package()[path.removeprefix("jaxrnn.")]
    return found.final_target if found.is_alias else found


def fill(page: pathlib.Path) -> str:
    """The text of a page, with the current files, first sentences and signatures."""
    lines = lines_of(page)
    for i, path in names(page).items():
        source = source_of(path)
        name = path.rpartition(".")[2]
        file = os.path.relpath(source.filepath, API)
        first = source.docstring.value.splitlines()[0]
        text = re.sub(
            r"`[^`]*`|[<*]", lambda m: m[0] if len(m[0]) > 1 else f"\\{m[0]}", first
        )
        start = f'<a id="{anchor(page, path)}"></a>'
        lines[i] = f"- {start}[`{name}`]({file}): {text}"
        if not source.is_attribute and not inspect.isabstract(
            pkgutil.resolve_name(path)
        ):
            lines[i] += f"\\\n  `{name}{without_types(signature(path))}`"
    return "\n".join(lines) + "\n"


def without_types(given: inspect.Signature) -> inspect.Signature:
    """A signature of names and default values."""
    return inspect.Signature(
        each.replace(annotation=each.empty) for each in given.parameters.values()
    )


def write_pages(app: object) -> None:
    """Write the source of the page of each name."""
    folder = API / "names"
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{path}.rst": page_of(path) for path in set(public().values())}
    for page in {*folder.iterdir()} - {*pages}:
        page.unlink()
    for page, text in pages.items():
        if not page.exists() or page.read_text() != text:  # Sphinx reads what changed.
            page.write_text(text)


def page_of(path: str) -> str:
    """The source of the page of a name."""
    source, (module, _, name) = source_of(path), path.rpartition(".")
    kind, options, text = "autofunction", [], ""
    if source.is_attribute:
        kind = "data"
        if str(source.annotation) == "TypeAlias":
            kind, options = "type", [f":canonical: {source.value}"]
        text = separate(source.docstring.value)
    elif source.is_class:
        kind = "autoclass"
        listed = ", ".join(each.name for each in members(path))
        if listed:  # An empty list would mean all.
            options = [f":members: {listed}"]
        text = inherited(path)
    body = [f".. {kind}:: {name}", *[f"   {each}" for each in options], ""]
    body += [f"   {line}".rstrip() for line in text.splitlines()]
    title = [path, "=" * len(path), "", f"A name of :py:mod:`{module}`.", ""]
    # The navigation lists the modules, not all names.
    head = [":orphan:", "", *title, f".. currentmodule:: {module}", ""]
    return "\n".join([*head, *body]) + "\n"


def members(path: str) -> list[griffe.Object]:
    """The documented members of a class that no public base class describes.

    Drivers call most methods of a built-in cell. Its page describes only its sizes, and
    what no base class has.
    """
    source, value = source_of(path), pkgutil.resolve_name(path)
    is_cell = issubclass(value, jaxrnn.RNNCell) and not inspect.isabstract(value)
    shown, hidden = {}, set()
    for each in [source, *source.mro()]:
        is_base, is_public = each is not source, each.path in public()
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


def inherited(path: str) -> str:
    """The public base classes, and what they say of the class in its docstring's place.

    `RNNCell` describes the arguments that most cells have, and has an example.
    """
    source, given = source_of(path), signature(path).parameters
    bases = {
        public()[each.path]: each for each in source.mro() if each.path in public()
    }
    if not bases:
        return ""
    lines = [f"Base classes, with all other members: `{'`, `'.join(bases)}`."]
    known = described(source.docstring.value)
    for base, each in bases.items():
        here = described(each.docstring.value)
        if names := [f"`{name}`" for name in given if name in here - known]:
            lines.append(f"`{base}` describes {', '.join(names)}.")
        known |= here
    if "jaxrnn.RNNCell" in bases and ">>>" not in source.docstring.value:
        lines.append("`jaxrnn.RNNCell` has an example.")
    return " ".join(lines)


def described(docstring: str) -> set[str]:
    """The arguments and attributes that a docstring describes."""
    sections = griffe.Docstring(docstring).parse("google", warnings=False)
    lists = ("parameters", "attributes", "other parameters")
    return {
        each.name.lstrip("*")
        for section in sections
        if section.kind.value in lists
        for each in section.value
    }


class Text(str):
    """Source code, which `inspect` shows without quotes."""

    __repr__ = str.__str__


def signature(path: str) -> inspect.Signature:
    """The arguments, with their types in the source; at run time, most are `Any`."""
    types, arguments = types_of(source_of(path)), []
    for each in inspect.signature(pkgutil.resolve_name(path)).parameters.values():
        # Flax adds arguments, which the source does not have.
        if each.name in types and each.name != "self":
            default = each.default
            if default is not each.empty:
                # The name of a function or a type.
                text = getattr(default, "__name__", None) or repr(default)
                default = Text("..." if " object at 0x" in text else text)
            arguments.append(each.replace(annotation=types[each.name], default=default))
    return inspect.Signature(arguments)


def types_of(source: griffe.Object) -> dict[str, Text]:
    """The types of the arguments of a function, or of the constructor of a class."""
    functions, types = [source], {}
    if source.is_class:
        classes = [*reversed(source.mro()), source]
        every = [member for each in classes for member in each.members.values()]
        types = {each.name: each.annotation for each in every if each.is_attribute}
        functions = [each for each in every if each.name == "__init__"]
        functions += filter(None, [source.members.get("__new__")])
    for function in functions:
        types |= {each.name: each.annotation for each in function.parameters}
    return {name: short(type_) for name, type_ in types.items() if type_ is not None}


def short(annotation: object) -> Text:
    """The text of a type, without the names of modules."""
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(annotation)).strip("'\"")
    return Text(re.sub(r"^InitVar\[(.*)\]$", r"\1", text))


def separate(text: str) -> str:
    """Separate code from letters: reStructuredText rejects the plural of a name."""
    separated = lambda found: rf"{found[1]}\ {found[2]}" if found[2] else found[0]
    return re.sub(r"(`[^`]+`)(\w?)", separated, text)


def write_docstring(
    app: object, kind: str, path: str, value: object, options: object, lines: list[str]
) -> None:
    """Write the docstring in valid reStructuredText."""
    if path in public():  # Later builds read a page again if its source has changed.
        app.env.note_dependency(source_of(path).filepath)
    text = separate("\n".join(lines))
    # Write an empty type, because Napoleon takes the words before a colon for the type.
    text = re.sub(r"^(Returns:\n +)", r"\1: ", text, flags=re.MULTILINE)
    text = f": {text}" if kind in ("attribute", "property") else text
    if kind == "class" and described(text) <= signature(path).parameters.keys():
        text = text.replace("Attributes:\n", "Args:\n")  # As in a dataclass.
    lines[:] = text.split("\n")


def write_signature(
    app: object, kind: str, path: str, value: object, *others: object
) -> tuple[str, str] | None:
    """Write the signature with the types of the source."""
    if kind == "method":  # A class may take the method from another class.
        path = f"{value.__module__}.{value.__qualname__}"
    is_shown = kind in ("class", "function", "method") and path.startswith("jaxrnn.")
    if not is_shown:
        return None
    if inspect.isabstract(value):
        return "", ""
    source = source_of(path)
    return str(signature(path)), short(source.returns) if source.is_function else ""


def home(app: object, module: str, name: str) -> str:
    """The module that defines a name, for links to the source."""
    return source_of(f"{module}.{name}").module.path


def link_names(app: object, page: str, source: list[str]) -> None:
    """Lead links to rows of tables, and the links in rows, to the pages of names."""
    folder = os.path.dirname(page)

    def lead(link: re.Match) -> str:
        file = os.path.join(folder, link[1]) if link[1] else f"{page}.md"
        path = addresses().get(os.path.normpath(file) + link[2])
        return f"](#{path})" if path else link[0]

    source[0] = LINK.sub(lead, ANCHOR.sub(r"\2(#\1)", source[0]))
    if folder == "api":
        source[0] = MODULE.sub(r"\g<0>\n\n```{py:module} \1\n```", source[0])


def find(app: object, env: object, node: object, content: object) -> object:
    """Find a name of another module: in `jaxrnn.nnx`, `LSTMCell` of `jaxrnn`."""
    if node.get("refdomain") != "py":
        return None
    domain, parts = env.domains.python_domain, (node.get("py:module") or "").split(".")
    modules = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    for module in [*modules, "jaxrnn.typing"]:
        path = f"{module}.{node['reftarget']}"
        found = domain.objects.get(path)
        if found and found.objtype != "module":  # An argument may be called `memory`.
            target = env, node["refdoc"], app.builder, "obj", path
            return domain.resolve_xref(*target, node, content)
    return None


def setup(app: object) -> dict:
    """Connect the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_names)
    app.connect("autodoc-process-docstring", write_docstring, priority=400)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("viewcode-follow-imported", home)
    app.connect("missing-reference", find)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    for page in API.glob("*.md"):
        page.write_text(fill(page))
