"""Weights of TensorFlow's v1 cells, by variable name.

    reader = tf.train.load_checkpoint("model.ckpt")
    cell = jaxrnn.convert.tf1.load(reader, scope="encoder/rnn")
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

TensorFlow and jaxrnn use the same layout, so arrays are copied unchanged. Each cell
becomes the jaxrnn cell of the same name, and a `MultiRNNCell` becomes a `MultiRNNCell`.
The forget bias, the activation and the clips are not stored in variables, so these are
arguments of `load` and `save`. `save` raises an error if the cell's hyperparameters
differ from the arguments.

To load a cell of `jaxrnn.contrib`, or any wrapped or stacked cell, pass the unbound
cell, which has the hyperparameters that variables do not store:

    cell = jaxrnn.contrib.HighwayWrapper(jaxrnn.contrib.NASCell(128))
    inputs = jax.ShapeDtypeStruct((1, 128), jax.numpy.float32)
    cell = jaxrnn.convert.tf1.load(reader, cell=cell, inputs=inputs)

The memory layers of an `AttentionWrapper` are in the scope where the script created the
attention mechanisms. The wrapper's other variables are in the scope of the loop, which
is "decoder" for `dynamic_decode`:

    cell = jaxrnn.convert.tf1.load(
        reader, "decoder", cell=attention, inputs=inputs, memory_scope=""
    )
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_one_of
from .._base.boundary import export as _export
from .._base.errors import InvalidValue
from .._base.typing import PyTree, Shaped
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMCell
from ..contrib import FusedRNNCell
from ._bound_cells import as_bound, paired
from ._layer_weights import ActivationLike
from ._tf1_names import load_into, save_from
from ._tf1_scopes import (
    STACK,
    Hyper,
    check_hyper,
    grouped,
    guess_cell,
    join,
    variables_in,
)
from ._weights import Weights, check_string, listed, pick

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]


def __dir__() -> list[str]:
    return __all__


_DIRECTIONS = ("fw", "bw")
_LAYER = re.compile(r"cell_\d+")
_STACK = re.compile(rf"^{STACK}_\d+")


def load(
    variables: Any,
    scope: str = "rnn",
    *,
    cell: Any = None,
    inputs: Shaped | PyTree = None,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> BoundCell:
    """Loads the variables in a scope as a bound cell.

    Args:
        variables: A mapping from names to arrays, or a reader from
            `tf.train.load_checkpoint`. `load` ignores a ":0" at the end of names,
            optimizer slots (`.../kernel/Adam`), other scopes, and layers next to the
            cell (`dense/kernel`).
        scope: The scope of the cell: everything before the cell's own name or
            `multi_rnn_cell`. The scope ends with the `scope` argument of the loop, by
            default "rnn" for `dynamic_rnn` and "decoder" for `dynamic_decode`. To load
            a single direction, pass a scope like "bidirectional_rnn/fw".
        cell: The unbound cell to load. Required for cells of `jaxrnn.contrib` and for
            wrappers. If None, `load` infers the cell from the variables. `load` looks
            in `scope` for the name `cell.name`, or for TensorFlow's default name.
        inputs: One step of the inputs of `cell`, or its shapes, as for `cell.init`.
            Required with `cell`.
        memory_scope: The scope where the script created the mechanisms of an
            `AttentionWrapper`; this scope contains `memory_layer`. "" for no scope.
        forget_bias: The forget bias of LSTMs. A `cudnn_compatible_lstm_cell` always has
            a forget bias of 0.
        activation: The activation of the cells; None for tanh.
        cell_clip: The `cell_clip` of `LSTMCell`s.
        proj_clip: The `proj_clip` of `LSTMCell`s.

    Returns:
        `cell`, bound to its parameters. Without `cell`, a bound `BasicRNNCell`,
        `BasicLSTMCell`, `LSTMCell`, `GRUCell` or `CudnnCompatibleGRUCell`; for a stack,
        even of one cell, a bound `MultiRNNCell`.

    Raises:
        TypeError: If `variables` is neither a mapping nor a reader, a weight is not a
            floating-point array, `cell` is not an unbound cell, or `inputs` is given
            without `cell`.
        ValueError: If the scope contains no cell, several cells or two directions; if a
            weight is missing, unknown, or has the wrong shape; if a clip is given, but
            the scope contains no `LSTMCell`; if `cell` is given without `inputs`, or
            together with a hyperparameter; if two layers of `cell` are the same object,
            but the variables of the layers differ; if `memory_scope` is given and
            `cell` has no attention.

    Example:
        >>> import numpy as np, jaxrnn.convert.tf1
        >>> shapes = {"rnn/lstm_cell/kernel:0": (8, 20), "rnn/lstm_cell/bias:0": (20,)}
        >>> variables = {name: np.ones(shape) for name, shape in shapes.items()}
        >>> cell = jaxrnn.convert.tf1.load(variables)
        >>> cell.cell.forget_bias, cell.state_size
        (1.0, LSTMStateTuple(c=5, h=5))
        >>> sorted(jaxrnn.convert.tf1.save(cell, "encoder/rnn"))
        ['encoder/rnn/lstm_cell/bias', 'encoder/rnn/lstm_cell/kernel']
    """
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    check_string("memory_scope", memory_scope)
    if cell is not None or inputs is not None:
        _check_no_hyper(hyper)
        return load_into(cell, inputs, variables, scope, memory_scope)
    own = variables_in(variables, scope)
    heads = {name.split("/")[0] for name in own}
    if heads & {*_DIRECTIONS, "bidirectional_rnn"} or any(map(_LAYER.fullmatch, heads)):
        raise InvalidValue(
            f"`{scope}` must hold one direction, got {listed(sorted(heads))}. Use "
            "`load_bidirectional`, or pass the scope of one cell."
        )
    bound = _load_guessed(scope, own, hyper)
    _check_clips(hyper, [bound])
    return bound


def load_bidirectional(
    variables: Any,
    scope: str = "bidirectional_rnn",
    *,
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """Loads one or several stacked `bidirectional_dynamic_rnn`s as bound cells.

    Args:
        variables: As in `load`.
        scope: Everything before `fw` and `bw` or, for a stack, before `cell_0`. For a
            stack from `tf.contrib.rnn`, the scope ends with "stack_bidirectional_rnn".
        forget_bias: As in `load`.
        activation: As in `load`.
        cell_clip: As in `load`.
        proj_clip: As in `load`.

    Returns:
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer of the stack. Without a stack, each tuple has one cell, which may be a
        bound `MultiRNNCell`.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is only one direction; also as in `load`.
    """
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    groups = grouped(variables_in(variables, scope))
    pairs = {scope: groups}
    layers = list(filter(_LAYER.fullmatch, groups))
    if layers:
        pairs = {}
        for name in [f"cell_{i}" for i in range(len(layers))]:
            inner = grouped(pick(groups, name)).get("bidirectional_rnn", {})
            pairs[join(scope, f"{name}/bidirectional_rnn")] = grouped(inner)
    cells = [_both(place, pair, hyper) for place, pair in pairs.items()]
    _check_clips(hyper, [cell for pair in cells for cell in pair])
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def save(
    cell: BoundCell,
    scope: str = "rnn",
    *,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> dict[str, np.ndarray]:
    """Returns a cell's variables, by their names in a TensorFlow graph, without ":0".

    In a session, `variable.load(arrays[variable.op.name], session)` assigns the arrays
    to the variables.

    The forget bias, the activation and the clips are not stored in variables. Pass the
    same values to this function, to `load` and to the constructors of TensorFlow's
    cells.

    Args:
        cell: A bound cell. `load` requires the argument `cell` for wrappers, cells of
            `jaxrnn.contrib`, custom cells, cells with a `name`, stacks that contain one
            of these cells, and stacks whose cells differ in a hyperparameter. For these
            cells, `save` accepts any hyperparameters, because `cell` holds them. If
            several layers of a stack are the same object, `save` stores the shared
            variables in the scope of each layer, so that `load` finds them without
            `cell`. TensorFlow itself stores only the first copy.
        scope: As in `load`.
        memory_scope: As in `load`.
        forget_bias: The forget bias of the cell, if it is an LSTM.
        activation: The activation of the cell; None for tanh.
        cell_clip: The `cell_clip` of the cell, if it is an `LSTMCell`.
        proj_clip: The `proj_clip` of the cell, if it is an `LSTMCell`.

    Raises:
        TypeError: If `cell` is not a bound cell, or a parameter is not a floating
            array.
        ValueError: If the forget bias, the activation or a clip of the cell differs
            from the argument, or two cells within it have the same scope.
    """
    check_string("scope", scope)
    check_string("memory_scope", memory_scope)
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    return _save("cell", cell, scope, memory_scope, hyper)


def save_bidirectional(
    cells_fw: Sequence[BoundCell],
    cells_bw: Sequence[BoundCell],
    scope: str = "bidirectional_rnn",
    *,
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> dict[str, np.ndarray]:
    """Returns the variables of the cells of both directions; see `save`.

    Args:
        cells_fw: The forward cell of each layer, as in `save`.
        cells_bw: The backward cell of each layer, as in `save`.
        scope: As in `load_bidirectional`; several layers become a stack.
        forget_bias: As in `save`.
        activation: As in `save`.
        cell_clip: As in `save`.
        proj_clip: As in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; also as in `save`.
    """
    check_string("scope", scope)
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    variables: dict[str, np.ndarray] = {}
    pairs = paired(cells_fw, cells_bw)
    for i, pair in enumerate(pairs):
        stacked = f"cell_{i}/bidirectional_rnn/" if len(pairs) > 1 else ""
        for direction, cell in zip(_DIRECTIONS, pair, strict=True):
            place = join(scope, stacked + direction)
            variables |= _save(f"cells_{direction}[{i}]", cell, place, "", hyper)
    return variables


def _both(scope: str, groups: Weights, hyper: Hyper) -> list[BoundCell]:
    if not groups.keys() & set(_DIRECTIONS):
        raise InvalidValue(
            f"`{scope}` must hold two directions, fw and bw, got {listed(groups)}. Use "
            "`load` for one direction."
        )
    own = {join(scope, name): pick(groups, name) for name in _DIRECTIONS}
    return [_load_guessed(place, weights, hyper) for place, weights in own.items()]


def _check_no_hyper(hyper: Hyper) -> None:
    """Raises ValueError if a hyperparameter is given together with a cell."""
    for name, value, default in zip(Hyper._fields, hyper, Hyper(), strict=True):
        if value != default:
            raise InvalidValue(f"`{name}` must be omitted with `cell`, got {value}.")


def _check_clips(hyper: Hyper, bound: Iterable[BoundCell]) -> None:
    """Raises ValueError if a clip is given, but no cell is an `LSTMCell`."""
    cells = [each for b in bound for each in getattr(b.cell, "cells", [b.cell])]
    if any(isinstance(each, LSTMCell) for each in cells):
        return
    for name in ("cell_clip", "proj_clip"):
        what = "None, since there is no lstm_cell to clip"
        check_one_of(name, getattr(hyper, name), (None,), what)


def _load_guessed(scope: str, own: Weights, hyper: Hyper) -> BoundCell:
    """Infers the cell from the variables in a scope and binds it."""
    cell, depth = guess_cell(scope, own, hyper)
    inputs = jax.ShapeDtypeStruct((1, depth), jnp.float32)
    # TensorFlow appends a number to the name of every further stack in a scope. A stack
    # in jaxrnn has no `name`, so remove the number.
    found = {join(scope, _STACK.sub(STACK, name)): x for name, x in own.items()}
    return load_into(cell, inputs, found, scope, "")


def _save(
    name: str, cell: object, scope: str, memory_scope: str, hyper: Hyper
) -> dict[str, np.ndarray]:
    """The variables of a cell, after checking that `load` can restore it."""
    if not isinstance(getattr(cell, "cell", None), FusedRNNCell):
        cell = as_bound(name, cell)
        check_hyper(name, cell, hyper)
    return save_from(cell, scope, memory_scope)


_export(globals())
