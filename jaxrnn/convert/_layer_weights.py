"""The weights of one layer, in the layout that all converters share.

Libraries differ in the names of arrays, the order of gates, the orientation of kernels,
the number of biases, and the constant that they add to the forget gate at run time. A
`Library` is the table of these differences. A `Library` translates between its arrays
and `LayerWeights`, and rejects layers that the library does not support. `CELL_TABLES`
are the tables of jaxrnn's own cells.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .._base.arguments import check_instance
from .._base.errors import Verbatim, counted, expect
from .._base.typing import Activation
from .._cells.base import BoundCell
from .._cells.fields import ACTIVATIONS, resolve_activation
from .._cells.lstm import BasicLSTMCell
from .._cells.wrappers.base import unwrapped
from .._cells.wrappers.dropout import DropoutWrapper
from .._cells.wrappers.multi_rnn import MultiRNNCell
from .._cells.wrappers.stateless import DeviceWrapper
from .._drivers.arguments import check_both_lists
from ..contrib import CoupledInputForgetGateLSTMCell
from ._kinds import CELL_TABLES, CELLS, GATED_CELLS, GATES, KINDS, Kind, Place, Table
from ._weights import (
    Reader,
    Weight,
    as_mapping,
    blocks,
    check_directions,
    check_names,
    flattened,
    joined,
    listed,
    nested,
    on_device,
)

ActivationLike: TypeAlias = Activation | str | None
Side: TypeAlias = BoundCell | Sequence[BoundCell]
BothDirections: TypeAlias = tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]
"""`(cells_fw, cells_bw)`, each with one bound cell per layer."""
Cells: TypeAlias = BoundCell | tuple[Side, Side]
"""What functions such as `to_torch` take: a bound cell, or cells of both directions."""
Loaded: TypeAlias = BoundCell | Any
"""A bound cell, or a pair for two directions; `Any` silences type checkers."""
Layer: TypeAlias = Sequence["LayerWeights"]
"""The weights of a layer: one `LayerWeights` per direction."""
Named: TypeAlias = tuple[str, "LayerWeights"]
"""The weights of one direction of a layer, with a name for messages."""

OTHER_GATES = "gates with another activation than the sigmoid"


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The weights of one direction of a layer.

    Attributes:
        kind: `RNN`, `GRU`, `GRU_AFTER` or `LSTM`.
        blocks: The weights by part and gate. The key "xi" holds the kernel of the
            inputs for gate i, and "w" holds the projection. See `Place` for the parts
            and shapes. Only `GRU_AFTER` has "sc", the bias that the reset gate
            multiplies. Keys such as "bi" hold all other biases.
        forget_bias: The constant, not stored in the weights, that the cell adds to the
            forget gate.
        activation: The `activation` of the cell. Default: tanh.
        recurrent_activation: The activation of the gates. Default: the sigmoid.
        clips: The cell's clips by field name, without the clips that are None.
        is_coupled: Whether the LSTM's input gate is 1 minus its forget gate.
    """

    kind: Kind
    blocks: Mapping[str, Weight]
    forget_bias: float = 0.0
    activation: ActivationLike = None
    recurrent_activation: ActivationLike = None
    clips: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_coupled: bool = False

    def array(self, part: str, gates: str = "") -> Weight:
        """Concatenates the blocks of a part, e.g. `array("x", "ifjo")`; see `Place`.

        The default `gates` are all gates in TensorFlow's order. Missing biases are
        zeros.
        """
        if part == "w":
            return self.blocks["w"]
        if part == "xh":
            return joined([self.array("x", gates), self.array("h", gates)])
        gates = gates or GATES[self.kind]
        none = np.zeros(self.units, self.blocks[f"b{gates[0].lower()}"].dtype)
        found = {gate: self.blocks.get(part + gate.lower(), none) for gate in gates}
        return joined([-x if g.isupper() else x for g, x in found.items()], axis=-1)

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.blocks[f"b{GATES[self.kind][0]}"])

    @property
    def features(self) -> list[str]:
        """The layer's features that some libraries lack, such as "peepholes"."""
        used = {
            "peepholes": "pi" in self.blocks,
            "projection": "w" in self.blocks,
            "clips": bool(self.clips),
            "coupled gates": self.is_coupled,
            OTHER_GATES: self.gate_name != "sigmoid",
        }
        return [name for name, is_used in used.items() if is_used]

    @property
    def activation_name(self) -> str:
        """The name of the activation, such as "tanh", or a description."""
        return _name_of(self.activation, "activation")

    @property
    def gate_name(self) -> str:
        """The name of the gates' activation, such as "sigmoid", or a description."""
        gates = self.recurrent_activation
        return "sigmoid" if gates is None else _name_of(gates, "recurrent_activation")


