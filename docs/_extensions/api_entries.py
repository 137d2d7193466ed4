"""Writes the entry of a public name in the reference."""

import inspect
import os
import re
from collections.abc import Collection

import docstrings
import griffe
from api_names import ROOT, Name, addresses, own_members, public
from cell_examples import example_of


def entry(name: Name, seen: dict[str, str]) -> list[str]:
    """The paragraphs: signature, docstring, example, members and file.

    `seen` maps the paths of the methods above on the page to their headings. Classes
    that share a private base class share the entries of its methods.
    """
    definition = name.definition
    parts = described(name, definition, name.value, name.path)
    if example := example_of(name.module, name.value):
        parts.append(f"**Example**\n\n```python\n{example}\n```")
    parts += members(name, seen) if definition.is_class else []
    file = definition.filepath.relative_to(ROOT)
    parts.append(f"Code: [`{file}`]({os.path.relpath(file, 'docs/api')})")
    return [*heading("###", name.anchor), *parts]


def heading(level: str, title: str) -> list[str]:
    """A heading with an anchor, because repositories write their own in lower case."""
    return [f'<a id="{title}"></a>', f"{level} `{title}`"]


def described(
    name: Name, definition: griffe.Object, value: object, path: str
) -> list[str]:
    """The signature and the docstring of an object in the entry of a name."""
    given = {} if definition.is_attribute else arguments(definition, value)
    prefix, call = "class " * definition.is_class, path
    if given or not (definition.is_attribute or inspect.isabstract(value)):
        call = signature(definition, path, given)
    text = docstrings.markdown(
        definition.docstring.value, linker(name, given), arguments=given
    )
    return [f"```python\n{prefix}{call}\n```", text]


def signature(definition: griffe.Object, path: str, given: dict[str, str]) -> str:
    """The call of a function or a class, in one line if it is short."""
    result = f" -> {short(definition.returns)}" if definition.is_function else ""
    line = f"{path}({', '.join(given.values())}){result}"
    if len(line) <= 80:
        return line
    lines = "".join(f"    {argument},\n" for argument in given.values())
    return f"{path}(\n{lines}){result}"


def arguments(definition: griffe.Object, value: object) -> dict[str, str]:
    """The arguments by name, with their types in the source and their defaults."""
    types, found = types_of(definition), {}
    for each in inspect.signature(value).parameters.values():
        if each.name not in types:  # It is `self`, or added by Flax.
            continue
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        follows_star = any(text.startswith("*") for text in found.values())
        if each.kind is each.KEYWORD_ONLY and not follows_star:
            found["*"] = "*"
        found[each.name] = f"{stars}{each.name}: {types[each.name]}"
        if each.default is not each.empty:
            found[each.name] += f" = {text_of(each.default)}"
    return found


def text_of(default: object) -> str:
    """The text of a default; an ellipsis for an object without a readable one."""
    text = getattr(default, "__name__", None) or repr(default).replace("'", '"')
    return "..." if " object at 0x" in text else text


def types_of(definition: griffe.Object) -> dict[str, str]:
    """The types of the arguments of a function, or of the constructor of a class."""
    functions, types = [definition], {}
    if definition.is_class:
        classes = [*reversed(definition.mro()), definition]
        every = [member for each in classes for member in each.members.values()]
        types = {each.name: each.annotation for each in every if each.is_attribute}
        functions = [each for each in every if each.name == "__init__"]
        functions += filter(None, [definition.members.get("__new__")])
    for function in functions:
        types |= {each.name: each.annotation for each in function.parameters}
    return {name: short(type_) for name, type_ in types.items() if type_ is not None}


def short(annotation: object) -> str:
    """The text of a type, without the names of modules."""
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(annotation)).strip("'\"")
    return re.sub(r"^InitVar\[(.*)\]$", r"\1", text)


def linker(name: Name, given: Collection[str]) -> docstrings.Link:
    """The function that finds the address of what a docstring writes as code."""
    found = addresses(name.page)

    def link(text: str) -> str | None:
        if text in given or text in (name.name, name.path):
            return None
        return found.get(text) or found.get(text.rpartition(".")[0])

    return link


def members(name: Name, seen: dict[str, str]) -> list[str]:
    """The base classes, and the members that no public base class describes."""
    parts, own, link = [], own_members(name), linker(name, given=())
    bases = [
        public()[each.path] for each in name.definition.mro() if each.path in public()
    ]
    if bases:
        links = ", ".join(docstrings.escaped(f"`{each.path}`", link) for each in bases)
        parts.append(f"Base classes, with all other arguments and members: {links}")
    if items := [
        docstrings.item(f"`{each.name}`", each.docstring.value, link)
        for each in own
        if each.is_attribute
    ]:
        parts.append("\n".join(["**Properties**\n", *items]))
    if items := [
        f"- [`{seen[each.path]}`](#{seen[each.path]})"
        for each in own
        if each.path in seen
    ]:
        parts.append("\n".join(["**Methods**\n", *items]))
    for each in own:
        if each.is_function and each.path not in seen:
            seen[each.path] = f"{name.anchor}.{each.name}"
            parts += heading("####", seen[each.path])
            method = getattr(name.value, each.name)
            parts += described(name, each, method, f"{name.name}.{each.name}")
    return parts
