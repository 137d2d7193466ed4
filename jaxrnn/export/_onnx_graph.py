"""A graph of ONNX's operators, built node by node."""

from typing import Any

import numpy as np

from ._optional import import_optional

# The first opset with the present forms of LSTM, GRU and RNN, and its file version.
OPSET, IR_VERSION = 14, 7


class Graph:
    """Nodes in the order in which they are added; values are referred to by name.

    Args:
        dtype: That of inputs and outputs.

    Raises:
        ImportError: If the package `onnx` is missing.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._onnx, self._dtype = import_optional("to_onnx", "onnx"), dtype
        self._nodes, self._constants = [], {}
        self._inputs, self._outputs = [], []

    def element_type(self, dtype: Any) -> int:
        """ONNX's number of a dtype."""
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def input(self, name: str, shape: list[int | str], dtype: Any = None) -> str:
        """A new input of the graph; strings stand for sizes that are not known."""
        self._inputs.append(self._typed(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: list[int | str]) -> None:
        """Makes `value` an output of that name."""
        self.node("Identity", value, outputs=[name])
        self._outputs.append(self._typed(name, shape))

    def constant(self, array: Any, name: str | None = None) -> str:
        """An array that nodes read; equal ones without a name are stored once."""
        array = np.asarray(array)
        name = name or f"{array.dtype}_{array.tolist()}"
        self._constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def node(
        self, op: str, *inputs: str, outputs: list[str] | None = None, **attributes: Any
    ) -> str:
        """A new node; the name of its first output. An input "" is left out."""
        name = f"{op}_{len(self._nodes)}"
        outputs = outputs or [name]
        node = self._onnx.helper.make_node(op, inputs, outputs, name, **attributes)
        self._nodes.append(node)
        return outputs[0]

    def serialized(self) -> bytes:
        """The file."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes,
            "jaxrnn",
            self._inputs,
            self._outputs,
            list(self._constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="jaxrnn"
        )
        return model.SerializeToString()

    def _typed(self, name: str, shape: list[int | str], dtype: Any = None) -> Any:
        element = self.element_type(dtype or self._dtype)
        return self._onnx.helper.make_tensor_value_info(name, element, shape)
