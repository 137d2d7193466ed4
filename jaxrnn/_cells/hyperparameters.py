"""Hyper-parameters as a value: equality, hash, repr, copies and pickles."""

import copy
import dataclasses
import types
from functools import cached_property
from typing import Any

import jax

from .._base.errors import is_array
from .._base.trees import as_typed
from .activations import ACTIVATIONS


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Hyperparameters:
    """A dataclass that is equal by class and value, as a static argument of jit is.

    Attributes that a subclass sets without being a dataclass itself count as well.
    """

    @cached_property
    def closes_over_arrays(self) -> bool:
        """Whether a function among the hyper-parameters closes over arrays.

        Equal cells share a compilation. That would keep such arrays alive, traced ones
        even beyond their trace, so a driver compiles such a cell on each call.
        """
        values = [getattr(self, name) for name in self._attributes()]
        return any(map(_closes_over_arrays, values))

    def __eq__(self, other: object) -> bool:
        """By class and value; 1 and True are different, as programs may differ."""
        return type(self) is type(other) and self._value() == other._value()  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        """The values that differ from their defaults; functions by their names."""
        parts = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            # Typed, as NumPy's dtype float64 is equal to None.
            if field is None or (
                field.repr
                and field.compare
                and as_typed(value) != as_typed(field.default)
            ):
                parts.append(
                    f"{name}={getattr(value, '__name__', None) or repr(value)}"
                )
        return f"{type(self).__name__}({', '.join(parts)})"

    def __deepcopy__(self, memo: dict) -> "Hyperparameters":
        # Copies of functions would not be equal, so those are shared.
        memo[id(self)] = twin = copy.copy(self)
        return twin

    # Pickles refer to the package's activations by name, not by a private module.
    def __getstate__(self) -> tuple[dict[str, Any], dict[str, str]]:
        activations = {
            field: value.__name__
            for field, value in vars(self).items()
            if isinstance(value, types.FunctionType)
            and ACTIVATIONS.get(value.__name__) is value
        }
        rest = {k: v for k, v in vars(self).items() if k not in activations}
        return rest, activations

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, str]]) -> None:
        rest, activations = state
        functions = {field: ACTIVATIONS[name] for field, name in activations.items()}
        vars(self).update(rest, **functions)

    def _value(self) -> tuple:
        return tuple(
            (name, as_typed(getattr(self, name)))
            for name, field in self._attributes().items()
            if field is None or field.compare
        )

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """The names of all hyper-parameters, each with its field or None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes


def _closes_over_arrays(value: Any) -> bool:
    if isinstance(value, Hyperparameters):
        return value.closes_over_arrays
    if isinstance(value, tuple | list):
        return any(map(_closes_over_arrays, value))
    cells = getattr(value, "__closure__", None) or ()
    contents = [c.cell_contents for c in cells if c != types.CellType()]
    return any(map(is_array, jax.tree.leaves(contents)))
