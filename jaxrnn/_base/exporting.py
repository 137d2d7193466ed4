"""What `jax.export` needs: registered types, and programs without run-time checks."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import checkify

from .typing import PyTree

T = TypeVar("T", bound=type)


def serializable(cls: T, name: str | None = None) -> T:
    """Registers a named tuple, or a dataclass that is a pytree, with `jax.export`.

    `name` defaults to the name of the class. JSON must be able to represent the static
    fields of a dataclass: numbers, strings, None.
    """
    name = f"jaxrnn.{name or cls.__name__}"
    node: Any = cls
    if not hasattr(node, "__dataclass_fields__"):
        jax.export.register_namedtuple_serialization(node, serialized_name=name)
        return cls
    jax.export.register_pytree_node_serialization(
        node,
        serialized_name=name,
        serialize_auxdata=lambda fields: json.dumps(fields).encode(),
        deserialize_auxdata=lambda data: tuple(json.loads(data)),
    )
    return cls


def without_checks(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns the function without its run-time checks.

    Checks have effects, which exported files cannot represent.
    """
    checked = checkify.checkify(f, errors=frozenset())
    return lambda *arguments: checked(*arguments)[1]
