"""Weights and states of PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`, and of their cells.

PyTorch has two biases per gate, whose sum jaxrnn stores. Only the candidate of a GRU
keeps two biases.
"""

import itertools
import re
from collections.abc import Collection
from typing import Any, Literal, TypeAlias, overload

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool, is_list_of
from .._base.errors import check_not_masked, expect, is_array, leaf_name
from .._base.hints import with_hints
from .._base.math import is_traced
from .._base.typing import PyTree
from .._cells.base import BoundCell
from .._cells.lstm import LSTMStateTuple
from ._kinds import Kind
from ._layer_weights import (
    OTHER_GATES,
    BothDirections,
    Cells,
    LayerWeights,
    Library,
    Loaded,
    bind_layers,
    check_stated,
)
from ._weights import (
    Reader,
    Weights,
    as_mapping,
    as_prefix,
    flattened,
    from_tensor,
    listed,
    pick,
    prefixes_of_torch,
)

Nonlinearity: TypeAlias = Literal["tanh", "relu"]

_ORDERS = {Kind.RNN: "c", Kind.GRU_AFTER: "ruc", Kind.LSTM: "ifjo"}
_LIBRARY = Library(
    "PyTorch",
    _ORDERS,
    lacks=("peepholes", "clips", "coupled gates", OTHER_GATES),
    activations=dict.fromkeys(_ORDERS, ("tanh",)) | {Kind.RNN: ("tanh", "relu")},
    is_transposed=True,
)
_TABLES = {
    kind: {
        "weight_ih": ("x", order),
        "weight_hh": ("h", order),
        "bias_ih": ("b", order),
        "bias_hh": ("s", order),
        "weight_hr": ("w", ""),
    }
    for kind, order in _ORDERS.items()
}
_SUFFIXES = ("", "_reverse")
_STEM = "(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)"
# An `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell` does not number its layer.
_NAME = _STEM + r"(?:_l(\d+)(_reverse)?)?"
_FIX = (
    "In PyTorch, remove weight norm, spectral norm, pruning, parametrizations and "
    "quantization, which rename weights. If the module has a weight drop, rename "
    "weight_hh_l0_raw, the trained weight, to weight_hh_l0."
)
_ALIKE = "have layers of one kind, size and activation, like a module of PyTorch"


@overload
def from_torch(
    state_dict: Weights,
    *,
    at: str = "",
    bidirectional: None = None,
    nonlinearity: Nonlinearity | None = None,
) -> Loaded: ...


@overload
def from_torch(
    state_dict: Weights,
    *,
    at: str = "",
    bidirectional: Literal[False],
    nonlinearity: Nonlinearity | None = None,
) -> BoundCell: ...


@overload
def from_torch(
    state_dict: Weights,
    *,
    at: str = "",
    bidirectional: Literal[True],
    nonlinearity: Nonlinearity | None = None,
) -> BothDirections: ...


