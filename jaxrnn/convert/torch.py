"""Weights of PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`.

    lstm = torch.nn.LSTM(3, 5, num_layers=2, batch_first=True)
    cell = jaxrnn.convert.torch.load(lstm.state_dict())
    outputs, states = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

The state of an LSTM is (h, c) in PyTorch, with all layers in one array. In jaxrnn, each
layer has its own (c, h); `load_state` and `save_state` convert between the two forms.
PyTorch stores two biases, which it adds at run time; jaxrnn stores only their sum.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_equal
from .._base.boundary import export as _export
from .._base.errors import (
    InvalidType,
    InvalidValue,
    describe,
    describe_leaves,
    is_array,
)
from .._base.typing import PyTree
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMStateTuple
from . import _bound_cells
from ._bound_cells import BothCells, Cells, cell_of_layers, cells_of_pairs
from ._torch_modules import LIBRARY, as_state_dict, layers_of_module
from ._weights import Weights, from_tensor, listed

BothStates: TypeAlias = tuple[tuple[PyTree, ...], tuple[PyTree, ...]]

__all__ = [
    "load",
    "load_bidirectional",
    "load_state",
    "load_state_bidirectional",
    "save",
    "save_bidirectional",
    "save_state",
    "save_state_bidirectional",
]


def __dir__() -> list[str]:
    return __all__


def load(
    state_dict: Weights, prefix: str = "", nonlinearity: str = "tanh"
) -> BoundCell:
    """Loads a unidirectional module as a bound cell.

    `load` infers the kind of module (LSTM, GRU or RNN), its layers and its projection
    from the names and shapes of the weights. Modules without biases get biases of
    zeros. The weights may be traced, so that gradients have the names and shapes of
    `state_dict`.

    Args:
        state_dict: The `state_dict` of the module or of a whole model, with tensors or
            NumPy arrays.
        prefix: The prefix of the names of the module's weights, including the dot, e.g.
            `"encoder.rnn."`.
        nonlinearity: The `nonlinearity` of an `nn.RNN`, "tanh" or "relu".

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `CudnnCompatibleGRUCell` or
        `BasicRNNCell`; for several layers, a bound `MultiRNNCell`.

    Raises:
        TypeError: If `state_dict` is not a mapping, or a weight is not a floating
            array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if the
            module is bidirectional or does not support `nonlinearity`.

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
    layers = layers_of_module(state_dict, prefix, nonlinearity, 1)
    return cell_of_layers([layer for (layer,) in layers])


def load_bidirectional(
    state_dict: Weights, prefix: str = "", nonlinearity: str = "tanh"
) -> BothCells:
    """Loads a bidirectional module as bound cells.

    Args:
        state_dict: As in `load`.
        prefix: As in `load`.
        nonlinearity: As in `load`.

    Returns:
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is only one direction; also as in `load`.
    """
    return cells_of_pairs(layers_of_module(state_dict, prefix, nonlinearity, 2))


def save(cell: BoundCell, prefix: str = "") -> dict[str, np.ndarray]:
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
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of equal cells.
        prefix: The prefix for the names of the weights.

    Raises:
        TypeError: If `cell` is not one of these bound cells.
        ValueError: If `cell` has a feature that PyTorch does not support: a `GRUCell`,
            peepholes, clips, another activation, a projection that is not smaller than
            the number of units, or layers that differ from each other.
    """
    layers = _bound_cells.layers_of_cell(LIBRARY, cell)
    return as_state_dict([(each,) for each in layers], prefix)


def save_bidirectional(
    cells_fw: Cells, cells_bw: Cells, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Returns the `state_dict` of the cells of both directions; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.
        prefix: As in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; also as in `save`.
    """
    return as_state_dict(
        _bound_cells.pairs_of_cells(LIBRARY, cells_fw, cells_bw), prefix
    )


