"""Weights of TensorFlow's v1 cells, by the names of their variables.

    reader = tf.train.load_checkpoint("model.ckpt")
    cell = jaxrnn.convert.tf1.load(reader, scope="encoder/rnn")
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

Parameters have the same layout in both, so nothing is computed: each cell becomes the
cell of the same name, a `MultiRNNCell` a `MultiRNNCell`. Variables do not hold forget
bias, activation and clips: these are arguments of `load` and of `save`, which refuses a
cell that has others.

A cell of `jaxrnn.contrib`, and any wrapped or stacked cell, is loaded into the unbound
cell, which has all that variables do not hold:

    cell = jaxrnn.contrib.HighwayWrapper(jaxrnn.contrib.NASCell(128))
    inputs = jax.ShapeDtypeStruct((1, 128), jax.numpy.float32)
    cell = jaxrnn.convert.tf1.load(reader, cell=cell, inputs=inputs)

An `AttentionWrapper` has its memory layers where the script made its mechanisms, and
the rest in the scope of the loop, "decoder" for `dynamic_decode`:

    cell = jaxrnn.convert.tf1.load(
        reader, "decoder", cell=attention, inputs=inputs, memory_scope=""
    )
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.typing import PyTree, Shaped
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMCell
from ..contrib import FusedRNNCell
from ._bound_cells import as_bound, paired
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
from ._weights import check_string, listed, pick, public

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

_DIRECTIONS = ("fw", "bw")
_LAYER = re.compile(r"cell_\d+")
_STACK = re.compile(rf"^{STACK}_\d+")


@public
def load(
    variables: Any,
    scope: str = "rnn",
    *,
    cell: Any = None,
    inputs: Shaped | PyTree = None,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> BoundCell:
    """The bound cell whose variables are in a scope.

    Args:
        variables: A mapping from names to arrays, or a reader from
            `tf.train.load_checkpoint`. A ":0" at the end of names, the slots of
            optimizers, such as `.../kernel/Adam`, other scopes, and layers beside the
            cell, such as `dense/kernel`, are ignored.
        scope: The scope of the cell: all that precedes its own name or
            `multi_rnn_cell`. Its last part is the `scope` of `dynamic_rnn`, "rnn" by
            default; that of `dynamic_decode` is "decoder".
        cell: The unbound cell of which the variables are, required for cells of
            `jaxrnn.contrib` and for wrappers; None for a cell that the variables tell.
            A cell's scope is its `name`, or TensorFlow's default. One of two directions
            has a scope such as "bidirectional_rnn/fw".
        inputs: One step of the inputs of `cell`, or its shapes, as for `cell.init`.
        memory_scope: The scope in which the mechanisms of an `AttentionWrapper` were
            made, where their `memory_layer` is: "" if that was in no scope.
        forget_bias: The forget bias of LSTMs, except `cudnn_compatible_lstm_cell`,
            which has 0.
        activation: The activation of the cells; None for tanh.
        cell_clip: The `cell_clip` of `LSTMCell`s.
        proj_clip: The `proj_clip` of `LSTMCell`s.

    Returns:
        `cell` with its parameters. Without `cell`, a bound `BasicRNNCell`,
        `BasicLSTMCell`, `LSTMCell`, `GRUCell` or `CudnnCompatibleGRUCell`, or a bound
        `MultiRNNCell` of these, also of one.

    Raises:
        TypeError: If `variables` is neither a mapping nor a reader, a weight is not a
            floating array, or `cell` not an unbound cell.
        ValueError: If there is no cell in the scope, or more than one, or two
            directions; if a weight is missing, not known, or of the wrong shape; if a
            clip is given and there is no `LSTMCell`; if there is only one of `cell`
            and `inputs`, or `cell` and a hyper-parameter; if layers of `cell` are one
            object, and their variables differ; if there is a `memory_scope` and no
            attention in `cell`.

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
        raise ValueError(
            f"`{scope}` must hold one direction, got {', '.join(sorted(heads))}. Use "
            "`load_bidirectional`, or the scope of a cell."
        )
    bound = _load_guessed(scope, own, hyper)
    _check_clips(hyper, [bound])
    return bound