def _name_of(activation: ActivationLike, field: str) -> str:
    function = resolve_activation(activation, field)
    text = f"the function {getattr(function, '__name__', function)}"
    return next((k for k, v in ACTIVATIONS.items() if v is function), text)


def check_stated(name: str, activation: ActivationLike, kind: Kind) -> None:
    """Raises ValueError if the activation of a plain RNN is not given.

    The weights do not show the activation, and both tanh and relu are common.
    """
    must = "be given for a plain RNN, because the weights do not show the activation"
    fix = "Pass the activation of the original layer, such as 'tanh' or 'relu'."
    expect(kind != Kind.RNN or activation is not None, name, must, activation, fix)


def from_places(
    kind: Kind, given: Iterable[tuple[Place, Weight]], outputs: int, **fields: Any
) -> LayerWeights:
    """Builds a layer from arrays in any layout; see `Place`.

    If several arrays have the same part and gate, biases are added, and other arrays
    are concatenated along their rows. Missing biases become zeros.
    """
    found: dict[str, Weight] = {}
    for (part, gates), array in given:
        names = gates or [""]
        for gate, block in zip(names, blocks(array, len(names)), strict=True):
            is_own = part != "s" or (kind == Kind.GRU_AFTER and gate == "c")
            key = (part if is_own else "b") + gate.lower()
            signed = -block if gate.isupper() else block
            if key in found and part in "bs":
                signed = found[key] + signed
            elif key in found:
                signed = joined([found[key], signed])
            found[key] = signed
    if fields.get("is_coupled"):
        inputs = {key: block for key, block in found.items() if key[-1] == "i"}
        found |= {f"{key[:-1]}f": -block for key, block in inputs.items()}
    for gate in GATES[kind]:
        if f"xh{gate}" in found:
            both = found.pop(f"xh{gate}")
            found |= {f"x{gate}": both[:-outputs], f"h{gate}": both[-outputs:]}
        kernel = found[f"h{gate}"]
        found.setdefault(f"b{gate}", np.zeros(kernel.shape[1], kernel.dtype))
    if kind == Kind.GRU_AFTER:
        found.setdefault("sc", np.zeros(found["bc"].shape, found["bc"].dtype))
    return LayerWeights(kind, found, **fields)


