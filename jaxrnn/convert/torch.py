"""Weights of PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`.

    lstm = torch.nn.LSTM(3, 5, num_layers=2, batch_first=True)
    cell = jaxrnn.convert.torch.load(lstm.state_dict())
    outputs, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (h, c) in PyTorch, with all layers in one array. In jaxrnn, each
layer has its own (c, h); `load_state` and `save_state` convert between the two forms.
PyTorch has two biases per gate. jaxrnn stores their sum, except in a GRU's candidate.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool, check_instance, is_list_of
from .._base.errors import describe_leaves, error_note, is_array
from .._base.expect import expect
from .._base.math import is_traced
from .._base.modules import export as _export
from .._base.typing import PyTree
from .._cells.lstm import LSTMStateTuple
from ._bound_cells import Cells, Layer, bind_layers, layers_of
from ._layer_weights import Kind, LayerWeights, Library
from ._weights import (
    Weights,
    as_mapping,
    check_directions,
    from_tensor,
    listed,
    pick,
    reader,
)

__all__ = ["load", "load_state", "save", "save_state"]


_LIBRARY = Library(
    "PyTorch",
    {Kind.RNN: "c", Kind.GRU_AFTER: "ruc", Kind.LSTM: "ifjo"},
    lacks=("peepholes", "clips", "coupled gates"),
    activations={
        Kind.RNN: ("tanh", "relu"),
        Kind.GRU_AFTER: ("tanh",),
        Kind.LSTM: ("tanh",),
    },
)
_OF_PAIRS = ("states_fw", "states_bw")
_SUFFIXES = ("", "_reverse")
_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")
_BASE = r"((?:weight|bias)_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?)"
_REMOVE = "In PyTorch, call `{}(module, {{!r}})`, and pass the new `state_dict()`."
_FLOAT = "Pass the `state_dict()` of the module before it was quantized."
# Names of weights that PyTorch's tools change, and how to get the plain weights.
_CHANGED = {
    rf"{_BASE}_raw": "If a weight drop added the suffix '_raw', remove the suffix.",
    rf"{_BASE}_[gv]": _REMOVE.format("torch.nn.utils.remove_weight_norm"),
    rf"{_BASE}_mask": _REMOVE.format("torch.nn.utils.prune.remove"),
    rf"{_BASE}_(?:orig|u)": _REMOVE.format("torch.nn.utils.remove_spectral_norm")
    + " For a pruned module, call `torch.nn.utils.prune.remove`.",
    rf"parametrizations\.{_BASE}\..*": _REMOVE.format(
        "torch.nn.utils.parametrize.remove_parametrizations"
    ),
    r"_all_weight_values\..*": _FLOAT,
    r"layers\.\d+\.layer_[fb]w\.cell\.[ih]gates\..*": _FLOAT,
}
_ALIKE = "have layers of one kind, size and activation to form one module"


def load(
    state_dict: Weights,
    prefix: str = "",
    nonlinearity: str = "tanh",
    *,
    bidirectional: bool = False,
) -> Any:
    """Loads a module as a bound cell, or as the bound cells of both directions.

    `load` infers the kind of module (LSTM, GRU or RNN), its layers and its projection
    from the names and shapes of the weights. Modules without biases get biases of
    zeros. The weights may be traced. Gradients then have the names and shapes of
    `state_dict`.

    Args:
        state_dict: The `state_dict` of the module or of a whole model, with tensors or
            NumPy arrays.
        prefix: The prefix of the names of the module's weights, including the dot, e.g.
            `"encoder.rnn."`.
        nonlinearity: The `nonlinearity` of an `nn.RNN`, "tanh" or "relu".
        bidirectional: Whether the module has two directions.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; for several layers, a bound `MultiRNNCell`. For two directions,
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: If `state_dict` is not a mapping, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if
            `bidirectional` does not fit the module, or the module does not support
            `nonlinearity`.

    Example:
        >>> import numpy as np, jaxrnn.convert.torch
        >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}
        >>> state_dict = {k: np.ones(v, np.float32) for k, v in shapes.items()}
        >>> cell = jaxrnn.convert.torch.load(state_dict)
        >>> type(cell.cell).__name__, cell.state_size
        ('LSTMCell', LSTMStateTuple(c=5, h=5))
        >>> list(jaxrnn.convert.torch.save(cell, "rnn."))[:3]
        ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'rnn.bias_ih_l0']
    """
    state_dict = as_mapping("state_dict", state_dict, "Pass `module.state_dict()`.")
    matches = _matches(state_dict, prefix)
    is_bidirectional = any(match[3] for match in matches)
    check_directions("state_dict", 1 + is_bidirectional, bidirectional)
    stored = {match[1] for match in matches}
    layers: list[Layer] = []
    for k in range(1 + max(int(match[2]) for match in matches)):
        names = [f"{prefix}{{}}_l{k}{end}" for end in _SUFFIXES[: 1 + bidirectional]]
        layers.append(tuple(_layer(state_dict, n, stored, nonlinearity) for n in names))
    _check_alike("state_dict", layers)
    return bind_layers(layers)


def save(
    cell: Cells, prefix: str = "", *, bidirectional: bool = False
) -> dict[str, np.ndarray]:
    """Returns the `state_dict` of a cell as NumPy arrays.

    Traced parameters stay JAX arrays.

    `module.load_state_dict({k: torch.from_numpy(v) for k, v in save(cell).items()})`
    assigns the arrays to a PyTorch module with biases. Cast bfloat16 arrays to float32
    first. Pass the activation of a `BasicRNNCell` as `nonlinearity` to `nn.RNN` and to
    `load`. `bias_ih` holds the cell's biases, including the forget bias. `bias_hh`
    holds the bias that a reset gate multiplies; the other entries of `bias_hh` are
    zero.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of equal cells. For two
            directions, the pair `(cells_fw, cells_bw)`, each a list with one bound cell
            per layer.
        prefix: The prefix for the names of the weights.
        bidirectional: Whether `cell` is such a pair.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell is a `GRUCell`, or has a feature that PyTorch does not
            support: peepholes, clips, coupled gates, an activation other than tanh (a
            `BasicRNNCell` may also have relu), or a projection that is not smaller than
            the number of units; if layers or directions differ from each other.
    """
    check_instance("prefix", prefix, str, "a string")
    layers = layers_of(_LIBRARY, cell, bidirectional)
    for each in layers:
        for name, layer in each:
            _check_projection(name, layer)
    _check_alike("cell", [[layer for _, layer in each] for each in layers])
    arrays: dict[str, np.ndarray] = {}
    for k, each in enumerate(layers):
        for end, (_, layer) in zip(_SUFFIXES, each, strict=False):
            for name, array in _weights(layer).items():
                # PyTorch requires writable arrays.
                own = array.T if is_traced(array) else np.array(array.T, order="C")
                arrays[f"{prefix}{name}_l{k}{end}"] = own
    return arrays


def load_state(state: PyTree, *, bidirectional: bool = False) -> PyTree:
    """Converts the state of a module to a cell's state; also under jit.

    Args:
        state: `h` or, for an LSTM, `(h, c)`, tensors or arrays. Each array is
            `[layers, batch, units]`, or `[2 * layers, batch, units]` if
            `bidirectional`.
        bidirectional: Whether the module has two directions.

    Returns:
        The `initial_state` for the cell that `load` returns: `[batch, units]` or
        `LSTMStateTuple(c, h)`; for several layers, a tuple with one state per layer.
        For two directions, `(states_fw, states_bw)` for
        `stack_bidirectional_dynamic_rnn` and the `StackBidirectional` modules, each
        with one state per layer.

    Raises:
        TypeError: If `state` is neither an array nor a pair of arrays.
        ValueError: If an array has no layer axis, or h and c differ in the number of
            layers or the batch size; if the number of entries is odd for two
            directions.

    Example:
        >>> import jax.numpy as jnp, jaxrnn.convert.torch
        >>> h, c = jnp.ones((1, 4, 8)), jnp.zeros((1, 4, 8))
        >>> state = jaxrnn.convert.torch.load_state((h, c))
        >>> state.h.shape
        (4, 8)
        >>> [x.shape for x in jaxrnn.convert.torch.save_state(state)]
        [(1, 4, 8), (1, 4, 8)]
    """
    layers = _split_state(state)
    if not as_bool("bidirectional", bidirectional):
        return layers[0] if len(layers) == 1 else layers
    must = "have an even number of entries in the first axis (two per layer)"
    fix = "Omit `bidirectional` for one direction."
    expect(not len(layers) % 2, "state", must, len(layers), fix)
    return layers[::2], layers[1::2]


def save_state(state: PyTree, *, bidirectional: bool = False) -> PyTree:
    """Converts a cell's state to PyTorch's `h` or `(h, c)`; inverts `load_state`.

    Args:
        state: The state of a cell that `save` supports. For two directions,
            `(states_fw, states_bw)`, each with one state per layer; the state of a
            single layer may replace a list of one.
        bidirectional: Whether `state` has two directions.

    Returns:
        JAX arrays `[layers, batch, units]`, or `[2 * layers, batch, units]` for two
        directions.

    Raises:
        TypeError: If a layer's state is neither an array nor an `LSTMStateTuple`.
        ValueError: If the layers differ in kind or size, or the directions differ in
            the number of layers.
    """
    if not as_bool("bidirectional", bidirectional):
        return _stacked_state(_of_layers(state))
    expect(is_list_of(state, 2), "state", "be the pair (states_fw, states_bw)", state)
    states_fw, states_bw = map(_of_layers, state)
    must = f"have as many layers as `states_fw` ({len(states_fw)})"
    expect(len(states_bw) == len(states_fw), "states_bw", must, len(states_bw))
    pairs = zip(states_fw, states_bw, strict=True)
    return _stacked_state([state for pair in pairs for state in pair], _OF_PAIRS)


def _of_layers(state: PyTree) -> Any:
    """Returns the states of all layers; `state` may be the state of one layer."""
    is_one = isinstance(state, LSTMStateTuple)
    return state if isinstance(state, tuple | list) and not is_one else [state]


def _matches(state_dict: Weights, prefix: str) -> list[re.Match[str]]:
    """The names of the module's weights; names of other weights are left out."""
    check_instance("prefix", prefix, str, "a string")
    matches = []
    for name in state_dict:
        is_string = isinstance(name, str)
        expect(is_string, "state_dict", "have strings as keys", name, error=TypeError)
        own = name[len(prefix) :] if name.startswith(prefix) else ""
        match = _NAME.fullmatch(own)
        fix = _fix_of_name(own)
        is_known = match or not (fix or re.match(r"(weight|bias)_[^.]*$", own))
        must = "hold only names such as weight_ih_l0 or bias_hh_l1_reverse"
        expect(is_known, "state_dict", must, name, fix)
        if match:
            matches.append(match)
    fix = "If the names have a prefix, such as 'encoder.', pass `prefix`."
    pick(state_dict, f"{prefix}weight_ih_l0", fix=fix)
    return matches


