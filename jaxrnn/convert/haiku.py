"""Weights of Haiku's `LSTM`, `GRU`, `VanillaRNN` and convolutional LSTMs.

    cell = jaxrnn.convert.haiku.load(params)  # From `hk.transform(...).init`.
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (hidden, cell) in Haiku and (c, h) in jaxrnn. Both libraries add
1 to the forget gate at run time, so the converters copy the bias of this gate
unchanged. Haiku's update gate is one minus jaxrnn's update gate. A `VanillaRNN` becomes
a `BasicRNNCell` with relu. A convolutional LSTM becomes the corresponding cell of
`jaxrnn.contrib`; for example, a `Conv2DLSTM` becomes a `Conv2DLSTMCell`. The padding,
the strides and the order of the gates are the same. For a `VanillaRNN` and for a
convolutional LSTM, Haiku stores two kernels and two biases. The converted cell stores
the concatenation of the two kernels and the sum of the two biases.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from .. import contrib
from .._base.arguments import check_instance
from .._base.errors import Verbatim
from .._base.expect import expect
from .._base.modules import export as _export, missing_name as _missing_name
from .._cells.bound import BoundCell
from . import _weights
from ._bound_cells import bind_layers, layers_of, single_cells, stacked
from ._layer_weights import GATES, Kind, LayerWeights, Library, with_forget_bias
from ._weights import (
    Read,
    Weights,
    as_mapping,
    blocks,
    check_names,
    joined,
    listed,
    pick,
)

__all__ = ["load", "save"]


_NAMES = {Kind.LSTM: "lstm", Kind.GRU: "gru", Kind.RNN: "vanilla_rnn"}
_LIBRARY = Library(
    "Haiku",
    {Kind.LSTM: GATES[Kind.LSTM], Kind.GRU: "urc", Kind.RNN: GATES[Kind.RNN]},
    activations={Kind.LSTM: ("tanh",), Kind.GRU: ("tanh",), Kind.RNN: ("relu",)},
    forget_bias=1.0,
)
# The class at index n runs on grids with n axes; the class at index 0 runs on any grid.
_CONVS = (
    contrib.ConvLSTMCell,
    contrib.Conv1DLSTMCell,
    contrib.Conv2DLSTMCell,
    contrib.Conv3DLSTMCell,
)
# The inner modules of a `VanillaRNN` (`_LINEAR`) and of a convolutional LSTM (`_CONV`).
# An `LSTM` has only the first module of `_LINEAR`, and a `GRU` has no inner module.
_LINEAR = ("/linear", "/linear_1")
_CONV = ("/input_to_hidden", "/hidden_to_hidden")
_DEFAULT = "|".join([*_NAMES.values(), r"conv[123]_dlstm"])
_MODULE = re.compile(rf"((?:.*/)?(?:{_DEFAULT}))(?:_(\d+))?")
_INNER = re.compile(rf"({'|'.join([*_LINEAR, *_CONV])})$")

Core: TypeAlias = tuple[str, dict[str, dict[str, np.ndarray]]]
"""The default name of a core, and the weights of each inner module by its suffix."""


def load(
    params: Weights,
    name: str | Sequence[str] | None = None,
    *,
    input_shape: Sequence[int] | None = None,
) -> BoundCell:
    """Loads one core, or stacked cores such as an `hk.DeepRNN`, as a bound cell.

    The weights may be traced. Gradients then have the structure of `params`.

    Args:
        params: The parameters of the core or of a whole model.
        name: The module name of the core, e.g. "encoder/~/lstm"; for several cores, a
            sequence of names from the inputs upwards. None loads all cores with Haiku's
            default names, e.g. lstm and lstm_1; these cores must be of one kind and in
            the same module.
        input_shape: The `input_shape` of convolutional LSTMs, i.e. the sizes of the
            grid's axes, without channels. Required for these cores, whose weights do
            not include the sizes. All cores must have the same `input_shape`.

    Returns:
        A bound `LSTMCell`, `GRUCell`, `BasicRNNCell` with relu, or `Conv1DLSTMCell`,
        `Conv2DLSTMCell` or `Conv3DLSTMCell` of `jaxrnn.contrib`; for several layers, a
        bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a module or a weight is missing or unknown, or has the wrong
            shape; if `name` is None and the order of the cores is ambiguous; if
            `input_shape` is missing for convolutional LSTMs, or given for other cores.

    Example:
        >>> import numpy as np, jaxrnn.convert.haiku
        >>> params = {"lstm/linear": {"w": np.ones((8, 20)), "b": np.ones(20)}}
        >>> cell = jaxrnn.convert.haiku.load(params)
        >>> cell.cell.forget_bias, cell.state_size
        (1.0, LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.haiku.save(cell, "net/lstm"))
        ['net/lstm/linear']
    """
    params = as_mapping("params", params)
    names = _found(params) if name is None else _as_names(name)
    if any(f"{each}{part}" in params for each in names for part in _CONV):
        return _load_convs(params, names, input_shape)
    must = "be omitted for cores that are not convolutional LSTMs"
    expect(input_shape is None, "input_shape", must, input_shape)
    return bind_layers([(_layer(params, each),) for each in names])


def save(
    cell: BoundCell, name: str | Sequence[str] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of a cell in Haiku's two levels of dicts.

    The arrays are NumPy arrays; traced parameters stay JAX arrays. The second bias of a
    `VanillaRNN` is zero; a core with `double_bias=False` ignores it.

    Args:
        cell: A bound `BasicRNNCell` with relu, `BasicLSTMCell`, `LSTMCell` or
            `GRUCell`, or a bound `MultiRNNCell` of these; or a bound convolutional LSTM
            of `jaxrnn.contrib`, or a bound `MultiRNNCell` of these.
        name: The module name; for several layers, a sequence of names. None uses the
            names that Haiku gives to cores constructed in this order.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If there is not exactly one name per layer, a layer is a
            `CudnnCompatibleGRUCell`, or `cell` has a feature that Haiku does not
            support: peepholes, clips, coupled gates, a projection, an activation that
            Haiku's core does not have, or a skip connection.
    """
    found = single_cells("cell", cell)
    if any(type(each.cell) in _CONVS for _, each in found):
        cores = [_saved_conv(*each) for each in found]
    else:
        layers = layers_of(_LIBRARY, cell, bidirectional=False)
        cores = [_saved(layer) for ((_, layer),) in layers]
    default = _numbered([default for default, _ in cores])
    names = default if name is None else _as_names(name)
    must = f"hold one distinct name per layer ({len(cores)})"
    expect(len(set(names)) == len(cores), "name", must, listed(names))
    return {
        f"{name}{part}": weights
        for name, (_, core) in zip(names, cores, strict=True)
        for part, weights in core.items()
    }


