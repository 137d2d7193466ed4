"""The recurrent nodes of ONNX models: weights as NumPy arrays, and attributes."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from .._base.arguments import check_instance
from .._base.errors import Verbatim
from .._base.expect import expect
from .._base.modules import import_optional
from .._base.typing import Params
from ._layer_weights import Kind
from ._weights import Weights, listed

Proto: TypeAlias = Any
"""A protocol buffer of `onnx`, a package that is imported only where it is used."""

_OPERATORS = ("LSTM", "GRU", "RNN")
# The index of each array of weights among the operators' inputs. The other inputs (X,
# lengths, initial states) are not weights.
_WEIGHTS = {"W": 1, "R": 2, "B": 3, "P": 7}
# Maps ONNX's names of activations to jaxrnn's names.
ACTIVATIONS = {
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_FIX = "Write the step as a `FunctionCell`."
_OWN_ACTIVATION = (
    "Remove this attribute, and bind the loaded parameters to the same cell with your "
    "own `activation`."
)
_SPELLINGS = {name.lower(): name for name in ACTIVATIONS}
# ONNX's defaults, which are also the constants of jaxrnn's activations.
_CONSTANTS = {
    "activation_alpha": {"Elu": 1.0, "HardSigmoid": 0.2},
    "activation_beta": {"HardSigmoid": 0.5},
}


def as_model(model: Any) -> Proto:
    """Loads a model from a path or from bytes; returns an `onnx.ModelProto` unchanged.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If the file is not an ONNX file, or onnx cannot read the files with
            the model's weights.
        ImportError: If `onnx` is missing.
    """
    onnx = import_optional("onnx")
    protobuf = import_optional("google.protobuf.message", "protobuf")
    checker = import_optional("onnx.checker")
    if isinstance(model, onnx.ModelProto):
        return model
    kinds = str | os.PathLike | bytes | bytearray | memoryview
    what = "a path, the bytes of an ONNX file or an `onnx.ModelProto`"
    check_instance("model", model, kinds, what)
    try:
        if isinstance(model, str | os.PathLike):
            return onnx.load(model)
        return onnx.load_from_string(bytes(model))
    except (protobuf.DecodeError, checker.ValidationError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"`model` must be an ONNX file, but the ONNX parser rejected it: {reason}."
        ) from None


class Values:
    """The constant values of a graph.

    Args:
        graph: The `onnx.GraphProto`.
        outer: The values of the graph around a subgraph, which the subgraph can read.
    """

    def __init__(self, graph: Proto, outer: "Values | None" = None) -> None:
        self._outer = outer
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._sources = {name: node for node in graph.node for name in node.output}

    def array(self, place: str, name: str) -> np.ndarray:
        """The value `name`, from an initializer or a Constant node.

        Raises:
            ValueError: If the value is not constant, or is in another file; the message
                begins with `place`.
        """
        source: Proto = self._sources.get(name)
        passed = {name}
        # Exporters use `Identity` to share weights between layers. The loop ends at a
        # cycle, and at an `Identity` without an input.
        while _is_identity(source) and not passed.issuperset(source.input[:1]):
            name = source.input[0]
            passed.add(name)
            source = self._sources.get(name)
        if name in self._tensors:
            return _as_array(place, self._tensors[name])
        if source is None and self._outer is not None:
            return self._outer.array(place, name)
        constants = [a.t for a in getattr(source, "attribute", ()) if a.name == "value"]
        is_constant = source is not None and source.op_type == "Constant"
        made = (
            "an input of the model" if source is None else f"made by {source.op_type}"
        )
        got = Verbatim(f"{name!r}, {made}")
        fix = "Fold constants with onnxruntime (`optimized_model_filepath`)."
        if source is None:
            fix = "Export the model with the weights as initializers."
        if _is_identity(source):
            fix = "For what is wrong in the model, see `onnx.checker.check_model`."
        must = "be an initializer or the `value` of a Constant node"
        expect(is_constant and constants, place, must, got, fix)
        return _as_array(place, constants[0])


Found: TypeAlias = tuple[Proto, Values]
"""A recurrent node, and the values of its graph."""


def _is_identity(node: Proto) -> bool:
    """Whether a node copies its input; `node` may be None."""
    return node is not None and node.op_type == "Identity"


def _as_array(place: str, tensor: Proto) -> np.ndarray:
    """The values of an `onnx.TensorProto`.

    Raises:
        ValueError: If the values are in another file, or do not match the type and the
            dimensions of the tensor.
    """
    is_external = tensor.data_location == tensor.EXTERNAL
    files = [each.value for each in tensor.external_data if each.key == "location"]
    got = Verbatim(f"{tensor.name!r}, which is in the file {str(listed(files))!r}")
    fix = "Store the model next to this file, and pass the model's path."
    expect(not is_external, place, "be in the model", got, fix)
    dims = list(tensor.dims)
    got = f"{tensor.name!r} (data_type={tensor.data_type}, dims={dims})"
    must = "be a tensor without negative dimensions"
    expect(min(dims, default=0) >= 0, place, must, Verbatim(got))
    try:
        return import_optional("onnx.numpy_helper").to_array(tensor)
    except Exception as error:  # The errors of onnx have no other common class.
        raise ValueError(
            f"`{place}` must be a tensor that onnx can read, got {got}. "
            f"onnx's error: {error!r}"
        ) from None


def check_functions(model: Proto) -> None:
    """Raises ValueError if a function of the model holds a recurrent node.

    The weights of such a node may be arguments of the function.
    """
    onnx = import_optional("onnx")
    for function in model.functions:
        body = onnx.GraphProto(node=function.node)
        found = [repr(_name(node)) for node, _ in recurrent_nodes(body)]
        must = "have no recurrent nodes in its functions"
        got = Verbatim(f"{listed(found)} in {function.name!r}")
        inlined = "`onnx.inliner.inline_local_functions(onnx.load(path))`"
        fix = f"Import `onnx.inliner`, and pass {inlined}."
        expect(not found, "model", must, got, fix)


def recurrent_nodes(graph: Proto, outer: Values | None = None) -> Iterator[Found]:
    """A pair `(node, values of its graph)` for each recurrent node, in graph order."""
    values = Values(graph, outer)
    for node in graph.node:
        if node.op_type in _OPERATORS and node.domain in ("", "ai.onnx"):
            yield node, values
        # The branches of `If` and the bodies of loops are subgraphs in attributes.
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from recurrent_nodes(attribute.g, values)


def chosen(found: list[Found], names: tuple[str, ...]) -> list[Found]:
    """The nodes with these names, or in the scopes with these names.

    Args:
        found: The pairs of `recurrent_nodes`.
        names: Names of nodes or scopes, e.g. "encoder" for "/encoder/LSTM". If empty,
            all nodes are chosen.

    Raises:
        ValueError: If a name has no recurrent node.
    """
    if not names:
        return found
    picked = []
    for name in names:
        own = [pair for pair in found if _is_within(name, _name(pair[0]))]
        must = "be names of recurrent nodes or of their scopes"
        there = listed(f"{_name(node)!r} ({node.op_type})" for node, _ in found)
        expect(own, "names", must, name, f"Found: {there}.")
        picked += own
    return picked


def _name(node: Proto) -> str:
    """The name of a node, of its first output, or of its operator."""
    return as_text(next(filter(None, [node.name, *node.output, node.op_type])))


def _is_within(scope: object, name: str) -> bool:
    inner = name.strip("/")
    outer = str(scope).strip("/")
    return inner == outer or inner.startswith(f"{outer}/")


def as_dict(node: Proto, values: Values) -> Params:
    """The node as a dict for `convert.onnx.load`."""
    name = _name(node)
    made: Params = {"op_type": node.op_type, "name": name}
    for key, at in _WEIGHTS.items():
        if at < len(node.input) and node.input[at]:
            made[key] = values.array(f"{name}['{key}']", node.input[at])
    get = import_optional("onnx.helper").get_attribute_value
    for each in node.attribute:
        got = Verbatim(f"a reference to the attribute {each.ref_attr_name!r}")
        place = f"{name}['{each.name}']"
        expect(not each.ref_attr_name, place, "have a value", got)
        made[each.name] = as_text(get(each))
    return made


def as_text(value: Any) -> Any:
    """Decodes byte strings, also in lists; returns other values unchanged.

    Bytes that are not UTF-8 become escapes, which the checks of the values then show.
    """
    if isinstance(value, list | tuple):
        return [as_text(each) for each in value]
    return (
        value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    )


def read_activations(name: str, node: Weights, kind: Kind, w: np.ndarray) -> list[str]:
    """The activation of each direction.

    Args:
        name: The name of the node, for messages.
        node: The attributes, with strings in place of byte strings.
        kind: The kind of layer.
        w: The node's W, whose first axis holds the directions.

    Raises:
        TypeError: If `activations` is not a list.
        ValueError: If a gate does not use the sigmoid, an activation has no equivalent
            in jaxrnn, or has other constants than in jaxrnn, or there is a `clip`.
    """
    given = _names(name, node, kind, len(w))
    size = len(spelled(kind, "Tanh"))
    what = f"{name}['activations']"
    length = size * len(w)
    expect(len(given) == length, what, f"have length {length}", len(given))
    own = given[size - 1 :: size]
    for i, activation in enumerate(own):
        _check_direction(what, kind, given[i * size : (i + 1) * size], activation)
    _check_constants(name, node, given)
    return [ACTIVATIONS[one] for one in own]


def _check_direction(what: str, kind: Kind, given: list[str], activation: str) -> None:
    """Raises ValueError unless a jaxrnn cell has the activations of one direction."""
    expect(
        activation in ACTIVATIONS,
        what,
        "be " + " or ".join(ACTIVATIONS),
        activation,
        _FIX,
    )
    want = spelled(kind, activation)
    must = f"be {listed(want)} for each direction"
    expect(given == want, what, must, listed(given), _FIX)


def spelled(kind: Kind, activation: str) -> list[str]:
    """The entries of the attribute `activations` for one direction."""
    gates = [] if kind == Kind.RNN else ["Sigmoid"]
    return gates + [activation] * (2 if kind == Kind.LSTM else 1)


def _names(name: str, node: Weights, kind: Kind, count: int) -> list[str]:
    """The activations by ONNX's names; the case of the given names is ignored."""
    given = node.get("activations")
    if given is None:
        return spelled(kind, "Tanh") * count
    kinds = () if isinstance(given, str) else Iterable
    check_instance(f"{name}['activations']", given, kinds, "a list of names")
    return [_SPELLINGS.get(str(one).lower(), one) for one in given]


