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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._base.typing import PyTree, Shaped
from .._cells.activations import resolve_activation
from .._cells.base import snake_case
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._cells import as_bound, paired, read_params, stacked_cells
from ._tf1_any_cell import is_of_contrib, load_into, save_from
from ._tf1_scopes import STACK, Hyper, cell_in_scope, grouped, join, variables_in
from ._weights import check_string, flattened, listed, pick, public

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

_DIRECTIONS = ("fw", "bw")
_LAYER = re.compile(r"cell_\d+")


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
            and `inputs`, or `cell` and a hyper-parameter.

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
    bound = cell_in_scope(scope, own, hyper)
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
        inner = [grouped(pick(groups, f"cell_{i}")) for i in range(len(layers))]
        pairs = {
            join(scope, f"cell_{i}/bidirectional_rnn"): grouped(
                each.get("bidirectional_rnn", {})
            )
            for i, each in enumerate(inner)
        }
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
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of these; or one that is
            of `jaxrnn.contrib` or holds such a cell. The latter `load` takes itself,
            so its hyper-parameters may be any.
        scope: As in `load`.
        memory_scope: As in `load`.
        forget_bias: That of the cell, if it is an LSTM.
        activation: That of the cell; None for tanh.
        cell_clip: That of the cell, if it is an `LSTMCell`.
        proj_clip: That of the cell, if it is an `LSTMCell`.

    Raises:
        TypeError: If `cell` is not such a bound cell.
        ValueError: If its forget bias, activation or a clip differs from the argument.
    """
    check_string("scope", scope)
    check_string("memory_scope", memory_scope)
    if is_of_contrib(getattr(cell, "cell", None)):
        return save_from(cell, scope, memory_scope)
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    return _variables("cell", cell, scope, hyper)


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
            variables |= _variables(name, cell, place, hyper)
    return variables


def _both(
    scope: str, groups: Mapping[str, dict[str, Any]], hyper: Hyper
) -> list[BoundCell]:
    if not groups.keys() & set(_DIRECTIONS):
        raise ValueError(
            f"`{scope}` must hold two directions, fw and bw, got {listed(groups)}. Use "
            "`load` for one direction."
        )
    return [
        cell_in_scope(join(scope, way), pick(groups, way), hyper) for way in _DIRECTIONS
    ]


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
                f"got {clip}."
            )


def _variables(name: str, cell: Any, scope: str, hyper: Hyper) -> dict[str, np.ndarray]:
    """The variables of a cell that `load` restores if it is given `hyper`."""
    variables, cells = {}, list(_single_cells(name, cell, scope))
    for own, place, each in cells:
        params = flattened(read_params(own, each))  # Refuses other kinds of cells.
        place = join(place, snake_case(type(each.cell).__name__))
        variables |= {f"{place}/{key}": array for key, array in params.items()}
    for own, _, each in cells:
        _check_hyper(own, each.cell, hyper)
    return variables


def _single_cells(
    name: str, cell: Any, scope: str
) -> Iterator[tuple[str, str, BoundCell]]:
    """The name for messages, the scope and the bound cell of each within stacks."""
    cell = as_bound(name, cell)
    if not isinstance(cell.cell, MultiRNNCell):
        yield name, scope, cell
        return
    for i, (own, each) in enumerate(stacked_cells(name, cell)):
        yield from _single_cells(own, each, join(scope, f"{STACK}/cell_{i}"))


def _check_hyper(name: str, cell: Any, hyper: Hyper) -> None:
    """Raises ValueError for a hyper-parameter that `load` would not restore."""
    activation = resolve_activation("save", hyper.activation)
    for field, want in hyper._replace(activation=activation)._asdict().items():
        got = getattr(cell, field, want)
        if got != want:
            want, got = (getattr(each, "__name__", each) for each in (want, got))
            raise ValueError(
                f"`{name}` must have {field} {want}, as variables do not hold it, got "
                f"{got}. Pass `{field}` to `save`, and the same to TensorFlow's cell "
                "and to `load`."
            )
