"""A model in the FlatBuffer format of TensorFlow Lite, built operator by operator."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.modules import import_optional

ABSENT = -1  # Marks an optional input that is omitted.
# These operators need a later version, because version 1 lacks inputs or options that
# are used here.
_VERSIONS = {"BIDIRECTIONAL_SEQUENCE_LSTM": 2, "FULLY_CONNECTED": 5}


class Graph:
    """The tensors and operators of a model; a tensor is identified by its index.

    Raises:
        ImportError: If `ai_edge_litert` is missing.
    """

    def __init__(self) -> None:
        module = "ai_edge_litert.schema_py_generated"
        self._schema: Any = import_optional(module, "ai-edge-litert")
        self._builder = import_optional("flatbuffers").Builder()
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, Any] = {}
        # The format reserves the first buffer for tensors without values.
        self._buffers = [self._new("Buffer")]

    def tensor(self, name: str, shape: Any, **fields: Any) -> int:
        """Adds a float32 tensor; `isVariable` makes a variable that starts at zero."""
        fields = {"type": self._schema.TensorType.FLOAT32} | fields
        shape = np.array(shape, np.int32)
        self._tensors.append(self._new("Tensor", name=name, shape=shape, **fields))
        return len(self._tensors) - 1

    def constant(self, name: str, array: np.ndarray | None) -> int:
        """Adds a tensor for a float32 or int32 array; returns `ABSENT` for None."""
        if array is None:
            return ABSENT
        values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data = values.reshape(-1).view(np.uint8)
        self._buffers.append(self._new("Buffer", data=data))
        kind = getattr(self._schema.TensorType, array.dtype.name.upper())
        buffer = len(self._buffers) - 1
        return self.tensor(name, array.shape, type=kind, buffer=buffer)

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
        operator = self._new(
            "Operator",
            opcodeIndex=self._code(name),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
            builtinOptionsType=getattr(self._schema.BuiltinOptions, options),
            builtinOptions=self._new(options, **fields),
        )
        self._operators.append(operator)

    def _code(self, name: str) -> int:
        """The index of an operator's code in the model."""
        if name not in self._codes:
            code = getattr(self._schema.BuiltinOperator, name)
            self._codes[name] = self._new(
                "OperatorCode",
                builtinCode=code,
                deprecatedBuiltinCode=min(code, 127),  # This older field has one byte.
                version=_VERSIONS.get(name, 1),
            )
        return list(self._codes).index(name)

    def to_bytes(self, inputs: int, outputs: int) -> bytes:
        """The bytes of the file, which has one input and one output."""
        graph = self._new(
            "SubGraph",
            tensors=self._tensors,
            operators=self._operators,
            inputs=[inputs],
            outputs=[outputs],
        )
        # The signature names the tensors for `get_signature_runner`.
        signature = self._new(
            "SignatureDef",
            signatureKey="serving_default",
            inputs=[self._new("TensorMap", name="inputs", tensorIndex=inputs)],
            outputs=[self._new("TensorMap", name="outputs", tensorIndex=outputs)],
        )
        model = self._new(
            "Model",
            version=3,
            description="jaxrnn",
            operatorCodes=list(self._codes.values()),
            buffers=self._buffers,
            subgraphs=[graph],
            signatureDefs=[signature],
        )
        self._builder.Finish(model.Pack(self._builder), b"TFL3")
        return bytes(self._builder.Output())

    def _new(self, kind: str, **fields: Any) -> Any:
        """Creates an object of the format; its class has the name `kind` plus "T"."""
        value = getattr(self._schema, f"{kind}T")()
        vars(value).update(fields)
        return value


def add_dense(
    graph: Graph, kernel: np.ndarray, bias: np.ndarray | None, inputs: int
) -> int:
    """Adds `inputs @ kernel + bias`; returns the output."""
    operands = inputs, *graph.constants("dense", [kernel.T, bias])
    shape = (*graph.shape(inputs)[:2], kernel.shape[1])
    output = graph.tensor("dense/outputs", shape)
    options = "FullyConnectedOptions"
    graph.operator("FULLY_CONNECTED", operands, output, options, keepNumDims=True)
    return output


def add_swap(graph: Graph, inputs: int) -> int:
    """Adds a transpose of the batch and time axes; returns the output."""
    batch, time, size = graph.shape(inputs)
    operands = inputs, graph.constant("swap", np.array([1, 0, 2], np.int32))
    output = graph.tensor("swapped", (time, batch, size))
    graph.operator("TRANSPOSE", operands, output, "TransposeOptions")
    return output
