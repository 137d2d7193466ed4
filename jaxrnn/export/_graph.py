"""`Graph`, a graph of operators, and checks that the exporters of layers share.

`to_onnx` and `to_tflite_operators` each build a `Graph` and write it to a file.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._base.arguments import is_list_of
from .._base.errors import expect
from .._base.inputs import check_concrete
from .._base.typing import DType
from ..convert._weights import Reader, Weight, listed


@dataclasses.dataclass(eq=False)
class Tensor:
    """An input, constant or result of operators. Tensors compare by identity.

    Attributes:
        name: The name in the file.
        shape: The sizes of the axes, e.g. `("batch", 4)`, in which a string names an
            unknown size. Empty if the file does not state the shape.
        dtype: The dtype of the entries.
        values: The entries of a constant; None for other tensors.
        is_variable: Whether the runtime keeps the values between runs, e.g. of a state.
    """

    name: str
    shape: Sequence[Any]
    dtype: DType
    values: np.ndarray | None = None
    is_variable: bool = False


class Node(NamedTuple):
    """An operator, its operands and its results; None is an omitted operand."""

    op: str
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]
    attributes: dict[str, object]


class Graph:
    """Tensors and nodes in the order in which they were added.

    Attributes:
        dtype: The default dtype of tensors.
        tensors: All tensors.
        nodes: All nodes.
        inputs: The tensors that the file reads, by name.
        outputs: The tensors that the file returns, by name.
    """

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def tensor(self, name: str, shape: Sequence[Any] = (), **fields: Any) -> Tensor:
        """Adds a tensor with the given name, shape and other fields of `Tensor`."""
        self.tensors.append(Tensor(name, shape, **{"dtype": self.dtype} | fields))
        return self.tensors[-1]

    def input(self, name: str, shape: Sequence[int | str], **fields: object) -> Tensor:
        """Adds a tensor that the file reads."""
        self.inputs[name] = self.tensor(name, shape, **fields)
        return self.inputs[name]

    def constant(self, array: object, name: str = "") -> Tensor | None:
        """Adds a constant, by default named by its values. Returns None for None."""
        if array is None:
            return None
        array = np.asarray(array)
        name = name or f"{array.dtype}_{array.tolist()}"
        return self.tensor(name, array.shape, dtype=array.dtype, values=array)

    def node(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        name: str = "",
        shape: Sequence[int | str] = (),
        **attributes: object,
    ) -> Tensor:
        """Adds a node with one output, by default named `<op>_<number>`."""
        output = self.tensor(name or f"{op}_{len(self.nodes)}", shape)
        self.nodes.append(Node(op, inputs, [output], attributes))
        return output


def dtype_of(name: str, layers: Iterable[Weight], *allowed: str) -> np.dtype:
    """The dtype that the weights of all layers share.

    Raises:
        TypeError: If there are several dtypes, or the dtype is not allowed.
    """
    dtypes = {weights.dtype for weights in layers}
    got = sorted(map(str, dtypes))
    must = f"have parameters that share one dtype: {' or '.join(allowed)}"
    fits = len(got) == 1 and got[0] in allowed
    expect(fits, name, must, listed(got), "Cast the parameters.", error=TypeError)
    return dtypes.pop()


def read_dense(
    dense: Any, size: int, dtype: object
) -> tuple[np.ndarray, np.ndarray | None]:
    """Checks a dense layer; returns its kernel `[size, n]` and its bias `[n]` or None.

    Raises:
        TypeError: If `dense` is not a pair of arrays of this dtype.
        ValueError: If the shapes of kernel, bias and outputs do not match.
    """
    expect(is_list_of(dense, 2), "dense", "be (kernel, bias)", dense, error=TypeError)
    check_concrete("dense", dense, why="a file stores the values")
    read = Reader(dict(zip(("kernel", "bias"), dense, strict=True)), "dense.")
    kernel = read("kernel", size, None)
    must = f"be {dtype}, like the parameters"
    expect(kernel.dtype == dtype, "dense.kernel", must, kernel, error=TypeError)
    return kernel, None if dense[1] is None else read("bias", kernel.shape[1])