def _fix_of_name(own: str) -> str:
    """What to do with a name that is not in `_NAME`; "" if there is no advice."""
    if _NAME.fullmatch(f"{own}_l0"):
        return "For an `nn.LSTMCell` or similar cell, add '_l0' to the names."
    for pattern, fix in _CHANGED.items():
        if match := re.fullmatch(pattern, own):
            return fix.format(*match.groups())
    return ""


def _layer(
    weights: Weights, name: str, stored: set[str], nonlinearity: str
) -> LayerWeights:
    """Reads one direction of a layer.

    `name` has a placeholder for the kind of weight, e.g. "weight_ih". `stored` contains
    all kinds of weights that occur in the module.
    """
    read = reader(weights)
    state = read(name.format("weight_hh"), None, None)
    rows, units = state.shape
    projection = None
    if "weight_hr" in stored:
        projection = read(name.format("weight_hr"), units, None).T
        units = len(projection)
    kind = _LIBRARY.kind_of(name.format("weight_hh"), state, rows, units)
    fits = projection is None or kind == Kind.LSTM
    must = f"be omitted, because `nn.{kind.family}` has no projection"
    expect(fits, name.format("weight_hr"), must, projection)
    choices = _LIBRARY.activations[kind]
    what = f"{' or '.join(choices)} for `nn.{kind.family}`"
    expect(nonlinearity in choices, "nonlinearity", f"be {what}", nonlinearity)
    with error_note(f"`{name.format('weight_hh')}` determines the number of rows."):
        inputs = read(name.format("weight_ih"), rows, None)
    biases = [np.zeros(rows, state.dtype)] * 2
    if stored & {"bias_ih", "bias_hh"}:
        biases = [read(name.format(key), rows) for key in ("bias_ih", "bias_hh")]
    return _LIBRARY.layer(
        kind,
        inputs.T,
        state.T,
        *biases,
        projection=projection,
        activation=nonlinearity,
    )