@dataclasses.dataclass(frozen=True)
class Library:
    """Describes the layers and the weight layout of another library.

    Attributes:
        name: The library's name, for messages.
        orders: The library's order of gates for each kind of layer, e.g. "ifjo", in the
            letters of `GATES`.
        lacks: The `features` of `LayerWeights` that the library does not support.
        activations: The supported activations for each kind of layer. A kind without an
            entry supports every activation that the cell supports.
        forget_bias: The constant, not stored in the weights, that the library adds to
            the forget gate.
        is_transposed: Whether the library's kernels are `[gates * units, depth]`.
    """

    name: str
    orders: Mapping[Kind, str]
    lacks: tuple[str, ...] = (
        *("peepholes", "projection", "clips", "coupled gates", OTHER_GATES),
    )
    activations: Mapping[Kind, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    forget_bias: float = 0.0
    is_transposed: bool = False

    def check(self, name: str, layer: LayerWeights) -> None:
        """Raises ValueError if the library does not support the layer."""
        fitting = listed(CELLS[kind].__name__ for kind in self.orders)
        must = f"be one of {fitting}, which {self.name} supports"
        got = Verbatim(CELLS[layer.kind].__name__)
        expect(layer.kind in self.orders, name, must, got)
        got = listed(each for each in layer.features if each in self.lacks)
        must = f"have no {' or '.join(self.lacks)}, which {self.name} does not support"
        expect(not set(layer.features) & set(self.lacks), name, must, got)
        wanted = self.activations.get(layer.kind)
        if wanted is None:
            return
        found = {"the activation": layer.activation_name}
        if OTHER_GATES not in self.lacks:
            found["gates with the activation"] = layer.gate_name
        for what, got in found.items():
            must = f"have {what} {' or '.join(wanted)}, as in {self.name}"
            expect(got in wanted, name, must, Verbatim(got))

    def kind_of(self, name: str, got: Weight, columns: int, units: int) -> Kind:
        """Infers the kind of a layer with `units` units from its kernel's columns.

        An LSTM has 4 gates, so `4 * units` columns. If `orders` contains two kinds of
        GRU, the result is the last of them.

        Raises:
            ValueError: If the library has no layer with this number of gates.
        """
        kinds = {len(GATES[kind]): kind for kind in self.orders}
        numbers = " or ".join(map(str, kinds))
        families = " or ".join(kind.family for kind in kinds.values())
        must = f"have {numbers} blocks of size {units}, for {families}"
        is_whole = units and not columns % units
        expect(is_whole and columns // units in kinds, name, must, got)
        return kinds[columns // units]

    def read(
        self,
        read: Reader,
        kind: Kind,
        table: Table,
        units: int,
        outputs: int = 0,
        **fields: object,
    ) -> LayerWeights:
        """Reads the arrays that a table names, and builds a layer from them.

        Args:
            read: The arrays.
            kind: The kind of layer.
            table: The places of the arrays.
            units: The number of units.
            outputs: The size of the outputs, by default `units`.
            **fields: Other fields of the layer.
        """
        outputs = outputs or units
        depth = None
        given: list[tuple[Place, Weight]] = []
        for key, place in table.items():
            part, gates = place
            columns = units * len(gates)
            shapes = {
                "x": (depth, columns),
                "h": (outputs, columns),
                "xh": (depth and depth + outputs, columns),
                "w": (units, outputs),
            }
            shape: Any = shapes.get(part, (columns,))
            if list(table.values()).count(place) > 1:  # Shards may differ in size.
                shape = (None, *shape[1:])
            array = read(key, *(reversed(shape) if self.is_transposed else shape))
            given.append((place, array.T if self.is_transposed else array))
            if part in ("x", "xh"):
                depth = len(given[-1][1]) - outputs * (part == "xh")
        fields = {"forget_bias": self.forget_bias} | fields
        layer = from_places(kind, given, outputs, **fields)
        must = f"have input_size + {outputs} rows, with an input_size of at least 1"
        got = given[0][1]
        expect(layer.array("x").size, read.name(next(iter(table))), must, got)
        return layer

    def write(self, layer: LayerWeights, table: Table) -> dict[Any, Weight]:
        """Returns a layer's arrays in the library's layout, by the table's names."""
        added = layer.forget_bias - self.forget_bias
        if layer.kind == Kind.LSTM and added:
            # The sum is float32, because NumPy promotes a bfloat16 array plus a number.
            bias = layer.blocks["bf"]
            changed = {"bf": (bias + added).astype(bias.dtype)}
            if layer.is_coupled:
                changed["bi"] = -changed["bf"]
            layer = dataclasses.replace(layer, blocks={**layer.blocks, **changed})
        arrays = _write(layer, table)
        return {k: x.T if self.is_transposed else x for k, x in arrays.items()}

    def layers_of(self, cell: Cells) -> list[list[Named]]:
        """Reads the layers of a bound cell or of the pair `(cells_fw, cells_bw)`.

        Returns:
            For each layer, a list with one pair `(name, weights)` per direction.

        Raises:
            TypeError: If a cell is not bound, or has no equivalent in other libraries.
            ValueError: If the library does not support a layer. If a size does not
                match the layer below, or differs between the directions. If a parameter
                does not have the shape that its cell requires.
        """
        layers = []
        for row in cells_of("cell", cell):
            layers.append([(name, layer_of(name, bound)) for name, bound in row])
            for name, layer in layers[-1]:
                self.check(name, layer)
        _check_inputs([[x for _, x in each] for each in layers])
        return layers


def _write(layer: LayerWeights, table: Table) -> dict[Any, Weight]:
    """Returns the arrays that a table names, without parts that the layer lacks."""
    has = {"xh", "s", *(key[0] for key in layer.blocks)}
    return {k: layer.array(*place) for k, place in table.items() if place[0] in has}


_OURS = Library("jaxrnn", GATES)


def as_layers(name: str, layers: Any) -> dict[str, Any]:
    """Maps names for messages, such as "weights[0]", to the layers of a list.

    A list that contains arrays holds the weights of one layer.

    Raises:
        ValueError: If there are no layers.
    """
    is_list = isinstance(layers, list | tuple)
    if not is_list or any(hasattr(each, "shape") for each in layers):
        return {name: layers}
    expect(layers, name, "contain at least one layer", Verbatim("none"))
    return {f"{name}[{i}]": layer for i, layer in enumerate(layers)}


def bind_layers(
    name: str,
    layers: Sequence[Layer],
    bidirectional: bool | None = None,
    *,
    joins_directions: bool = True,
) -> Any:
    """Creates bound cells from layers, which are listed from the inputs upwards.

    Args:
        name: The argument that holds the layers, for messages.
        layers: The weights of each layer.
        bidirectional: True requires two directions, False requires one. None accepts
            both.
        joins_directions: Whether each layer reads the concatenated outputs of both
            directions of the layer below. If False, the input sizes above a layer of
            two directions are not checked.

    Returns:
        A bound cell, or for two directions `(cells_fw, cells_bw)` with one bound cell
        per layer.

    Raises:
        ValueError: If the sizes of two adjacent layers do not match, some layers have
            one direction and others have two, or `bidirectional` does not fit them.
    """
    _check_inputs(layers, joins_directions)
    check_directions(name, len(layers[0]), bidirectional)
    directions = [tuple(map(_bound_cell, side)) for side in zip(*layers, strict=True)]
    return stacked(directions[0]) if len(directions) == 1 else tuple(directions)


def stacked(cells: Sequence[BoundCell]) -> BoundCell:
    """Returns the cell itself for one layer, or a bound `MultiRNNCell` for several."""
    if len(cells) == 1:
        return cells[0]
    params = {f"cell_{i}": each.params for i, each in enumerate(cells)}
    return MultiRNNCell(tuple(each.cell for each in cells)).bind(params)


_FIX_OF_INPUTS = (
    "Convert each layer with a separate call if the model has other layers in between, "
    "or if it does not concatenate the outputs of both directions (merge_mode='sum' in "
    "Keras). Then compute these operations in your program."
)


def _check_inputs(layers: Sequence[Layer], joins_directions: bool = False) -> None:
    size, directions = 0, len(layers[0])
    for i, layer in enumerate(layers):
        must = f"have {counted(directions, 'direction')}, like the layers before it"
        fix = f"Convert layers[:{i}] and layers[{i}:] with separate calls."
        expect(len(layer) == directions, f"layers[{i}]", must, len(layer), fix)
        size = size or len(layer[0].array("x"))
        for direction in layer:
            got = len(direction.array("x"))
            must = (
                f"have input size {size}, like the layer below and the other direction"
            )
            expect(got == size, f"layers[{i}]", must, got, _FIX_OF_INPUTS)
        is_known = joins_directions or directions == 1
        size = sum(len(each.array("h")) for each in layer) * is_known


def _bound_cell(layer: LayerWeights) -> BoundCell:
    fields: dict[str, Any] = {"activation": layer.activation}
    if layer.kind == Kind.LSTM:
        fields["forget_bias"] = layer.forget_bias
        fields["use_peepholes"] = "pi" in layer.blocks
    if "w" in layer.blocks:
        fields["num_proj"] = layer.blocks["w"].shape[1]
    make: Any = CELLS[layer.kind]
    if layer.is_coupled:
        make = CoupledInputForgetGateLSTMCell
    elif OTHER_GATES in layer.features:
        make = GATED_CELLS[layer.kind]
        fields["recurrent_activation"] = layer.recurrent_activation
    cell = make(layer.units, **fields)
    return cell.bind(on_device(nested(_write(layer, _table(cell)))))


def _table(cell: Any) -> Table:
    """Maps the names of a cell's parameters to their places."""
    is_coupled = isinstance(cell, CoupledInputForgetGateLSTMCell)
    table = dict({} if is_coupled else CELL_TABLES[KINDS[type(cell)]])
    if is_coupled:  # The input gate is 1 minus the forget gate.
        table |= {f"W_{i}": ("xh", "jIo") for i in range(cell.num_unit_shards)}
        table |= {f"W_P_{i}": ("w", "") for i in range(cell.num_proj_shards)}
        table |= {"B": ("b", "jIo"), "W_F_diag": ("p", "I"), "W_O_diag": ("p", "o")}
    has = {
        "p": getattr(cell, "use_peepholes", False),
        "w": getattr(cell, "num_proj", None) is not None,
    }
    return {key: place for key, place in table.items() if has.get(place[0], True)}


def rows_of(name: str, cells: Any) -> list[list[tuple[str, Any]]]:
    """The cells of each layer, one per direction, with names for messages.

    Args:
        name: The name of `cells`.
        cells: One cell, which may be a `MultiRNNCell`, or the tuple
            `(cells_fw, cells_bw)`. Each entry of the tuple is a cell, or a list with
            one cell per layer. A list in place of the tuple is refused, because its
            cells may be meant as a stack.

    Raises:
        TypeError: If `cells` is a list, or a tuple of another length.
        ValueError: If the lists are empty or differ in length.
    """
    if not isinstance(cells, list | tuple):
        return [[(name, cells)]]
    must = "be a cell or the tuple (cells_fw, cells_bw)"
    fix = "To stack layers of one direction, use `MultiRNNCell`."
    fits = isinstance(cells, tuple) and len(cells) == 2
    expect(fits, name, must, Verbatim(type(cells).__name__), fix, error=TypeError)
    fw, bw = (side if isinstance(side, list | tuple) else [side] for side in cells)
    check_both_lists(fw, bw)
    pairs = enumerate(zip(fw, bw, strict=True))
    return [[(f"cells_fw[{i}]", f), (f"cells_bw[{i}]", b)] for i, (f, b) in pairs]


def cells_of(name: str, cells: Any) -> list[list[tuple[str, BoundCell]]]:
    """The bound cells of each layer, also of a bound `MultiRNNCell`; see `rows_of`.

    Raises:
        TypeError: If a cell is not bound.
    """
    rows = rows_of(name, cells)
    if len(rows[0]) == 1:
        return [[each] for each in single_cells(name, cells)]
    return [[(key, as_bound(key, cell)) for key, cell in row] for row in rows]


def as_bound(name: str, cell: Any) -> BoundCell:
    """Removes dropout wrappers and device wrappers from a bound cell.

    Raises:
        TypeError: If `cell` is not a bound cell, or its parameters are not a dict.
    """
    fix = (
        "For a module, pass `get_cells()` or `cells_of(variables)`. For several "
        "layers, pass a bound `MultiRNNCell`. For two directions, pass the tuple "
        "`(cells_fw, cells_bw)`, or convert one cell at a time."
    )
    what = "a bound cell, such as `cell.bind(params)`"
    check_instance(name, cell, BoundCell, what, fix)
    as_mapping(f"{name}.params", cell.params)
    while isinstance(cell.cell, DropoutWrapper | DeviceWrapper):
        cell = cell.cell.cell.bind(cell.params)
    return cell


def single_cells(name: str, cell: object) -> list[tuple[str, BoundCell]]:
    """A bound cell, or the cells of a bound stack, each with a name for messages.

    Raises:
        TypeError: If `cell` is not a bound cell.
    """
    stack: Any = as_bound(name, cell)
    if not isinstance(stack.cell, MultiRNNCell):
        return [(name, stack)]
    # If a cell occurs several times, its parameters are stored under the index of its
    # first occurrence.
    owners = [f"cell_{owner}" for owner in stack.cell.owners]
    cells = []
    for i, (each, owner) in enumerate(zip(stack.cell.cells, owners, strict=True)):
        bound = each.bind(stack.params.get(owner, {}))
        cells += single_cells(f"{name}.cells[{i}]", bound)
    return cells


def layer_of(name: str, bound: BoundCell) -> LayerWeights:
    """Reads the parameters of a bound cell, which is a single layer.

    Raises:
        TypeError: If the cell has no equivalent in other libraries (e.g. a custom
            class), or the parameters are not floating-point arrays of one dtype.
        ValueError: If the cell has layer normalization. If a parameter is missing,
            unknown, or has the wrong shape.
    """
    cell = bound.cell
    is_coupled = isinstance(cell, CoupledInputForgetGateLSTMCell)
    known = *CELLS.values(), BasicLSTMCell, CoupledInputForgetGateLSTMCell
    names = listed(each.__name__ for each in known)
    must = f"be one of {names}, or a stack of these"
    fix = "For the inner cell alone, pass `cell.cell.cell.bind(cell.params)`."
    fix *= unwrapped(cell) is not cell  # For wrappers without parameters of their own.
    if isinstance(bound.cell, MultiRNNCell):
        must = f"be one of {names}, for each layer and direction"
        fix = (
            "If each layer reads both directions of the layer below, pass "
            "`(cells_fw, cells_bw)`, with a list for each direction. To export two "
            "separate stacks, use `to_stablehlo` or `to_tflite`."
        )
    got = Verbatim(repr(cell))
    expect(is_coupled or type(cell) in KINDS, name, must, got, fix, TypeError)
    must = "be False, because this conversion does not support normalization"
    expect(not (is_coupled and cell.layer_norm), f"{name}.layer_norm", must, True)
    must = "be True, because other libraries need a kernel for the inputs"
    projects = getattr(cell, "project_inputs", True)
    expect(projects, f"{name}.project_inputs", must, projects)
    table = _table(cell)
    read = Reader(flattened(bound.params), f"{name}.params['", "']")
    check_names(f"{name}.params", read.weights, table)
    clips = {clip: getattr(cell, clip, None) for clip in ("cell_clip", "proj_clip")}
    return _OURS.read(
        read,
        Kind.LSTM if is_coupled else KINDS[type(cell)],
        table,
        cell.num_units,
        cell.output_size,
        forget_bias=getattr(cell, "forget_bias", 0.0),
        activation=cell.activation,
        recurrent_activation=getattr(cell, "recurrent_activation", None),
        clips={clip: value for clip, value in clips.items() if value is not None},
        is_coupled=is_coupled,
    )