def _check_constants(name: str, node: Weights, given: list[str]) -> None:
    """Raises ValueError if an activation has other constants than in jaxrnn, or a clip.

    Each activation that has a constant reads the next value; a missing value stands for
    the default.
    """
    for key, constants in _CONSTANTS.items():
        values = node.get(key)
        values = np.atleast_1d([] if values is None else values).tolist()
        want = [constants[one] for one in given if one in constants][: len(values)]
        got = values[: len(want)]
        fits = np.array_equal(np.array(got, "f"), np.array(want, "f"))
        expect(fits, f"{name}['{key}']", f"begin with {want}", got, _OWN_ACTIVATION)
    must = "be omitted, because no cell clips the inputs of its activations"
    expect(node.get("clip") is None, f"{name}['clip']", must, node.get("clip"), _FIX)


def read_flag(name: str, node: Weights, key: str, kind: Kind, owner: Kind) -> bool:
    """The value of an attribute that is 0 or 1, 0 by default.

    Raises:
        ValueError: If the value is neither 0 nor 1, or is 1 and `kind` is not `owner`.
    """
    value = node.get(key) or 0
    expect(value in (0, 1), f"{name}['{key}']", "be 0 or 1", value)
    fits = not value or kind == owner
    must = f"be 0 for the operator {kind.family}"
    expect(fits, f"{name}['{key}']", must, value)
    return bool(value)