@with_hints
def from_torch(
    state_dict: Weights,
    *,
    at: str = "",
    bidirectional: bool | None = None,
    nonlinearity: Nonlinearity | None = None,
) -> Any:
    """Loads a module of PyTorch as a bound cell, or as bound cells of two directions.

    `from_torch` infers the kind of module (LSTM, GRU or RNN), its layers, directions
    and projection from the names and shapes of the weights. If the module has no
    biases, the cell's biases are zeros. Weights of the module that `from_torch` does
    not read, e.g. after pruning or weight norm, raise an error. The weights may be
    traced, and gradients have the names and shapes of `state_dict`.

    Args:
        state_dict: The `state_dict` of the module or of a whole model, with tensors or
            NumPy arrays. The module may also be an `nn.LSTMCell`, `nn.GRUCell` or
            `nn.RNNCell`.
        at: The name of the module in the model, e.g. "encoder.rnn" for the weight
            "encoder.rnn.weight_ih_l0". A final dot is optional. Use "" for the
            `state_dict` of the module alone.
        bidirectional: True requires two directions, False requires one. By default, the
            weights decide.
        nonlinearity: The `nonlinearity` of an `nn.RNN`, "tanh" or "relu". Required for
            an `nn.RNN`, because a `state_dict` does not store this option. Omit this
            argument for other modules.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`. Several layers become a bound `MultiRNNCell`. For two
        directions, `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each
        with one cell per layer.

    Raises:
        TypeError: If `state_dict` is not a mapping, or a weight is not a floating
            array.
        ValueError: If a weight or a layer is missing, or a weight has the wrong shape
            or a name that PyTorch does not use. If `bidirectional` does not fit the
            module. If `nonlinearity` is missing for an `nn.RNN`, or the module does not
            support this `nonlinearity`.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}
        >>> state_dict = {k: np.ones(v, np.float32) for k, v in shapes.items()}
        >>> cell = jaxrnn.convert.from_torch(state_dict)
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.to_torch(cell, at="rnn"))[:3]
        ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'rnn.bias_ih_l0']
    """
    as_mapping("state_dict", state_dict, "Pass `module.state_dict()`.")
    prefix = as_prefix("at", at, ".")
    is_module = f"{prefix}weight_ih_l0" in state_dict
    first = "_l0" if is_module or f"{prefix}weight_ih" not in state_dict else ""
    own = [re.fullmatch(re.escape(prefix) + _NAME, str(name)) for name in state_dict]
    matches = [match for match in own if match and bool(match[2]) == bool(first)]
    for name in ("weight_ih", "weight_hh"):
        if (place := f"{prefix}{name}{first}") not in state_dict:
            pick(state_dict, place, fix=_fix_of_names(state_dict, prefix))
    _check_all_read(state_dict, prefix, {match[0] for match in matches})
    directions = 1 + any(match[3] for match in matches)
    stored = {match[1] for match in matches}
    if stored & {"bias_ih", "bias_hh"}:  # A module has both or none.
        stored |= {"bias_ih", "bias_hh"}
    numbers = sorted({match[2] or "0" for match in matches}, key=lambda k: (len(k), k))
    must = "have layers with the numbers 0, 1, ... without a gap"
    is_whole = set(numbers) == set(map(str, range(len(numbers))))
    fix = "If several files hold the `state_dict` of the module, merge their dicts."
    expect(is_whole, "state_dict", must, listed(numbers), fix)
    layers = []
    for k in range(len(numbers)):
        layer = first and f"_l{k}"
        sides = [layer + end for end in _SUFFIXES[:directions]]
        readers = [_reader(state_dict, prefix, end) for end in sides]
        layers.append([_layer(read, stored, nonlinearity) for read in readers])
    return bind_layers("state_dict", layers, bidirectional)


@with_hints
def to_torch(cell: Cells, *, at: str = "") -> dict[str, np.ndarray]:
    """Returns the `state_dict` of a cell as NumPy arrays; the inverse of `from_torch`.

    Traced parameters stay JAX arrays.

    `module.load_state_dict({k: torch.from_numpy(v) for k, v in
    arrays.items()})` assigns the returned `arrays` to a PyTorch module with biases.
    Cast bfloat16 arrays to float32 first. Pass the activation of a `BasicRNNCell` as
    `nonlinearity` to `nn.RNN` and to `from_torch`. `bias_ih` holds the cell's biases,
    including the forget bias. `bias_hh` is zero, except for the bias that the reset
    gate of a GRU multiplies.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these with equal
            classes, sizes and activations. For two directions, the pair
            `(cells_fw, cells_bw)`, each a list with one bound cell per layer.
        at: The name of the module in the model, as in `from_torch`.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell is a `GRUCell`, or has a feature that PyTorch does not
            support: peepholes, clips, coupled gates, or an activation other than tanh
            (a `BasicRNNCell` may also have relu). If layers or directions differ from
            each other.
    """
    prefix = as_prefix("at", at, ".")
    layers = _LIBRARY.layers_of(cell)
    kinds = {
        f"{layer.kind.family} of size {layer.units}, with outputs of size "
        f"{len(layer.array('h'))} and {layer.activation_name}"
        for _, layer in itertools.chain(*layers)
    }
    fix = "Convert each layer separately."
    expect(len(kinds) == 1, "cell", _ALIKE, listed(sorted(kinds)), fix)
    arrays: dict[str, np.ndarray] = {}
    for k, each in enumerate(layers):
        for end, (_, layer) in zip(_SUFFIXES, each, strict=False):
            for key, array in _LIBRARY.write(layer, _TABLES[layer.kind]).items():
                # PyTorch requires writable arrays.
                own = array if is_traced(array) else np.array(array, order="C")
                arrays[f"{prefix}{key}_l{k}{end}"] = own
    return arrays


