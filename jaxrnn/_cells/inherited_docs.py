"""Docstrings of dataclasses, completed from their base classes."""

import inspect
import re


def inherit_docs(cls: type) -> None:
    """Completes the docstring of a new dataclass from its base classes.

    In the source, a class describes only the fields that its base classes do not
    describe. Its completed docstring lists all fields in the order of the constructor's
    arguments. A class without a `Raises` section inherits the section of a base class.
    """
    try:
        own_fields = list(inspect.get_annotations(cls))
    except NameError:  # From Python 3.14 on, an annotation may be defined later.
        return
    if not cls.__doc__:
        return
    own, names, entries, raises = _sections(cls), [], {}, ""
    for base in reversed(cls.__mro__):
        sections = _sections(base)
        names += vars(base).get("__dataclass_fields__", ())
        entries |= _entries(sections.get("Attributes", ""))
        raises = sections.get("Raises", raises)
    names += [*own_fields, *_entries(own.get("Attributes", ""))]
    described = [entries[name] for name in dict.fromkeys(names) if name in entries]
    if described:
        attributes = "\n".join(["Attributes:", *described])
        first = {"": own.pop(""), "Attributes": attributes, "Raises": raises}
        cls.__doc__ = "\n\n".join(filter(None, (first | own | first).values()))


def _sections(cls: type) -> dict[str, str]:
    """Maps headings to sections of a docstring, and "" to the text before the first."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    text, *sections = re.split(r"\n\n(?=[A-Z]\w+:\n|Source:)", doc)
    return {"": text} | {section.partition(":")[0]: section for section in sections}


def _entries(section: str) -> dict[str, str]:
    """Maps each name to the lines of a section that describe it."""
    entries = re.split(r"\n(?=    \w)", section)[1:]
    return {entry.partition(":")[0].strip(): entry for entry in entries}
