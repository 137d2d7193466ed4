"""The recurrent nodes of ONNX models, with their weights as NumPy arrays."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._base.errors import InvalidType, InvalidValue, describe
from .._base.optional import import_optional
from ._weights import listed

_OPERATORS = "LSTM", "GRU", "RNN"
# The operators' other inputs belong to a run: X, the lengths and the initial states.
_WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}


def as_model(model: Any) -> Any:
    """The `onnx.ModelProto` of a path, of the bytes of a file, or of a model.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If the file is not an ONNX file.
        ImportError: If `onnx` is missing.
    """
    onnx = import_optional("onnx")
    protobuf = import_optional("google.protobuf.message", "protobuf")
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        if isinstance(model, str | os.PathLike):
            return onnx.load(model)
        if isinstance(model, bytes | bytearray | memoryview):
            return onnx.load_from_string(bytes(model))
    except protobuf.DecodeError as error:
        raise InvalidValue(f"`model` must be an ONNX file: {error}.") from None
    raise InvalidType(
        "`model` must be a path, the bytes of an ONNX file or an `onnx.ModelProto`, "
        f"got {describe(model)}."
    )


class Values:
    """The constant values of a graph.

    Args:
        graph: The `onnx.GraphProto`.
        outer: The values of the graph around a subgraph, which the subgraph can read.
    """

    def __init__(self, graph: Any, outer: "Values | None" = None) -> None:
        self._outer = outer
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._sources = {name: node for node in graph.node for name in node.output}

    def array(self, what: str, name: str) -> np.ndarray:
        """The value `name`, from an initializer or a Constant node.

        Raises:
            ValueError: If the value is not constant, or is in another file; the message
                begins with `what`.
        """
        source = self._sources.get(name)
        while source is not None and source.op_type == "Identity":
            name = source.input[0]  # Exporters share weights between layers like this.
            source = self._sources.get(name)
        if name in self._tensors:
            return _as_array(what, self._tensors[name])
        if source is None and self._outer is not None:
            return self._outer.array(what, name)
        constants = [a.t for a in getattr(source, "attribute", ()) if a.name == "value"]
        if source is not None and source.op_type == "Constant" and constants:
            return _as_array(what, constants[0])
        got = "an input of the model" if source is None else f"made by {source.op_type}"
        raise InvalidValue(
            f"{what} must be constant, got {name!r}, {got}. If it depends only on "
            "constants, fold them first: onnxruntime writes the folded model to "
            "`SessionOptions.optimized_model_filepath`."
        )


def _as_array(what: str, tensor: Any) -> np.ndarray:
    """The values of an `onnx.TensorProto`."""
    if tensor.data_location == tensor.EXTERNAL:
        files = [each.value for each in tensor.external_data if each.key == "location"]
        raise InvalidValue(
            f"{what} must be in the model, got {tensor.name!r}, which is in the file "
            f"{listed(files)!r}. Pass the path of the model, next to this file."
        )
    return import_optional("onnx.numpy_helper").to_array(tensor)


def recurrent_nodes(graph: Any, outer: Values | None = None) -> Iterator[Any]:
    """A pair `(node, values of its graph)` for each recurrent node, in graph order."""
    values = Values(graph, outer)
    for node in graph.node:
        if node.op_type in _OPERATORS and node.domain in ("", "ai.onnx"):
            yield node, values
        for attribute in node.attribute:  # The branches of If, the bodies of loops.
            if attribute.HasField("g"):
                yield from recurrent_nodes(attribute.g, values)


def operators(graph: Any) -> list[str]:
    """The operators of a graph, for messages."""
    return sorted({node.op_type for node in graph.node})


def chosen(found: list[Any], names: tuple[Any, ...]) -> list[Any]:
    """The nodes with these names, or in the scopes with these names.

    Args:
        found: The pairs of `recurrent_nodes`.
        names: Names of nodes, or scopes: "encoder" for "/encoder/LSTM"; all if empty.

    Raises:
        ValueError: If a name has no recurrent node.
    """
    if not names:
        return found
    picked = []
    for name in names:
        own = [pair for pair in found if _is_within(name, _name(pair[0]))]
        if not own:
            there = listed(f"{_name(node)!r} ({node.op_type})" for node, _ in found)
            raise InvalidValue(
                "`names` must be names of recurrent nodes or of their scopes, got "
                f"{name!r}. Found: {there}."
            )
        picked += own
    return picked


def _name(node: Any) -> str:
    """The name of a node, or of its first output if the node has no name."""
    return node.name or next(filter(None, node.output), "")


def _is_within(scope: Any, name: str) -> bool:
    scope, name = str(scope).strip("/"), name.strip("/")
    return name == scope or name.startswith(f"{scope}/")


def as_dict(node: Any, values: Values) -> dict[str, Any]:
    """The node as a dict for `convert.onnx.load`."""
    made: dict[str, Any] = {"op_type": node.op_type, "name": _name(node)}
    for key, at in _WEIGHTS.items():
        if at < len(node.input) and node.input[at]:
            what = f"the weight {key} of {made['name']!r}"
            made[key] = values.array(what, node.input[at])
    get = import_optional("onnx.helper").get_attribute_value
    return made | {each.name: _as_text(get(each)) for each in node.attribute}


def _as_text(value: Any) -> Any:
    """Byte strings and lists of these as strings; other values unchanged."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value