def from_torch_state(state: PyTree, *, bidirectional: bool = False) -> PyTree:
    """Converts the state of a PyTorch module to the state of a jaxrnn cell.

    This function also works under jit.

    The state of an LSTM is (h, c) in PyTorch, with all layers in one array. In jaxrnn,
    each layer has its own (c, h).

    Args:
        state: Tensors or arrays: `h` or, for an LSTM, `(h, c)`. Each is
            `[layers, batch, units]`, or `[2 * layers, batch, units]` if
            `bidirectional`. If the LSTM has a projection, the last axis of h has the
            size `proj_size`. If one array `[2, batch, units]` stacks h and c of a
            single layer, pass `(state[:1], state[1:])`.
        bidirectional: Whether the module has two directions. The shapes do not show
            this, because two layers of one direction have arrays of the same shapes.

    Returns:
        The `initial_state` for the cell of `from_torch`: `[batch, units]` or
        `LSTMStateTuple(c, h)`. For several layers, a tuple with one state per layer.
        For two directions, `(states_fw, states_bw)` for
        `stack_bidirectional_dynamic_rnn` and the `StackBidirectional` modules, each
        with one state per layer.

    Raises:
        TypeError: If an array is a masked NumPy array.
        ValueError: If `state` is neither an array nor a pair of arrays. If an array has
            no layer axis, or h and c differ in the number of layers or the batch size.
            If the number of entries is odd for two directions.

    Example:
        >>> import jax.numpy as jnp, jaxrnn.convert
        >>> h, c = jnp.ones((1, 4, 8)), jnp.zeros((1, 4, 8))
        >>> state = jaxrnn.convert.from_torch_state((h, c))
        >>> state.h.shape
        (4, 8)
        >>> [x.shape for x in jaxrnn.convert.to_torch_state(state)]
        [(1, 4, 8), (1, 4, 8)]
    """
    is_pair = isinstance(state, tuple | list)
    given = state if is_pair else [state]
    names = [f"state[{i}]" if is_pair else "state" for i in range(len(given))]
    arrays = list(map(from_tensor, names, given))
    h, *c = map(jnp.asarray, arrays)
    must = "be h or (h, c), each [layers, batch, units], with the same layers and rows"
    fits = len(c) == is_pair and all(x.shape[:-1] == h.shape[:-1] for x in c)
    expect(fits and h.ndim > 1, "state", must, arrays)
    layers = tuple(map(LSTMStateTuple, c[0], h)) if c else tuple(h)
    if not as_bool("bidirectional", bidirectional):
        return layers[0] if len(layers) == 1 else layers
    must = "have an even number of entries in the first axis (two per layer)"
    fix = "Omit `bidirectional` for one direction."
    expect(not len(layers) % 2, "state", must, len(layers), fix)
    return layers[::2], layers[1::2]


def to_torch_state(state: PyTree, *, bidirectional: bool = False) -> PyTree:
    """Converts a cell's state to PyTorch's `h` or, for an LSTM, `(h, c)`.

    This function is the inverse of `from_torch_state`.

    Args:
        state: The state of a cell that `to_torch` supports. For two directions,
            `(states_fw, states_bw)`, each a list with one state per layer. For one
            layer, each may be the state itself.
        bidirectional: Whether `state` has two directions. The structure does not show
            this, because the states of two layers are also a pair.

    Returns:
        `h` or, for an LSTM, `(h, c)`, JAX arrays `[layers, batch, units]`, or
        `[2 * layers, batch, units]` for two directions.

    Raises:
        TypeError: If an array is a masked NumPy array.
        ValueError: If the state of a layer is neither an array nor an `LSTMStateTuple`.
            If the layers differ in kind or size, or the directions differ in the number
            of layers.
    """
    for path, leaf in jax.tree.leaves_with_path(state):
        check_not_masked(leaf_name("state", path), leaf)
    sides = [state]
    if as_bool("bidirectional", bidirectional):
        must = "be the pair (states_fw, states_bw)"
        expect(is_list_of(state, 2), "state", must, state)
        sides = state
    # Wrap the state of a single layer in a list. An `LSTMStateTuple` is a tuple, but is
    # the state of one layer.
    is_one = [is_array(side) or _is_lstm_state(side) for side in sides]
    lists = [[side] if one else side for side, one in zip(sides, is_one, strict=True)]
    layers = [*itertools.chain(*zip(*lists, strict=True))]
    must = "hold one array or `LSTMStateTuple` for each layer"
    fix = "For (states_fw, states_bw), pass `bidirectional=True`."
    fits = all(is_array(x) or _is_lstm_state(x) for x in layers)
    fits = fits and not any(hasattr(side, "_fields") for side in lists)
    expect(fits, "state", must, state, fix)
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *layers)
    return (stacked.h, stacked.c) if _is_lstm_state(stacked) else stacked


