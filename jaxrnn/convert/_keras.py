"""Weights of the layers `LSTM`, `GRU` and `SimpleRNN` of Keras 3 and tf_keras.

`from_keras` also reads the weights of Keras 2's `CuDNNLSTM` and `CuDNNGRU`.
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from .._base.arguments import as_bool, check_instance
from .._base.errors import expect
from .._base.hints import with_hints
from .._cells.base import BoundCell
from ._kinds import Kind, Table
from ._layer_weights import (
    ActivationLike,
    BothDirections,
    Cells,
    LayerWeights,
    Library,
    Loaded,
    as_layers,
    bind_layers,
    check_stated,
    from_places,
)
from ._weights import Reader, Weight, blocks, check_directions, joined, listed

_LIBRARY = Library(
    "Keras",
    {Kind.RNN: "c", Kind.GRU: "urc", Kind.GRU_AFTER: "urc", Kind.LSTM: "ifjo"},
    lacks=("peepholes", "projection", "clips", "coupled gates"),
)
_FIX = "Pass a list with `layer.get_weights()` of each recurrent layer of the model."
_HARD_SIGMOIDS = (
    "For Keras 3, pass `jax.nn.hard_sigmoid`. For Keras 2, tf_keras and TensorFlow 1, "
    "pass `lambda x: jnp.clip(0.2 * x + 0.5, 0, 1)`."
)
_OF_CELLS = "For the stacked cells of an `RNN`, pass `cell.get_weights()` of each cell."


@overload
def from_keras(
    weights: Sequence[Weight],
    *,
    activation: ActivationLike = None,
    recurrent_activation: ActivationLike = "sigmoid",
    reset_after: bool = True,
    bidirectional: None = None,
) -> Loaded: ...


@overload
def from_keras(
    weights: Sequence[Weight],
    *,
    activation: ActivationLike = None,
    recurrent_activation: ActivationLike = "sigmoid",
    reset_after: bool = True,
    bidirectional: Literal[False],
) -> BoundCell: ...


@overload
def from_keras(
    weights: Sequence[Weight],
    *,
    activation: ActivationLike = None,
    recurrent_activation: ActivationLike = "sigmoid",
    reset_after: bool = True,
    bidirectional: Literal[True],
) -> BothDirections: ...


@with_hints
def from_keras(
    weights: Sequence[Weight],
    *,
    activation: ActivationLike = None,
    recurrent_activation: ActivationLike = "sigmoid",
    reset_after: bool = True,
    bidirectional: bool | None = None,
) -> Any:
    """Loads a Keras layer or a stack as a bound cell, or as cells of two directions.

    `from_keras` infers the kind of a layer (LSTM, GRU or SimpleRNN) from the shapes of
    its weights. `from_keras` recognizes a `CuDNNLSTM` or `CuDNNGRU` by the size of its
    bias, and converts its kernels. Layers without a bias get a bias of zeros. The
    weights may be traced, and gradients have the structure of `weights`.

    The weights do not include the activations of a layer. Pass activations that differ
    from the defaults of Keras 3. Otherwise, the cell gives wrong results without an
    error. In TensorFlow 1, `tf.compat.v1.keras` and Keras before 2.3, the default
    `recurrent_activation` of `LSTM` and `GRU` is "hard_sigmoid". Keras orders the state
    of an LSTM as [h, c], jaxrnn as (c, h).

    Args:
        weights: The `get_weights()` of one layer, or a list with the `get_weights()` of
            each layer of a stack, from the inputs upwards, as `to_keras` returns it.
            Each layer must read the outputs of the layer before; `from_keras` cannot
            check this. Use a separate call for each layer that is not part of a stack.
            All `Bidirectional` layers except the last must have `merge_mode="concat"`.
        activation: The activation of the layers, a name or a function. For LSTMs and
            GRUs, the default is Keras's default, tanh. Required for a `SimpleRNN`. For
            Keras's `activation=None`, pass "linear". Instead of "hard_sigmoid", which
            differs between versions of Keras, pass a function: for Keras 3
            `jax.nn.hard_sigmoid`, and for Keras 2, tf_keras and TensorFlow 1
            `lambda x: jnp.clip(0.2 * x + 0.5, 0, 1)`.
        recurrent_activation: The activation of the gates of LSTMs and GRUs, a name or a
            function.
        reset_after: The `reset_after` of GRUs without a bias. For GRUs with a bias,
            `from_keras` ignores this argument and reads the option from the shape of
            the bias.
        bidirectional: True requires `Bidirectional` layers, False requires layers of
            one direction. By default, the number of arrays decides.

    Returns:
        A bound `LSTMCell` with `forget_bias=0`, `GRUCell`, `CudnnCompatibleGRUCell`
        (for `reset_after`) or `BasicRNNCell`. Several layers become a bound
        `MultiRNNCell`. If `recurrent_activation` is not the sigmoid, the cell is of a
        private class, with the same parameters and a field `recurrent_activation`. For
        two directions, `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`,
        each with one cell per layer.

    Raises:
        TypeError: If a layer is not a list, a weight is not a floating-point array, or
            an option is not a bool.
        ValueError: If a layer has the wrong number of weights, or holds the weights of
            several layers. If `bidirectional` does not fit a layer. If a weight has the
            wrong shape, or no layer is given. If an activation's name is unknown or
            "hard_sigmoid". If `activation` is missing for a `SimpleRNN`.

    Example:
        >>> import numpy as np, jaxrnn.convert
        >>> shapes = [(3, 15), (5, 15), (2, 15)]
        >>> cell = jaxrnn.convert.from_keras([np.ones(s, np.float32) for s in shapes])
        >>> type(cell.cell).__name__, cell.state_size
        ('CudnnCompatibleGRUCell', 5)
        >>> [weight.shape for weight in jaxrnn.convert.to_keras(cell)[0]]
        [(3, 15), (5, 15), (2, 15)]
    """
    reset_after = as_bool("reset_after", reset_after)
    activations = {"activation": activation}
    activations["recurrent_activation"] = recurrent_activation
    for name, value in activations.items():
        must = "be a function, because versions of Keras use this name differently"
        expect(value != "hard_sigmoid", name, must, value, _HARD_SIGMOIDS)
    found = []
    for name, arrays in as_layers("weights", weights).items():
        directions = _directions(name, arrays)
        # The weights of two layers may look like the weights of two directions.
        fix = "For two layers, pass a list with the `get_weights()` of each layer."
        check_directions(name, directions, bidirectional, fix * (directions == 2))
        size = len(arrays) // directions
        own = [range(start, start + size) for start in range(0, len(arrays), size)]
        found.append([_layer(name, arrays, at, activations, reset_after) for at in own])
    return bind_layers("weights", found)


def to_keras(cell: Cells) -> list[list[np.ndarray]]:
    """Returns a list of NumPy arrays per layer, for the layer's `set_weights`.

    The Keras layer must be built, and must have a bias and the activations of the cell.
    Create a Keras `GRU` with `reset_after=False` for a `GRUCell`, and with
    `reset_after=True` for a `CudnnCompatibleGRUCell`. The bias of an LSTM includes the
    forget bias. A GRU with `reset_after` has two biases: the second is zero, except in
    the candidate. To load the weights again, pass `activation` and
    `recurrent_activation` to `from_keras`.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell` or
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these. For
            `Bidirectional` layers, the pair `(cells_fw, cells_bw)`, each a list with
            one bound cell per layer.

    Raises:
        TypeError: If a cell is not bound, or no converter supports its class.
        ValueError: If a cell has peepholes, clips, coupled gates or a projection, which
            Keras does not support. If the directions differ in the number of layers.
    """
    layers = _LIBRARY.layers_of(cell)
    return [
        [array for _, direction in layer for array in _weights(direction)]
        for layer in layers
    ]


def _directions(name: str, arrays: Sequence[Weight]) -> int:
    """The number of directions of a layer with these weights."""
    fix = "Pass `layer.get_weights()`."
    check_instance(name, arrays, list | tuple, "a list of arrays", fix)
    count = len(arrays)
    must = "hold 2 or 3 weights per direction"
    expect(count in (2, 3, 4, 6), name, must, count, f"{_FIX} {_OF_CELLS}")
    if count < 4:
        return 1
    # Each direction begins with its two kernels. Both directions read the same inputs,
    # so their first kernels have equal numbers of rows.
    shapes = [list(getattr(each, "shape", ())) for each in arrays]
    pairs = [shapes[i : i + 2] for i in (0, count // 2)]
    is_layer = all(len(k) == len(s) == 2 and k[1] == s[1] for k, s in pairs)
    is_layer = is_layer and pairs[0][0][0] == pairs[1][0][0]
    expect(is_layer, name, "hold the weights of one layer", listed(shapes), _FIX)
    return 2


def _layer(
    name: str,
    arrays: Sequence[Weight],
    places: range,
    activations: dict[str, Any],
    reset_after: bool,
) -> LayerWeights:
    """Reads one direction of a layer; `places` are the indices of its arrays."""
    read = Reader(dict(enumerate(arrays)), f"{name}[", "]")
    kernel, recurrent, *last = places
    state = read(recurrent, None, None)
    units, columns = state.shape
    kind = _LIBRARY.kind_of(read.name(recurrent), state, columns, units)
    check_stated("activation", activations["activation"], kind)
    inputs = read(kernel, None, columns)
    biases: Any = []
    if last:
        shape = np.shape(arrays[last[0]])
        if kind != Kind.RNN and shape == (2 * columns,):
            biases = blocks(read(*last, 2 * columns), 2)
            inputs, state = (_from_cudnn(array, units) for array in (inputs, state))
        elif kind == Kind.GRU_AFTER and len(shape) == 2:
            biases = read(*last, 2, columns)
        else:
            biases = [read(*last, columns)]
        reset_after = len(biases) == 2
    if kind == Kind.GRU_AFTER and not reset_after:
        kind = Kind.GRU
    if kind == Kind.RNN:  # A plain RNN has no gates.
        activations = activations | {"recurrent_activation": None}
    given = zip(_table(kind).values(), (inputs, state, *biases), strict=False)
    return from_places(kind, given, 0, **activations)


def _from_cudnn(kernel: Weight, units: int) -> Weight:
    """Converts the kernel of a `CuDNNLSTM` or `CuDNNGRU` to the layout of an `LSTM`.

    Keras stores each gate as `[depth, units]`, but cuDNN reads the same memory as
    `[units, depth]`.
    """
    gates = blocks(kernel, kernel.shape[1] // units)
    return joined([gate.reshape(units, -1).T for gate in gates], axis=-1)


def _weights(layer: LayerWeights) -> list[np.ndarray]:
    inputs, state, *biases = _LIBRARY.write(layer, _table(layer.kind)).values()
    if layer.kind != Kind.GRU_AFTER:
        return [inputs, state, biases[0]]
    return [inputs, state, joined([bias[None] for bias in biases])]


def _table(kind: Kind) -> Table:
    """The places of a layer's two kernels and of its bias's one or two rows."""
    return {part: (part, _LIBRARY.orders[kind]) for part in "xhbs"}
