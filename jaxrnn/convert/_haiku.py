"""Weights of Haiku's `LSTM`, `GRU`, `VanillaRNN` and convolutional LSTMs.

Both libraries add 1 to the forget gate at run time, so the converters copy the bias of
this gate unchanged. Haiku's update gate is one minus jaxrnn's update gate. For a
`VanillaRNN` and for a convolutional LSTM, Haiku stores two kernels and two biases.
jaxrnn's cell stores the two kernels as one array, and the sum of the two biases. The
padding, the strides and the order of the gates of convolutional LSTMs are the same as
in `jaxrnn.contrib`.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import contrib
from .._base.arguments import check_instance
from .._base.errors import Verbatim, expect
from .._cells.base import BoundCell
from ._kinds import Kind
from ._layer_weights import (
    LayerWeights,
    Library,
    bind_layers,
    single_cells,
    stacked,
)
from ._weights import (
    Names,
    Reader,
    Weight,
    Weights,
    as_mapping,
    as_names,
    blocks,
    check_names,
    flattened,
    joined,
    listed,
    on_device,
)

_NAMES = {Kind.LSTM: "lstm", Kind.GRU: "gru", Kind.RNN: "vanilla_rnn"}
_LIBRARY = Library(
    "Haiku",
    {Kind.LSTM: "ijfo", Kind.GRU: "urc", Kind.RNN: "c"},
    activations={Kind.LSTM: ("tanh",), Kind.GRU: ("tanh",), Kind.RNN: ("relu",)},
    forget_bias=1.0,
)
# The keys follow the name of the core, e.g. "lstm" in "lstm/linear/w".
_TABLES = {
    Kind.LSTM: {"/linear/w": ("xh", "ijfo"), "/linear/b": ("b", "ijfo")},
    Kind.GRU: {"/w_i": ("x", "Urc"), "/w_h": ("h", "Urc"), "/b": ("b", "Urc")},
    Kind.RNN: {
        "/linear/w": ("x", "c"),
        "/linear/b": ("b", "c"),
        "/linear_1/w": ("h", "c"),
        "/linear_1/b": ("s", "c"),
    },
}
# The class at index n >= 1 runs on grids with n axes, `ConvLSTMCell` on any grid.
_CONVS = (
    contrib.ConvLSTMCell,
    contrib.Conv1DLSTMCell,
    contrib.Conv2DLSTMCell,
    contrib.Conv3DLSTMCell,
)
# The weights of a convolutional LSTM: two kernels and two biases.
_CONV = [f"/{each}_to_hidden/{key}" for key in "wb" for each in ("input", "hidden")]
_DEFAULT = "|".join([*_NAMES.values(), r"conv[123]_dlstm"])
_MODULE = re.compile(rf"((?:.*/)?(?:{_DEFAULT}))(?:_(\d+))?")
_INNER = re.compile("/(linear|linear_1|input_to_hidden|hidden_to_hidden)$")


def from_haiku(
    params: Weights,
    *,
    at: Names = None,
    input_shape: Sequence[int] | None = None,
) -> BoundCell:
    """Loads a core of Haiku, or a stack such as an `hk.DeepRNN`, as a bound cell.

    The weights may be traced, and gradients have the structure of `params`. Haiku
    orders the state of an LSTM as (hidden, cell), jaxrnn as (c, h).

    Args:
        params: The parameters of the core or of a whole model.
        at: The module name of the core, e.g. "encoder/~/lstm", with an optional final
            slash. For several cores, a sequence of names from the inputs upwards.
            Default: all cores with Haiku's default names, e.g. lstm and lstm_1, which
            must be of one kind and in the same module.
        input_shape: The sizes of the grid's axes, without channels, e.g. `(32, 32)` for
            images. Required for convolutional LSTMs, because the weights do not show
            these sizes. All cores must have the same grid.

    Returns:
        A bound `LSTMCell`, `GRUCell`, `BasicRNNCell` with relu, or `Conv1DLSTMCell`,
        `Conv2DLSTMCell` or `Conv3DLSTMCell` of `jaxrnn.contrib`. Several layers become
        a bound `MultiRNNCell`.

    Raises:
        TypeError: If `params` are not nested dicts, or a weight is not a floating
            array.
        ValueError: If a module or a weight is missing or unknown, or has the wrong
            shape. If `at` is None and the order of the cores is ambiguous. If
            `input_shape` is missing for convolutional LSTMs, or given for cores without
            a convolution.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> params = {"lstm/linear": {"w": np.ones((8, 20)), "b": np.ones(20)}}
        >>> cell = jaxrnn.convert.from_haiku(params)
        >>> cell.cell.forget_bias, cell.state_size
        (1.0, LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.to_haiku(cell, at="net/lstm"))
        ['net/lstm/linear']
    """
    as_mapping("params", params)
    names = _found(params) if at is None else as_names(at)
    cores = [_reader(params, each) for each in names]
    if not any(_CONV[0] in core.weights for core in cores):
        must = "be omitted for cores that are not convolutional LSTMs"
        expect(input_shape is None, "input_shape", must, input_shape)
        return bind_layers("params", [[_layer(core)] for core in cores])
    fits = isinstance(input_shape, Sequence) and len(input_shape) in (1, 2, 3)
    must = "be the sizes of the grid's 1, 2 or 3 axes, without channels"
    expect(fits, "input_shape", must, Verbatim(repr(input_shape)))
    cells: list[BoundCell] = []
    for core in cores:
        depth = cells[-1].cell.output_channels if cells else None
        cells.append(_conv(core, input_shape, depth))
    return stacked(cells)


def to_haiku(cell: BoundCell, *, at: Names = None) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of a cell as Haiku's nested dicts of NumPy arrays.

    The outer keys are module names. Traced parameters stay JAX arrays. The second bias
    of a `VanillaRNN` is zero. A core with `double_bias=False` ignores this bias.

    Args:
        cell: A bound `BasicRNNCell` with relu, `BasicLSTMCell`, `LSTMCell` or
            `GRUCell`, a bound convolutional LSTM of `jaxrnn.contrib`, or a bound
            `MultiRNNCell` of these. Convolutional LSTMs cannot be in one stack with
            other cells.
        at: The module name, or for several layers a sequence of names. Default: the
            names that Haiku gives to cores in the order of the layers, e.g. lstm and
            lstm_1.

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
        layers = [layer for ((_, layer),) in _LIBRARY.layers_of(cell)]
        cores = [
            (_NAMES[each.kind], _LIBRARY.write(each, _TABLES[each.kind]))
            for each in layers
        ]
    # Haiku numbers equal names, e.g. lstm, lstm_1, gru, lstm_2.
    kinds = [kind for kind, _ in cores]
    numbers = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    default = [f"{k}_{n}" if n else k for k, n in zip(kinds, numbers, strict=True)]
    names = default if at is None else as_names(at)
    must = f"hold one distinct name per layer ({len(cores)})"
    expect(len(set(names)) == len(cores), "at", must, listed(names))
    modules: dict[str, dict[str, np.ndarray]] = {}
    for each, (_, weights) in zip(names, cores, strict=True):
        for key, array in weights.items():
            module, _, own = f"{each}{key}".rpartition("/")
            modules.setdefault(module, {})[own] = array
    return modules


def _found(params: Weights) -> list[str]:
    """The names of the cores with Haiku's default names, from the inputs upwards."""
    own = [_INNER.sub("", str(module)) for module in params]
    found = {name: match for name in own if (match := _MODULE.fullmatch(name))}
    must = (
        "be given unless all cores are in one module, of one kind, and have default "
        "names, such as lstm and lstm_1"
    )
    is_one = len({match[1] for match in found.values()}) == 1
    expect(is_one, "at", must, None, f"Found: {listed(found or params)}.")
    numbers = {name: match[2] or "" for name, match in found.items()}
    return sorted(found, key=lambda name: (len(numbers[name]), numbers[name]))