def _is_lstm_state(state: PyTree) -> bool:
    """Whether the state is a named tuple (c, h), possibly of another library."""
    return getattr(state, "_fields", None) == LSTMStateTuple._fields


def _check_all_read(state_dict: Weights, prefix: str, read: Collection[str]) -> None:
    """Raises ValueError if the module has other weights than `read`.

    Such weights change the results of the module. Pruning and parametrizations rename
    the trained weights to `weight_hh_l0_orig` or
    `parametrizations.weight_hh_l0.original`. A weight drop keeps the trained weights as
    `weight_hh_l0_raw` outside of the module. A subclass of the user may have further
    weights, and so other equations.

    The weights of other recurrent modules below the prefix are ignored. With an empty
    prefix, the weights of all other modules are ignored.
    """
    others = tuple({*prefixes_of_torch(state_dict)} - {prefix, ""})
    inside = tuple(place for place in others if place.startswith(prefix))

    def is_own(name: str) -> bool:
        if name.startswith(prefix) and not name.startswith(inside):
            first, dot, _ = name.removeprefix(prefix).partition(".")
            return bool(prefix) or not dot or first == "parametrizations"
        outer, _, last = name.rpartition(".")
        is_raw = re.fullmatch(f"{_NAME}_raw", last)
        return is_raw is not None and prefix.startswith(f"{outer}.")

    own = [name for name in map(str, state_dict) if is_own(name) and name not in read]
    must = f"have only the weights of PyTorch's module at {prefix!r}"
    fix = f"{_FIX} Omit the weights of other modules."
    expect(not own, "state_dict", must, listed(own), fix)


def _fix_of_names(state_dict: Weights, prefix: str) -> str:
    """A hint that lists the recurrent modules if none has the given prefix.

    The hint includes inner dicts, because a checkpoint may nest the `state_dict`.
    """
    places = prefixes_of_torch(flattened(state_dict))
    if not places or prefix in places:
        return _FIX
    found = listed(map(repr, places))
    return (
        f"Pass the name of a module as `at`: {found}. If a checkpoint nests the "
        "`state_dict` in an inner dict, pass the inner dict."
    )


def _reader(weights: Weights, prefix: str, end: str) -> Reader:
    """A reader of one direction of a layer, with keys such as "weight_ih"."""
    full = {f"{prefix}{key}{end}": key for key in _TABLES[Kind.LSTM]}
    own = {full[name]: array for name, array in weights.items() if name in full}
    return Reader(own, prefix, end)


def _layer(read: Reader, stored: set[str], nonlinearity: str | None) -> LayerWeights:
    """Reads one direction of a layer.

    `stored` holds the names of all weights in the module without numbers of layers,
    e.g. "weight_ih". All directions must have these weights.
    """
    state = read("weight_hh", None, None)
    rows, outputs = state.shape
    units = outputs
    if "weight_hr" in stored:
        units = read("weight_hr", outputs, None).shape[1]
    kind = _LIBRARY.kind_of(read.name("weight_hh"), state, rows, units)
    check_stated("nonlinearity", nonlinearity, kind)
    names = {"weight_ih", "weight_hh"} | stored
    table = {key: place for key, place in _TABLES[kind].items() if key in names}
    layer = _LIBRARY.read(read, kind, table, units, outputs, activation=nonlinearity)
    _LIBRARY.check("nonlinearity", layer)
    return layer
