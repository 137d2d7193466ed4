"""Converts docstrings with Google's sections to Markdown."""

import ast
import doctest
import itertools
import re
import textwrap
from collections.abc import Callable, Collection

import griffe

TITLES = {"parameters": "Arguments", "returns": "Returns", "raises": "Raises"}
Link = Callable[[str], str | None]


def markdown(docstring: str, link: Link, arguments: Collection[str] = ()) -> str:
    """The docstring in Markdown.

    Args:
        docstring: The text.
        link: Returns the address of the object that code names, or None.
        arguments: The arguments of the documented function or class. Attributes of a
            dataclass are arguments.
    """
    parsed = griffe.Docstring(docstring).parse(
        "google",
        returns_named_value=False,
        returns_multiple_items=False,
        warnings=False,
    )
    return "\n\n".join(_section(section, link, arguments) for section in parsed)


def _section(
    section: griffe.DocstringSection, link: Link, arguments: Collection[str]
) -> str:
    kind, value = section.kind.value, section.value
    if kind == "text":
        return prose(value, link)
    title = section.title or TITLES.get(kind, kind.capitalize())
    if kind == "admonition":
        return f"**{title}**\n\n{prose(value.contents, link)}"
    if kind == "returns":  # The parser takes the text before a colon for a type.
        parts = [value[0].annotation, value[0].description]
        return f"**{title}**\n\n{prose(': '.join(filter(None, parts)), link)}"
    if kind == "attributes" and {each.name for each in value} <= set(arguments):
        title = TITLES["parameters"]
    items = [
        item(f"`{getattr(each, 'name', each.annotation)}`", each.description, link)
        for each in value
    ]
    return "\n".join([f"**{title}**\n", *items])


def item(name: str, text: str, link: Link) -> str:
    """An item of a list."""
    return "- " + textwrap.indent(f"{name}: {prose(text, link)}", "  ").lstrip()


def prose(text: str, link: Link) -> str:
    """Paragraphs. An indented or prompted paragraph is code, as `help` shows it."""
    parts = []
    is_code = lambda paragraph: paragraph.startswith(("    ", ">>>"))
    for are_code, paragraphs in itertools.groupby(text.split("\n\n"), key=is_code):
        block = "\n\n".join(paragraphs)
        parts.append(code(block) if are_code else escaped(block, link))
    return "\n\n".join(parts)


def escaped(text: str, link: Link) -> str:
    """The text with links from code, and without markup that is not meant."""

    def replace(match: re.Match) -> str:
        if match[1] is None:
            return f"\\{match[0]}"
        address = link(match[1])
        return match[0] if address is None else f"[{match[0]}]({address})"

    return re.sub(r"`([^`]*)`|[<*]", replace, text)


def code(block: str) -> str:
    """A fenced block. Lines with prompts become a program with results in comments."""
    block = textwrap.dedent(block)
    if ">>>" not in block:
        return f"```{_language(block)}\n{block}\n```"
    lines = ""
    for example in doctest.DocTestParser().get_examples(block):
        source = re.sub(r"  # doctest: .*", "", example.source)
        is_definition = source.splitlines()[-1].startswith(" ")
        lines += source + textwrap.indent(example.want, "# ") + "\n" * is_definition
    return f"```python\n{lines}```"


def _language(block: str) -> str:
    try:
        ast.parse(block)
    except SyntaxError:
        return "text"  # Equations.
    return "python"
