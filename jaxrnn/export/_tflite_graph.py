"""A TensorFlow Lite model, written to its FlatBuffer format."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.optional import import_optional

ABSENT = -1  # Stands in for an optional input that is omitted.
# The first version of each operator that supports all inputs and options used here.
_VERSIONS = {"BIDIRECTIONAL_SEQUENCE_LSTM": 2, "FULLY_CONNECTED": 5}


class Graph:
    """The tensors and operators of a model; tensors are identified by number.

    Raises:
        ImportError: If `ai_edge_litert` is missing.
    """

    def __init__(
        self,
    ) -> None:
        module = "ai_edge_litert.schema_py_generated"
        self._schema: Any = import_optional(module, "ai-edge-litert")
        self._builder = import_optional("flatbuffers").Builder()
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, Any] = {}
        # The format reserves the first buffer for tensors without values.
        self._buffers = [self._schema.BufferT()]

    def tensor(
        self, name: str, shape: tuple, is_variable: bool = False, dtype: str = "FLOAT32"
    ) -> int:
        """Adds a tensor without constant values; a variable is initialized to zeros."""
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        tensor.type = getattr(self._schema.TensorType, dtype)
        tensor.isVariable = is_variable
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, name: str, array: np.ndarray | None) -> int:
        """Adds a tensor for a float32 or int32 array; returns `ABSENT` for None."""
        if array is None:
            return ABSENT
        number = self.tensor(name, array.shape, dtype=array.dtype.name.upper())
        buffer = self._schema.BufferT()
        values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        buffer.data = values.reshape(-1).view(np.uint8)
        self._tensors[number].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return number

    def constants(self, name: str, arrays: Sequence[np.ndarray | None]) -> list[int]:
        """Adds a constant for each array; `name` is the name of the layer."""
        return [self.constant(f"{name}/{i}", array) for i, array in enumerate(arrays)]

    def shape(self, tensor: int) -> list[int]:
        """The shape of a tensor."""
        return self._tensors[tensor].shape.tolist()

    def operator(
        self, name: str, inputs: Sequence[int], output: int, options: str, **fields: Any
    ) -> None:
        """Adds an operator whose options are `fields`, of the class `options`."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(self._schema, f"{options}T")()
        vars(operator.builtinOptions).update(fields)
        self._operators.append(operator)

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = self._codes[name] = self._schema.OperatorCodeT()
            code.builtinCode = getattr(self._schema.BuiltinOperator, name)
            # The deprecated field is limited to one byte.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
        return list(self._codes).index(name)

    def to_bytes(self, inputs: int, outputs: int) -> bytes:
        """The bytes of the file, which has one input and one output."""
        graph, model = self._schema.SubGraphT(), self._schema.ModelT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = [inputs], [outputs]
        model.version, model.description = 3, "jaxrnn"
        model.operatorCodes, model.buffers = list(self._codes.values()), self._buffers
        model.subgraphs = [graph]
        model.signatureDefs = [self._signature(inputs=inputs, outputs=outputs)]
        self._builder.Finish(model.Pack(self._builder), b"TFL3")
        return bytes(self._builder.Output())

    def _signature(self, **tensors: int) -> Any:
        """The signature, which names the tensors for `get_signature_runner`."""
        signature, entries = self._schema.SignatureDefT(), []
        for name, number in tensors.items():
            entry = self._schema.TensorMapT()
            entry.name, entry.tensorIndex = name, number
            entries.append(entry)
        signature.signatureKey = "serving_default"
        signature.inputs, signature.outputs = entries[:1], entries[1:]
        return signature