@public
def load_bidirectional(
    variables: Any,
    scope: str = "bidirectional_rnn",
    *,
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The bound cells of `bidirectional_dynamic_rnn`, or of a stack of them.

    Args:
        variables: As in `load`.
        scope: All that precedes `fw` and `bw`, or the `cell_0` of a stack; for a stack
            of `tf.contrib.rnn` it ends with "stack_bidirectional_rnn".
        forget_bias: As in `load`.
        activation: As in `load`.
        cell_clip: As in `load`.
        proj_clip: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each with a cell for each layer of the stack, as
        `stack_bidirectional_dynamic_rnn` takes them; without a stack one cell each,
        which may be a bound `MultiRNNCell`.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is one direction; as in `load`.
    """
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    groups = grouped(variables_in(variables, scope))
    pairs = {scope: groups}
    layers = list(filter(_LAYER.fullmatch, groups))
    if layers:
        names = [f"cell_{i}" for i in range(len(layers))]
        of_layer = lambda name: grouped(pick(groups, name)).get("bidirectional_rnn", {})
        place = lambda name: join(scope, f"{name}/bidirectional_rnn")
        pairs = {place(name): grouped(of_layer(name)) for name in names}
    cells = [_both(place, pair, hyper) for place, pair in pairs.items()]
    _check_clips(hyper, [cell for pair in cells for cell in pair])
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


@public
def save(
    cell: BoundCell,
    scope: str = "rnn",
    *,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> dict[str, np.ndarray]:
    """The variables of a cell: arrays under their names in a graph, without ":0".

    In a session, `variable.load(arrays[variable.op.name], session)` assigns them.

    Forget bias, activation and clips are not among them: TensorFlow's cells, and
    `load`, must be given the same as this function.

    Args:
        cell: A bound cell. One that `load` does not find by its variables alone is
            given to `load` itself, so its hyper-parameters may be any: a wrapper, a
            cell of `jaxrnn.contrib` or of a class of your own, one with a `name`, a
            stack that holds one of these or whose cells differ in a hyper-parameter.
            Layers of a stack that are one object are saved in the scope of each, so
            that `load` alone finds them all; TensorFlow has those of the first alone.
        scope: As in `load`.
        memory_scope: As in `load`.
        forget_bias: That of the cell, if it is an LSTM.
        activation: That of the cell; None for tanh.
        cell_clip: That of the cell, if it is an `LSTMCell`.
        proj_clip: That of the cell, if it is an `LSTMCell`.

    Raises:
        TypeError: If `cell` is not a bound cell, or a parameter not a floating array.
        ValueError: If its forget bias, activation or a clip differs from the argument;
            if two cells within it have the same scope.
    """
    check_string("scope", scope)
    check_string("memory_scope", memory_scope)
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    return _save("cell", cell, scope, memory_scope, hyper)


@public
def save_bidirectional(
    cells_fw: Sequence[BoundCell],
    cells_bw: Sequence[BoundCell],
    scope: str = "bidirectional_rnn",
    *,
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> dict[str, np.ndarray]:
    """The variables of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The cells of the backward direction, likewise.
        scope: As in `load_bidirectional`; several layers become a stack in it.
        forget_bias: As in `save`.
        activation: As in `save`.
        cell_clip: As in `save`.
        proj_clip: As in `save`.

    Raises:
        TypeError: As in `save`.
        ValueError: If the directions differ in the number of layers; as in `save`.
    """
    check_string("scope", scope)
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    variables, pairs = {}, paired(cells_fw, cells_bw)
    for i, pair in enumerate(pairs):
        stacked = f"cell_{i}/bidirectional_rnn/" if len(pairs) > 1 else ""
        for direction, cell in zip(_DIRECTIONS, pair, strict=True):
            place, name = join(scope, stacked + direction), f"cells_{direction}[{i}]"
            variables |= _save(name, cell, place, "", hyper)
    return variables


def _both(
    scope: str, groups: Mapping[str, dict[str, Any]], hyper: Hyper
) -> list[BoundCell]:
    if not groups.keys() & set(_DIRECTIONS):
        raise ValueError(
            f"`{scope}` must hold two directions, fw and bw, got {listed(groups)}. Use "
            "`load` for one direction."
        )
    load = lambda way: _load_guessed(join(scope, way), pick(groups, way), hyper)
    return list(map(load, _DIRECTIONS))


def _check_no_hyper(hyper: Hyper) -> None:
    """Raises ValueError for a hyper-parameter that is given besides a cell."""
    for name, value, default in zip(Hyper._fields, hyper, Hyper(), strict=True):
        if value != default:
            raise ValueError(f"`{name}` must be that of `cell`, got {value}. Omit it.")


def _check_clips(hyper: Hyper, bound: Iterable[BoundCell]) -> None:
    """Raises ValueError for a clip without an `LSTMCell`."""
    cells = [each for b in bound for each in getattr(b.cell, "cells", [b.cell])]
    if any(isinstance(each, LSTMCell) for each in cells):
        return
    for name in ("cell_clip", "proj_clip"):
        clip = getattr(hyper, name)
        if clip is not None:
            raise ValueError(
                f"`{name}` must be None, as there is no lstm_cell that could have one, "
                f"got {describe(clip)}."
            )


def _load_guessed(scope: str, own: Mapping[str, Any], hyper: Hyper) -> BoundCell:
    """The bound cell that the variables in a scope tell."""
    cell, depth = guess_cell(scope, own, hyper)
    inputs = jax.ShapeDtypeStruct((1, depth), jnp.float32)
    # The second stack in a scope is numbered; a stack has no name of its own.
    found = {join(scope, _STACK.sub(STACK, name)): x for name, x in own.items()}
    return load_into(cell, inputs, found, scope, "")


def _save(
    name: str, cell: Any, scope: str, memory_scope: str, hyper: Hyper
) -> dict[str, np.ndarray]:
    """The variables of a cell, which `load` restores."""
    if not isinstance(getattr(cell, "cell", None), FusedRNNCell):
        cell = as_bound(name, cell)
        check_hyper(name, cell, hyper)
    return save_from(cell, scope, memory_scope)