def _reader(params: Weights, name: str) -> Reader:
    """Returns a reader of a core's weights, with keys such as "/linear/w"."""
    flat = flattened(params).items()
    own = {key.removeprefix(name): x for key, x in flat if key.startswith(f"{name}/")}
    expect(own, "at", "be the name of a core", name, f"Found: {listed(params)}.")
    return Reader(own, name)


def _layer(read: Reader) -> LayerWeights:
    """Reads an LSTM, a GRU or a `VanillaRNN`."""
    own = read.weights.keys()
    # All names of an LSTM's weights also occur in a `VanillaRNN`. If both kinds match
    # equally well, `max` returns the LSTM, because `_TABLES` lists it first.
    kind = max(_TABLES, key=lambda kind: len(own & _TABLES[kind].keys()))
    table = dict(_TABLES[kind])
    if "/linear_1/b" not in own:  # The core has one bias.
        table.pop("/linear_1/b", None)
    check_names(read.prefix, read.weights, table)
    (bias,) = (key for key, (part, _) in table.items() if part == "b")
    units = len(read(bias, None)) // len(_LIBRARY.orders[kind])
    activation = "relu" if kind == Kind.RNN else None
    return _LIBRARY.read(read, kind, table, units, activation=activation)


def _conv(read: Reader, grid: Any, depth: int | None) -> BoundCell:
    """Loads a convolutional LSTM, whose two kernels become one in contrib's cell."""
    check_names(read.prefix, read.weights, _CONV)
    of_inputs = read(_CONV[0], *[None] * len(grid), depth, None)
    *window, depth, columns = of_inputs.shape
    of_state = read(_CONV[1], *window, columns // 4, columns)
    make: Any = _CONVS[len(grid)]
    cell = make(
        input_shape=[*grid, depth], output_channels=columns // 4, kernel_shape=window
    )
    kernel = joined([of_inputs, of_state], axis=-2)
    biases = read(_CONV[2], columns) + read(_CONV[3], columns)
    return cell.bind(on_device({"kernel": kernel, "biases": biases}))


def _saved_conv(name: str, bound: BoundCell) -> tuple[str, dict[str, Weight]]:
    """Haiku's default name and the weights for a convolutional LSTM."""
    cell = bound.cell
    what = "a convolutional LSTM, because another layer of the stack is one"
    check_instance(name, cell, _CONVS, what)
    must = "be False, because Haiku's convolutional LSTMs have no skip connection"
    expect(not cell.skip_connection, f"{name}.skip_connection", must, True)
    depth = cell.input_shape[-1]
    read = Reader(bound.params, f"{name}.params['", "']")
    kernel = read("kernel", *cell.param_specs(depth)["kernel"].shape)
    no_bias = np.zeros(kernel.shape[-1], kernel.dtype)
    i, j, f, o = blocks(read("biases", *no_bias.shape) if cell.use_bias else no_bias, 4)
    f = (f + (cell.forget_bias - _LIBRARY.forget_bias)).astype(f.dtype)
    bias = joined([i, j, f, o])
    arrays = kernel[..., :depth, :], kernel[..., depth:, :], bias, no_bias
    weights = dict(zip(_CONV, arrays, strict=True))
    return f"conv{cell.conv_ndims}_dlstm", weights
