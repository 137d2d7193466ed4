"""Registers types with `jax.export`, so that exported programs can use them."""

import json
from typing import Any, TypeVar

import jax

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
