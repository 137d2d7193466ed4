"""Converts nodes of the ONNX operators `LSTM`, `GRU` and `RNN`.

A node is a dict that maps names of inputs to arrays, and names of attributes to values.
`_onnx_model.py` reads these dicts from a model. `_onnx_states.py` converts nodes of the
operators `LinearAttention` and `CausalConvWithState`.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np

from .._base.arguments import check_instance
from .._base.errors import Verbatim, describe, error_note, expect
from .._base.hints import with_hints
from .._base.typing import Params
from .._cells.base import BoundCell
from ._kinds import Kind, Table
from ._layer_weights import (
    BothDirections,
    Cells,
    Layer,
    Library,
    Loaded,
    Named,
    as_layers,
    bind_layers,
    from_places,
)
from ._onnx_model import as_dict, as_model, as_text, reads, recurrent_nodes
from ._onnx_states import CELLS, DEFAULTS, KNOWN
from ._weights import (
    Names,
    Reader,
    Weights,
    as_mapping,
    as_names,
    blocks,
    check_directions,
    joined,
    listed,
)

# Maps ONNX's names of activations to jaxrnn's names.
_ACTIVATIONS = {
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_SPELLINGS = {name.lower(): name for name in _ACTIVATIONS}
# ONNX's defaults. jaxrnn's activations use the same constants and support no others.
_CONSTANTS = {
    "activation_alpha": {"Elu": 1.0, "HardSigmoid": 0.2},
    "activation_beta": {"HardSigmoid": 0.5},
}
_FIX = "jaxrnn has no such cell, so write the step as a `FunctionCell`."
_OWN_ACTIVATION = (
    "Remove this attribute, and bind the loaded parameters to the same cell with your "
    "own `activation` or `recurrent_activation`."
)
_ORDERS = {Kind.RNN: "c", Kind.GRU_AFTER: "urc", Kind.GRU: "urc", Kind.LSTM: "iofj"}
_LIBRARY = Library(
    "ONNX",
    _ORDERS,
    lacks=("projection", "clips"),
    activations=dict.fromkeys(_ORDERS, tuple(_ACTIVATIONS.values())),
    is_transposed=True,
)
# The arrays of one direction. "Wb" and "Rb" are the two halves of the array B.
_TABLES: dict[Kind, Table] = {
    kind: {
        "W": ("x", order),
        "R": ("h", order),
        "Wb": ("b", order),
        "Rb": ("s", order),
        "P": ("p", "iof"),
    }
    for kind, order in _ORDERS.items()
}
_DIRECTIONS = ("forward", "bidirectional")
_SHARED = ("op_type", "name", "reads")  # `from_onnx` ignores `name`.
_KNOWN = (
    *("W", "R", "B", "P", "direction", "activations", "activation_alpha"),
    *("activation_beta", "clip", "input_forget", "linear_before_reset"),
    # `from_onnx` ignores `layout`, and only checks `hidden_size`.
    *("initial_h", "initial_c", "hidden_size", "layout"),
)


def onnx_nodes(model: object, *, at: Names = None) -> list[Params]:
    """Reads the recurrent nodes of an ONNX model as dicts, which `from_onnx` accepts.

    If `from_onnx` refuses a node, change its dict. For example, remove a trained
    initial state, or set the direction of a backward node to "forward". The dicts do
    not contain lengths and initial states that are inputs of the model. Pass such
    lengths and states to `dynamic_rnn`.

    Args:
        model: The path or the bytes of a file, or an `onnx.ModelProto`. If the weights
            are stored in other files, pass the path.
        at: The name of a node, or of a scope that contains nodes, e.g. "encoder" for
            "/encoder/LSTM" and "/encoder/LSTM_1", or a list of these names. For a node
            without a name, pass the name of its first output. By default, all recurrent
            nodes are read.

    Returns:
        A dict for each node, in the order of the names in `at`. Nodes of one scope are
        in the order of the graph. A dict contains `op_type`, `name`, the attributes,
        and the arrays W, R and, if the node has them, B and P. `reads` is the name of
        the returned node whose outputs this node reads, or None if it reads no returned
        node. If the model stores an initial state other than zeros, the dict contains
        `initial_h` and `initial_c`, each `[directions, rows, units]`. A single row
        applies to all rows. The integer weights of a `DynamicQuantizeLSTM` become
        floating-point weights of an LSTM. A `CausalConvWithState` has the arrays
        `weight` and `bias`. A `LinearAttention` has the sizes `query`, `value` and
        `decay`: the size of the last axis of each of these inputs, if the model
        contains it. The dicts of both operators contain `past_state`, with the rows as
        second axis, if the model stores a state other than zeros.

    Raises:
        TypeError: If `model` is not a path, bytes or an `onnx.ModelProto`.
        ValueError: If the model has no recurrent node, or one of the names in `at`
            matches no recurrent node. If one of the model's functions has a recurrent
            node. If a weight cannot be read, or computed from constants by onnx's
            reference evaluator.
        ImportError: If the package `onnx` is missing: `pip install onnx`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.convert, jaxrnn.export
        >>> cell, step = jaxrnn.LSTMCell(4), jnp.ones((1, 3), jnp.float32)
        >>> file = jaxrnn.export.to_onnx(cell.bind(cell.init(jax.random.key(0), step)))
        >>> [node] = jaxrnn.convert.onnx_nodes(file)
        >>> node["op_type"], node["W"].shape, node["direction"]
        ('LSTM', (1, 16, 3), 'forward')
    """
    found = recurrent_nodes(as_model(model))
    chosen = found if at is None else []
    for name in [] if at is None else as_names(at):
        scope = f"{name.lstrip('/')}/"
        own = [x for x in found if f"{x.name.strip('/')}/".startswith(scope)]
        must = "be names of recurrent nodes or of their scopes"
        there = listed(f"{each.name!r} ({each.node.op_type})" for each in found)
        expect(own, "at", must, name, f"Found: {there}.")
        chosen = chosen + own
    made = {each.name: as_dict(each) for each in chosen}
    shapes = {name: np.shape(node.get("R", ())) for name, node in made.items()}
    for each in chosen:
        below = (
            other.name for other in chosen if reads(each, other, shapes[other.name])
        )
        made[each.name]["reads"] = next(below, None)
    return [made[each.name].copy() for each in chosen]


@overload
def from_onnx(
    model: object, *, at: Names = None, bidirectional: None = None
) -> Loaded: ...


@overload
def from_onnx(
    model: object, *, at: Names = None, bidirectional: Literal[False]
) -> BoundCell: ...


@overload
def from_onnx(
    model: object, *, at: Names = None, bidirectional: Literal[True]
) -> BothDirections: ...


@with_hints
def from_onnx(
    model: object, *, at: Names = None, bidirectional: bool | None = None
) -> Any:
    """Loads the recurrent nodes of an ONNX model as bound cells.

    ONNX's operators are time major. Their input X corresponds to the `inputs` of
    `dynamic_rnn` with `time_major=True`. The output Y has an additional axis for the
    directions, after the time axis.

    Nodes `LinearAttention` and `CausalConvWithState`, also in onnxruntime's domain
    `com.microsoft`, can only be loaded one at a time. The axes of their cells differ
    from the axes of the operators, and the cells hold no state:

    - For a `LinearAttention`, pass query, key, value, decay and beta as q, k, v, g and
      beta. Split the last axis `heads * size` of the operator into `[heads, size]`. If
      the operator has no decay, pass zeros as g.
    - For a `CausalConvWithState`, move time, the operator's last axis of inputs,
      outputs and state, in front of the channels.

    Args:
        model: A model, as for `onnx_nodes`. Alternatively, one node, or a list of the
            nodes of a stack from the inputs upwards, as `onnx_nodes` and
            `to_onnx_nodes` return them. Each node is a dict with the arrays W and R
            and, optionally, B, P, `op_type` and the attributes. Missing attributes get
            ONNX's default values, e.g. `linear_before_reset=0` for a GRU. Each node
            must read the outputs of all directions of the node below. `from_onnx`
            checks what the nodes read only if `model` is a model.
        at: The names of the nodes, which must form one stack, as for `onnx_nodes`. Omit
            `at` if you pass nodes as `model`.
        bidirectional: True requires two directions, False requires one. By default, the
            nodes decide. All nodes must have the same number of directions.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (for `linear_before_reset`), `BasicRNNCell` or
        `contrib.CoupledInputForgetGateLSTMCell` (for `input_forget`). Several nodes
        become a bound `MultiRNNCell`. If the gates do not use the sigmoid, the cell is
        of a private class, with the same parameters and a field `recurrent_activation`.
        For two directions, `(cells_fw, cells_bw)` for
        `stack_bidirectional_dynamic_rnn`, each with one cell per node.

        For a `LinearAttention`, a `LinearAttentionMemoryCell` or, for the update rules
        `delta` and `gated_delta`, a `DeltaMemoryCell`, bound to `{}`. For a
        `CausalConvWithState`, a bound `ShortConvCell` or, with an `activation`, a bound
        `MultiRNNCell` of this cell and `jax.nn.silu`.

    Raises:
        TypeError: If `model` is not a model, a node is not a dict, a weight is not a
            floating-point array, or a size is not an integer.
        ValueError: If `onnx_nodes` refuses the model. If `at` is given with nodes. If a
            name is missing or unknown, or an array has the wrong shape. If a node runs
            only backward, `bidirectional` does not fit the node, or some nodes have one
            direction and others have two. If a node of a model does not read the node
            before it, or has an initial state, which a cell does not hold. If a node
            has a feature that jaxrnn does not support: two activations besides the
            gates' activation, values of `activation_alpha` or `activation_beta` other
            than ONNX's defaults, or a `clip`; several queries for one memory
            (`q_num_heads` greater than `kv_num_heads`), an unsupported update rule or
            activation, a convolution over one step, or a `dilation`.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> w, r = np.ones((1, 20, 3), np.float32), np.ones((1, 20, 5), np.float32)
        >>> cell = jaxrnn.convert.from_onnx({"W": w, "R": r})
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> [node] = jaxrnn.convert.to_onnx_nodes(cell)
        >>> {k: getattr(v, "shape", v) for k, v in node.items()}
        {'op_type': 'LSTM', 'W': (1, 20, 3), 'R': (1, 20, 5), 'B': (1, 40), \
'hidden_size': 5, 'direction': 'forward', 'activations': ['Sigmoid', 'Tanh', 'Tanh']}
    """
    if isinstance(model, Mapping | list | tuple):
        nodes = as_layers("model", model)
        expect(at is None, "at", "be omitted for nodes, which are dicts", at)
    else:
        nodes = as_layers("onnx_nodes(model)", onnx_nodes(model, at=at))
    nodes = {place: _as_node(place, node) for place, node in nodes.items()}
    _check_stack(nodes)
    (place, node), *others = nodes.items()
    if not others and node.get("op_type") in CELLS:
        check_directions(place, 1, bidirectional)
        with error_note(f"Raised for the cell of `{place}`, a {node['op_type']}."):
            return CELLS[node["op_type"]](place, node)
    layers = [_layer(*each) for each in nodes.items()]
    return bind_layers("model", layers, bidirectional)


def to_onnx_nodes(cell: Cells) -> list[Params]:
    """Returns a dict of arrays and attributes for each layer of a cell.

    The arrays are W, R, B and, with peepholes, P. `op_type` is the first argument of
    `onnx.helper.make_node`, and the other entries are attributes. The first half of B
    holds the biases, including the forget bias. The second half is zero, except for the
    bias that the reset gate of a GRU multiplies.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell` or `contrib.CoupledInputForgetGateLSTMCell`, or a
            bound `MultiRNNCell` of these. For two directions, the pair
            `(cells_fw, cells_bw)`, each a list with one bound cell per layer.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell has a feature that ONNX does not support: a projection,
            clips, layer normalization, or an activation that ONNX lacks. If the
            directions differ in the number, kinds or sizes of their layers.
    """
    return [_node(layer) for layer in _LIBRARY.layers_of(cell)]


def _check_stack(nodes: Mapping[str, Any]) -> None:
    """Raises ValueError unless each node of a model reads the node before it."""
    for (_, below), (place, node) in itertools.pairwise(nodes.items()):
        name = below.get("name")
        must = f"read the outputs of {name!r}, the node below"
        source = node.get("reads")
        what = "none of these nodes" if source is None else repr(source)
        got = Verbatim(f"{node.get('name')!r}, which reads {what}")
        fix = "To load one stack at a time, pass the names of its nodes as `at`."
        fits = "reads" not in node or node["reads"] == name
        expect(fits, place, must, got, fix)


def _as_node(name: str, given: object) -> Params:
    """Checks the keys of a node, and decodes its byte strings."""
    fix = "Read the nodes of a model with `convert.onnx_nodes(model)`."
    given = as_mapping(name, given, fix)
    # Byte strings come from protocol buffers.
    node = {key: as_text(value) for key, value in given.items()}
    known = *_SHARED, *KNOWN.get(node.get("op_type", ""), _KNOWN)
    # Compare whole pairs: keys of `DEFAULTS` are accepted only with their defaults.
    unknown = [k for k, v in node.items() if (k, v) not in DEFAULTS and k not in known]
    expect(not unknown, name, f"hold only {listed(known)}", listed(unknown))
    return node


def _layer(name: str, node: Params) -> Layer:
    """Reads a node as one `LayerWeights` per direction."""
    read = Reader(node, f"{name}['", "']")
    found, rows, _ = read("W", None, None, None).shape
    count = 2 if found == 2 else 1
    _check_no_states(name, node)
    w = read("W", count, None, None)
    r = read("R", count, rows, None)
    kind = _kind(name, node, r)
    arrays = {"W": w, "R": r}
    if node.get("B") is not None:
        arrays["Wb"], arrays["Rb"] = blocks(read("B", count, 2 * rows), 2)
    if node.get("P") is not None:
        arrays["P"] = read("P", count, 3 * r.shape[2])
    is_coupled = _flag(name, node, "input_forget", kind, Kind.LSTM)
    activations = _read_activations(name, node, kind, count, is_coupled)
    layers = []
    for i, functions in enumerate(activations):
        given = [(_TABLES[kind][key], both[i].T) for key, both in arrays.items()]
        layers.append(from_places(kind, given, 0, is_coupled=is_coupled, **functions))
    return layers


def _check_no_states(name: str, node: Weights) -> None:
    """Raises ValueError for a node with an initial state."""
    for key in ("initial_h", "initial_c"):
        must = "be omitted, because a cell does not hold an initial state"
        fix = (
            f"Call `{key} = node.pop('{key}')` for the dict `node` that `onnx_nodes` "
            f"returns, and pass the dict to `from_onnx`. Then pass "
            f"`jnp.broadcast_to({key}[0], (batch, units))` in the `initial_state`."
        )
        expect(node.get(key) is None, f"{name}['{key}']", must, node.get(key), fix)


def _kind(name: str, node: Weights, r: np.ndarray) -> Kind:
    """Infers the kind of a node from the shape of R; checks the attributes."""
    count, rows, units = r.shape
    kind = _LIBRARY.kind_of(f"{name}['R']", r, rows, units)
    direction = _DIRECTIONS[count - 1]
    of_r = {"direction": direction, "op_type": str(kind), "hidden_size": units}
    for key, want in of_r.items():
        got = node.get(key, want)
        must = f"be {want!r} to match `R` ({describe(r)})"
        fix = "Pass 'forward', and reverse the inputs with `reverse_sequence`."
        fix = fix if got == "reverse" else ""
        expect(got == want, f"{name}['{key}']", must, got, fix)
    fits = node.get("P") is None or kind == Kind.LSTM
    must = f"be omitted for the operator {kind}"
    expect(fits, f"{name}['P']", must, node.get("P"))
    after = _flag(name, node, "linear_before_reset", kind, Kind.GRU)
    return Kind.GRU_AFTER if after else kind


def _flag(name: str, node: Weights, key: str, kind: Kind, owner: Kind) -> bool:
    """Reads an attribute that is 0 (the default) or 1.

    Raises:
        ValueError: If the value is neither 0 nor 1, or is 1 and `kind` is not `owner`.
    """
    value = node.get(key) or 0
    expect(value in (0, 1), f"{name}['{key}']", "be 0 or 1", value)
    fits = not value or kind == owner
    must = f"be 0 for the operator {kind.family}"
    expect(fits, f"{name}['{key}']", must, value)
    return bool(value)


def _read_activations(
    name: str, node: Weights, kind: Kind, count: int, is_coupled: bool
) -> list[Params]:
    """Reads the activations of each of the `count` directions as fields of a cell.

    Raises:
        TypeError: If `activations` is not a list.
        ValueError: If an activation has no equivalent in jaxrnn, or its constants
            differ from jaxrnn's. If an LSTM's candidate and output have two
            activations, or the gates of a node with `input_forget` do not use the
            sigmoid. If there is a `clip`.
    """
    default = _spelled(kind, "Tanh") * count
    given = node.get("activations")
    given = default if given is None else given
    place = f"{name}['activations']"
    check_instance(place, given, list | tuple, "a list of names")
    fits = len(given) == len(default)
    expect(fits, place, f"have length {len(default)}", len(given))
    given = [_SPELLINGS.get(str(one).lower(), one) for one in given]
    found: list[Params] = []
    size = len(given) // count
    for own in (given[i : i + size] for i in range(0, len(given), size)):
        for each in own:
            must = f"be one of {', '.join(map(repr, _ACTIVATIONS))}"
            expect(each in _ACTIVATIONS, place, must, each, _FIX)
        gate = "Sigmoid" if is_coupled else own[0]
        want = _spelled(kind, own[-1], gate)
        must = f"be {listed(want)} for each direction"
        expect(own == want, place, must, listed(own), _FIX)
        found.append({"activation": _ACTIVATIONS[own[-1]]})
        if kind != Kind.RNN:
            found[-1]["recurrent_activation"] = _ACTIVATIONS[gate]
    _check_constants(name, node, given)
    return found


def _spelled(kind: Kind, activation: str, gate: str = "Sigmoid") -> list[str]:
    """Lists the attribute `activations` of one direction, e.g. Sigmoid, Tanh, Tanh."""
    gates = [] if kind == Kind.RNN else [gate]
    return gates + [activation] * (2 if kind == Kind.LSTM else 1)


def _check_constants(name: str, node: Weights, given: list[str]) -> None:
    """Raises ValueError for a clip, or for constants that differ from jaxrnn's.

    Each activation that has a constant, such as Elu, reads the next value of the list.
    If the list is too short, the constant is the default.
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


def _node(named: list[Named]) -> Params:
    """Builds the node of a layer that has one or two directions."""
    names, layers = zip(*named, strict=True)
    sizes = [f"{layer.kind} (size {layer.units})" for layer in layers]
    must = f"be {sizes[0]} like `{names[0]}`, because one node runs both cells"
    expect(sizes[-1] == sizes[0], names[-1], must, Verbatim(sizes[-1]))
    kind = layers[0].kind
    units = layers[0].units
    arrays = [_LIBRARY.write(layer, _TABLES[kind]) for layer in layers]
    theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
    activations = [
        (theirs[layer.activation_name], theirs[layer.gate_name]) for layer in layers
    ]
    node = {
        "op_type": kind.family,
        "W": joined([each["W"][None] for each in arrays]),
        "R": joined([each["R"][None] for each in arrays]),
        "B": joined([joined([each["Wb"], each["Rb"]])[None] for each in arrays]),
    }
    if any("P" in each for each in arrays):
        # P covers both directions, so a direction without peepholes gets zeros.
        none = np.zeros(3 * units, arrays[0]["Wb"].dtype)
        node["P"] = joined([each.get("P", none)[None] for each in arrays])
    node["hidden_size"] = units
    node["direction"] = _DIRECTIONS[len(layers) - 1]
    node["activations"] = [s for own in activations for s in _spelled(kind, *own)]
    if all(layer.is_coupled for layer in layers):
        node["input_forget"] = 1
    if kind.family == "GRU":
        node["linear_before_reset"] = int(kind == Kind.GRU_AFTER)
    return node