def _as_names(name: Any) -> list[str]:
    names = [name] if isinstance(name, str) else name
    kinds = Sequence if names else ()
    check_instance("name", names, kinds, "the name of a module or a list of names")
    for each in names:
        check_instance("name", each, str, "a string")
    return list(names)


def _found(params: Weights) -> list[str]:
    """The cores with default names, from the inputs upwards."""
    own = [_INNER.sub("", str(module)) for module in params]
    found = {name: match for name in own if (match := _MODULE.fullmatch(name))}
    must = (
        "be given unless all cores are in one module, of one kind, and have default "
        "names, such as lstm and lstm_1"
    )
    is_one = len({match[1] for match in found.values()}) == 1
    expect(is_one, "name", must, None, f"Found: {listed(found or params)}.")
    return sorted(found, key=lambda name: int(found[name][2] or 0))


def _numbered(names: Sequence[str]) -> list[str]:
    """Numbers equal names as Haiku does, e.g. lstm, lstm_1, gru, lstm_2."""
    numbers = [names[:i].count(name) for i, name in enumerate(names)]
    pairs = zip(names, numbers, strict=True)
    return [f"{name}_{number}" if number else name for name, number in pairs]


def _layer(params: Weights, name: str) -> LayerWeights:
    first, second = (f"{name}{part}" for part in _LINEAR)
    own = {each: params[each] for each in (name, first, second) if each in params}
    for each, weights in own.items():
        as_mapping(each, weights)
    read = _weights.reader(_weights.flattened(own))
    if name in own:
        check_names(name, own[name], ["w_i", "w_h", "b"])
        return _gru(read, name)
    if first not in own:
        pick(params, first, f"{name}` (of a GRU) or `{first}")
    check_names(first, own[first], ["w", "b"])
    if second in own:
        has_bias = "b" in own[second]
        check_names(second, own[second], ["w", "b"] if has_bias else ["w"])
        return _rnn(read, first, second, has_bias)
    if re.fullmatch(rf"(.*/)?{_NAMES[Kind.RNN]}(_\d+)?", name):
        pick(own, second)
    return _lstm(read, first)


def _lstm(read: Read, name: str) -> LayerWeights:
    w = read(f"{name}/w", None, None)
    units, rest = divmod(w.shape[1], 4)
    bias = read(f"{name}/b", w.shape[1])
    must = "have shape [depth + units, 4 * units] for an LSTM"
    expect(not rest and len(w) > units, f"{name}/w", must, w)
    return _LIBRARY.layer(Kind.LSTM, w[:-units], w[-units:], bias)