def load_state(state: PyTree) -> PyTree:
    """Converts the state of a unidirectional module to a cell's state.

    This function also runs under jit.

    Args:
        state: `h` or, for an LSTM, `(h, c)`, each `[layers, batch, units]`; tensors or
            arrays.

    Returns:
        The `initial_state` for the cell that `load` returns: `[batch, units]` or
        `LSTMStateTuple(c, h)`; for several layers, a tuple with one state per layer.

    Raises:
        TypeError: If `state` is neither an array nor a pair of arrays.
        ValueError: If an array has no layer axis, or h and c differ in the number of
            layers or the batch size.

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
    return layers[0] if len(layers) == 1 else layers


def load_state_bidirectional(state: PyTree) -> BothStates:
    """Converts the state of a bidirectional module to the cells' states.

    This function also runs under jit.

    Args:
        state: As in `load_state`, each array `[2 * layers, batch, units]`.

    Returns:
        `(states_fw, states_bw)` for `stack_bidirectional_dynamic_rnn` and the
        `StackBidirectional` modules, each with one state per layer.

    Raises:
        TypeError: As in `load_state`.
        ValueError: If the number of entries is odd; also as in `load_state`.
    """
    layers = _split_state(state)
    if len(layers) % 2:
        raise InvalidValue(
            "`state` must have two entries for each layer, forward and backward, got "
            f"{len(layers)}. Use `load_state` for one direction."
        )
    return layers[::2], layers[1::2]


def save_state(state: PyTree) -> PyTree:
    """Converts a cell's state to PyTorch's `h` or `(h, c)`; inverts `load_state`.

    Args:
        state: The state of a cell that `save` supports.

    Returns:
        JAX arrays `[layers, batch, units]`.

    Raises:
        TypeError: If a layer's state is neither an array nor an `LSTMStateTuple`.
        ValueError: If the layers differ in kind or size.
    """
    is_stack = isinstance(state, tuple | list) and not isinstance(state, LSTMStateTuple)
    return _stacked_state(state if is_stack else [state])


def save_state_bidirectional(
    states_fw: Sequence[PyTree], states_bw: Sequence[PyTree]
) -> PyTree:
    """Converts the states of both directions; inverts `load_state_bidirectional`.

    Args:
        states_fw: The state of each forward layer.
        states_bw: The state of each backward layer.

    Returns:
        JAX arrays `[2 * layers, batch, units]`.

    Raises:
        TypeError: As in `save_state`.
        ValueError: If the directions differ in the number of layers, or the layers
            differ in kind or size.
    """
    must = f"have the {len(states_fw)} layers of `states_fw`"
    check_equal("states_bw", len(states_bw), len(states_fw), must)
    pairs = zip(states_fw, states_bw, strict=True)
    return _stacked_state([state for pair in pairs for state in pair])


def _split_state(state: PyTree) -> tuple[PyTree, ...]:
    """The state of each layer or direction, which are entries along the first axis."""
    is_pair = isinstance(state, tuple | list)
    arrays = [from_tensor(each) for each in (state if is_pair else [state])]
    wanted = "`state` must be h or (h, c), each [layers, batch, units]"
    if len(arrays) != 1 + is_pair or not all(map(is_array, arrays)):
        raise InvalidType(f"{wanted}, got {describe_leaves(state)}.")
    if len({each.shape[:-1] for each in arrays}) > 1 or arrays[0].ndim < 2:
        raise InvalidValue(f"{wanted}, got {describe_leaves(arrays)}.")
    h, *c = map(jnp.asarray, arrays)
    return tuple(map(LSTMStateTuple, c[0], h)) if c else tuple(h)


def _stacked_state(layers: Sequence[PyTree]) -> PyTree:
    for layer in layers:
        if not (is_array(layer) or isinstance(layer, LSTMStateTuple)):
            raise InvalidType(
                "the state of a layer must be an array or an LSTMStateTuple, got "
                f"{describe(layer)}."
            )
    kinds = dict.fromkeys(map(describe_leaves, layers))
    if len(kinds) != 1:
        raise InvalidValue(
            f"all layers must have states of one kind and shape, got {listed(kinds)}."
        )
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *layers)
    return (stacked.h, stacked.c) if isinstance(stacked, LSTMStateTuple) else stacked


_export(globals())
