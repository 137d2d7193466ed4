"""Hyperparameters: dataclasses that are compared, shown and pickled by value."""

import copy
import dataclasses
import re
from functools import cached_property
from typing import Any

from .._base.errors import name_of
from .._base.trees import as_typed
from . import fields
from .activations import ACTIVATIONS


@fields.dataclass
class Hyperparameters:
    """A dataclass compared by class and value, as static arguments of jit must be.

    A subclass need not be a dataclass: the attributes that it sets are compared too.
    """

    def __post_init__(self) -> None:
        """Checks the fields; a subclass adds checks of several fields together."""
        fields.check_fields(self)

    def __eq__(self, other: object) -> bool:
        """Compares classes and values.

        1 and True are unequal, because they may lead to different programs.
        """
        if not isinstance(other, Hyperparameters) or type(self) is not type(other):
            return False
        return self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        """Lists the values that differ from their defaults, with functions by name."""
        parts = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            if field is not None:
                # Types are compared too, because NumPy's dtype float64 equals None.
                is_default = as_typed(value) == as_typed(field.default)
                if is_default or not (field.repr and field.compare):
                    continue
            parts.append(f"{name}={name_of(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __deepcopy__(self, memo: dict) -> "Hyperparameters":
        # A copied function would not equal the original, so a copy shares all values.
        twin = copy.copy(self)
        memo[id(self)] = twin
        return twin

    # A pickle stores activations by name, because pickle cannot find JAX's wrapped
    # functions, and functions of a private module may move.
    def __getstate__(self) -> tuple[dict[str, Any], dict[str, str]]:
        names = {id(function): name for name, function in ACTIVATIONS.items()}
        values = vars(self)
        activations = {k: names[id(v)] for k, v in values.items() if id(v) in names}
        rest = {k: v for k, v in values.items() if k not in activations}
        return rest, activations

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, str]]) -> None:
        rest, activations = state
        functions = {field: ACTIVATIONS[name] for field, name in activations.items()}
        vars(self).update(rest, **functions)

    def _value(self) -> tuple:
        attributes = self._attributes().items()
        names = [name for name, field in attributes if field is None or field.compare]
        return tuple((name, as_typed(getattr(self, name))) for name in names)

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """Maps the names of all hyperparameters to their dataclass fields or None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes


def snake_case(name: str) -> str:
    """`BasicLSTMCell` -> `basic_lstm_cell`, as TensorFlow names layers."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return f"private{words}" if words.startswith("_") else words