def _weights(layer: LayerWeights) -> dict[str, np.ndarray]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights: dict[str, np.ndarray] = {}
    weights |= zip(names, _LIBRARY.arrays(layer), strict=True)
    if layer.projection is not None:
        weights["weight_hr"] = layer.projection
    return weights


def _check_projection(name: str, layer: LayerWeights) -> None:
    """Raises ValueError unless a projection is smaller than the number of units."""
    size = 0 if layer.projection is None else layer.projection.shape[1]
    must = f"have `num_proj` below `num_units` ({layer.units}), as PyTorch requires"
    expect(size < layer.units, name, must, size)


def _check_alike(name: str, layers: Sequence[Layer]) -> None:
    """Raises ValueError for layers that cannot form one module."""
    seen = set()
    for layer in (direction for each in layers for direction in each):
        text = f"{layer.kind.family} of size {layer.units}"
        if layer.projection is not None:
            text += f" projected to size {layer.projection.shape[1]}"
        seen.add(f"{text} with {layer.activation_name}")
    got = listed(sorted(seen))
    expect(len(seen) == 1, name, _ALIKE, got, "Convert each layer separately.")


def _split_state(state: PyTree) -> tuple[PyTree, ...]:
    """The states of all layers and directions, the entries along the first axis."""
    is_pair = isinstance(state, tuple | list)
    arrays = [from_tensor(each) for each in (state if is_pair else [state])]
    must = "be h or (h, c), each [layers, batch, units]"
    are_arrays = len(arrays) == 1 + is_pair and all(map(is_array, arrays))
    expect(are_arrays, "state", must, arrays, error=TypeError)
    fit = len({each.shape[:-1] for each in arrays}) == 1 and arrays[0].ndim > 1
    must += ", with the same number of layers and of rows"
    expect(fit, "state", must, arrays)
    h, *c = map(jnp.asarray, arrays)
    return tuple(map(LSTMStateTuple, c[0], h)) if c else tuple(h)


def _stacked_state(
    layers: Sequence[PyTree], names: Sequence[str] = ("state",)
) -> PyTree:
    """Stacks the states of layers.

    Args:
        layers: The states, which come from the lists `names` in turn.
        names: The names of these lists, for messages.
    """
    for i, layer in enumerate(layers):
        at, own = divmod(i, len(names))
        kinds = type(layer) if is_array(layer) else LSTMStateTuple
        what = "an array or an LSTMStateTuple"
        check_instance(f"{names[own]}[{at}]", layer, kinds, what)
    kinds = dict.fromkeys(map(describe_leaves, layers))
    must = "have states of one kind and shape, one for each layer"
    expect(len(kinds) == 1, "state", must, listed(kinds))
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *layers)
    return (stacked.h, stacked.c) if isinstance(stacked, LSTMStateTuple) else stacked


_export(globals())