def _rnn(read: Read, first: str, second: str, has_bias: bool) -> LayerWeights:
    inputs = read(f"{first}/w", None, None)
    units = inputs.shape[1]
    biases = [read(f"{first}/b", units)]
    state = read(f"{second}/w", units, units)
    if has_bias:
        biases.append(read(f"{second}/b", units))
    return _LIBRARY.layer(Kind.RNN, inputs, state, *biases, activation="relu")


def _gru(read: Read, name: str) -> LayerWeights:
    units = read(f"{name}/w_h", None, None).shape[0]
    shapes = {"w_i": (None, 3 * units), "w_h": (units, 3 * units), "b": (3 * units,)}
    arrays = [read(f"{name}/{key}", *shape) for key, shape in shapes.items()]
    return _LIBRARY.layer(Kind.GRU, *map(_other_update, arrays))


def _other_update(array: np.ndarray) -> np.ndarray:
    """Negates the first block, because `1 - sigmoid(x)` equals `sigmoid(-x)`."""
    update, *rest = blocks(array, 3)
    return joined([-update, *rest], axis=-1)


def _saved(layer: LayerWeights) -> Core:
    inputs, state, bias, no_bias = _LIBRARY.arrays(layer)
    name = _NAMES[layer.kind]
    if layer.kind == Kind.GRU:
        arrays = map(_other_update, (inputs, state, bias))
        return name, {"": dict(zip(("w_i", "w_h", "b"), arrays, strict=True))}
    if layer.kind == Kind.LSTM:
        return name, {"/linear": {"w": joined([inputs, state]), "b": bias}}
    first, second = _LINEAR
    of_state = {"w": state, "b": no_bias}
    return name, {first: {"w": inputs, "b": bias}, second: of_state}


def _load_convs(params: Weights, names: Sequence[str], grid: Any) -> BoundCell:
    fits = isinstance(grid, Sequence) and len(grid) in (1, 2, 3)
    must = "hold the sizes of the 1, 2 or 3 axes of the cores' grid, without channels"
    expect(fits, "input_shape", must, Verbatim(repr(grid)))
    layers: list[BoundCell] = []
    for name in names:
        depth = layers[-1].cell.output_channels if layers else None
        layers.append(_conv(params, name, grid, depth))
    return stacked(layers)


def _conv(
    params: Weights, name: str, grid: Sequence[int], depth: int | None
) -> BoundCell:
    """Loads a core as a cell of contrib, which has one kernel for inputs and state."""
    first, second = (f"{name}{part}" for part in _CONV)
    own = {each: pick(params, each) for each in (first, second)}
    for each, weights in own.items():
        check_names(each, as_mapping(each, weights), ["w", "b"])
    read = _weights.reader(_weights.flattened(own))
    window = [None] * len(grid)
    of_inputs = read(f"{first}/w", *window, depth, None)
    *window, depth, columns = of_inputs.shape
    channels, rest = divmod(columns, 4)
    expect(not rest, f"{first}/w", "have a last axis divisible by 4", of_inputs)
    of_state = read(f"{second}/w", *window, channels, columns)
    bias = read(f"{first}/b", columns) + read(f"{second}/b", columns)
    kernel = joined([of_inputs, of_state], axis=-2)
    make: Any = _CONVS[len(grid)]
    cell = make(
        input_shape=[*grid, depth], output_channels=channels, kernel_shape=window
    )
    return cell.bind({"kernel": kernel, "biases": bias})


def _saved_conv(name: str, bound: BoundCell) -> Core:
    cell = bound.cell
    what = "a convolutional LSTM, because another layer of the stack is one"
    check_instance(name, cell, _CONVS, what)
    must = "be False, because Haiku has no skip connection"
    expect(not cell.skip_connection, f"{name}.skip_connection", must, True)
    depth = cell.input_shape[-1]
    specs = cell.param_specs(depth)
    check_names(f"{name}.params", bound.params, specs)
    read = _weights.reader(bound.params, f"{name}.params['", "']")
    kernel = read("kernel", *specs["kernel"].shape)
    no_bias = np.zeros(kernel.shape[-1], kernel.dtype)
    bias = read("biases", *no_bias.shape) if cell.use_bias else no_bias
    bias = with_forget_bias(bias, cell.forget_bias - _LIBRARY.forget_bias)
    of_inputs = {"w": kernel[..., :depth, :], "b": bias}
    of_state = {"w": kernel[..., depth:, :], "b": no_bias}
    first, second = _CONV
    return f"conv{cell.conv_ndims}_dlstm", {first: of_inputs, second: of_state}


_export(globals())

_HINTS = {"as_cell": "Use `jaxrnn.FunctionCell`, as in `docs/coming_from/haiku.md`."}


# Hide `__getattr__` from type checkers, so that they report missing names.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        """Raises an error that says what to use in place of `as_cell`."""
        raise _missing_name(__name__, name, _HINTS)
