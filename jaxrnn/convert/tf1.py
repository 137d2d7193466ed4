"""Weights of TensorFlow's v1 cells, by the names of their variables.

    reader = tf.train.load_checkpoint("model.ckpt")
    cell = jaxrnn.convert.tf1.load(reader, scope="encoder/rnn")
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

Parameters lie here as they do there, so nothing is computed: each cell becomes the cell
of the same name, a `MultiRNNCell` a `MultiRNNCell`, and what a graph knows and its
variables do not (forget bias, activation, clips) is given again.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._base.arguments import check_same_depth
from .._base.errors import describe
from .._base.typing import Params
from .._cells.basic_lstm import BasicLSTMCell
from .._cells.basic_rnn import BasicRNNCell
from .._cells.bound import BoundCell
from .._cells.cudnn_compatible_gru import CudnnCompatibleGRUCell
from .._cells.gru import GRUCell
from .._cells.lstm import LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._counterparts import check_names
from ._own import as_bound, parts, read_params
from ._pairs import as_list
from ._weights import check_mapping, check_string, pick, reader

__all__ = ["load", "load_bidirectional", "save", "save_bidirectional"]

_CELLS = {
    "basic_rnn_cell": BasicRNNCell,
    "basic_lstm_cell": BasicLSTMCell,
    "lstm_cell": LSTMCell,
    "gru_cell": GRUCell,
    "cudnn_compatible_gru_cell": CudnnCompatibleGRUCell,
    # What `CudnnLSTM` leaves in checkpoints: it adds no forget bias.
    "cudnn_compatible_lstm_cell": LSTMCell,
}
_NAMES = {cell: name for name, cell in reversed(_CELLS.items())}
_STACK = "multi_rnn_cell"
_WAYS = ("fw", "bw")
# A second cell in one scope gets a number.
_CELL = re.compile(rf"({'|'.join([*_CELLS, _STACK])})(_\d+)?")
_LAYER = re.compile(r"cell_\d+")


@dataclasses.dataclass(frozen=True)
class _Hyper:
    """What the variables do not tell."""

    forget_bias: float
    activation: Any
    cell_clip: float | None
    proj_clip: float | None


def load(
    variables: Any,
    scope: str = "rnn",
    *,
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> BoundCell:
    """The cell whose variables lie in a scope.

    Args:
        variables: A mapping from names to arrays; or what `tf.train.load_checkpoint`
            gives. A ":0" at the end of names is passed over, and so are the slots of
            optimizers, such as `.../kernel/Adam`, and what lies elsewhere.
        scope: Where the cell lies: all before its own name or `multi_rnn_cell`.
            `dynamic_rnn` puts "rnn" at the end of it, or its `scope`.
        forget_bias: That of the LSTMs, except `cudnn_compatible_lstm_cell`, of 0.
        activation: That of the cells; None for tanh.
        cell_clip: That of `LSTMCell`s.
        proj_clip: That of `LSTMCell`s.

    Returns:
        A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell` or
        `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of such, be it of one.

    Raises:
        TypeError: If `variables` have no names, or a weight is no floating array.
        ValueError: If there is no cell in the scope, or more than one, or two
            directions; if a weight is missing, not known, or of the wrong shape; if a
            clip is given and there is no `LSTMCell`.

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
    where = "convert.tf1.load"
    hyper = _Hyper(forget_bias, activation, cell_clip, proj_clip)
    own = _below(where, variables, scope)
    heads = {name.split("/")[0] for name in own}
    if heads & {*_WAYS, "bidirectional_rnn"} or any(map(_LAYER.fullmatch, heads)):
        raise ValueError(
            f"{where}: `{scope}` must hold one direction, got "
            f"{', '.join(sorted(heads))}. Use `load_bidirectional`, or the scope of a "
            "cell."
        )
    bound = _bound(where, scope, own, hyper)
    _check_clips(where, hyper, [bound])
    return bound


def load_bidirectional(
    variables: Any,
    scope: str = "bidirectional_rnn",
    *,
    forget_bias: float = 1.0,
    activation: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """The cells of `bidirectional_dynamic_rnn`, or of a stack of them.

    Args:
        variables: As in `load`.
        scope: All before `fw` and `bw`, or before the `cell_0` of a stack, where
            `tf.contrib.rnn` puts "stack_bidirectional_rnn".
        forget_bias: As in `load`.
        activation: As in `load`.
        cell_clip: As in `load`.
        proj_clip: As in `load`.

    Returns:
        `(cells_fw, cells_bw)`, each a cell for each layer of the stack, as
        `stack_bidirectional_dynamic_rnn` takes them; without a stack one each, which
        may be a bound `MultiRNNCell`.

    Raises:
        TypeError: As in `load`.
        ValueError: If there is one direction; as in `load`.
    """
    where = "convert.tf1.load_bidirectional"
    hyper = _Hyper(forget_bias, activation, cell_clip, proj_clip)
    groups, pairs = _groups(_below(where, variables, scope)), []
    if any(map(_LAYER.fullmatch, groups)):
        count = sum(1 for name in groups if _LAYER.fullmatch(name))
        for name in [f"cell_{i}" for i in range(count)]:
            inner = _groups(pick(where, groups, name))
            pair = _groups(inner.get("bidirectional_rnn", {}))
            pairs.append((_join(scope, f"{name}/bidirectional_rnn"), pair))
    else:
        pairs.append((scope, groups))
    cells = [_both(where, place, pair, hyper) for place, pair in pairs]
    _check_clips(where, hyper, [cell for pair in cells for cell in pair])
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def save(cell: BoundCell, scope: str = "rnn") -> dict[str, np.ndarray]:
    """The variables of a cell: their names in a graph, without ":0", and arrays.

    In the graph, `variable.load(arrays[variable.op.name], session)` sets them.

    Forget bias, activation and clips are not among them: give them to the cells there,
    and to `load`, or both run with tanh, a forget bias of 1 and no clips.

    Args:
        cell: A bound `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `GRUCell`,
            `CudnnCompatibleGRUCell`, or a bound `MultiRNNCell` of such.
        scope: As in `load`.

    Raises:
        TypeError: If it is no such cell with its parameters.
    """
    where = "convert.tf1.save"
    check_string(where, "scope", scope)
    return _variables(where, "cell", cell, scope)


def save_bidirectional(
    cells_fw: Sequence[BoundCell],
    cells_bw: Sequence[BoundCell],
    scope: str = "bidirectional_rnn",
) -> dict[str, np.ndarray]:
    """The variables of the cells of both directions; see `save`.

    Args:
        cells_fw: A cell for each layer, each as in `save`.
        cells_bw: The same for the backward direction.
        scope: As in `load_bidirectional`; several layers lie in it as a stack.

    Raises:
        TypeError: As in `save`.
        ValueError: If there is not one of each for each layer.
    """
    where, made = "convert.tf1.save_bidirectional", {}
    check_string(where, "scope", scope)
    cells_fw = as_list(where, "cells_fw", cells_fw)
    cells_bw = as_list(where, "cells_bw", cells_bw)
    check_same_depth(where, cells_fw, cells_bw)
    for i, pair in enumerate(zip(cells_fw, cells_bw, strict=True)):
        stacked = f"cell_{i}/bidirectional_rnn/" if len(cells_fw) > 1 else ""
        for way, cell in zip(_WAYS, pair, strict=True):
            place = _join(scope, stacked + way)
            made |= _variables(where, f"cells_{way}[{i}]", cell, place)
    return made


def _below(where: str, variables: Any, scope: str) -> dict[str, Any]:
    """What lies in the scope, under the names that it has there."""
    check_string(where, "scope", scope)
    if hasattr(variables, "get_variable_to_shape_map"):  # A checkpoint's reader
        names, get = variables.get_variable_to_shape_map(), variables.get_tensor
    else:
        check_mapping(where, "variables", variables)
        names, get = variables, variables.__getitem__
    start = _join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    inside = [
        name for name in full if name.startswith(start) and not _is_slot(name, full)
    ]
    if not inside:
        raise ValueError(
            f"{where}: nothing lies in the scope `{scope}`. There is: "
            f"{', '.join(full) or 'nothing'}."
        )
    return {name.removeprefix(start): get(full[name]) for name in inside}


def _is_slot(name: str, names: Mapping[str, Any]) -> bool:
    """Whether an optimizer keeps it for a variable: it lies below that one's name."""
    parts = name.split("/")
    return any("/".join(parts[:i]) in names for i in range(1, len(parts)))


def _groups(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values by the first part of their names."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = value
    return groups


def _join(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _both(
    where: str, scope: str, groups: Mapping[str, dict[str, Any]], hyper: _Hyper
) -> list[BoundCell]:
    if not groups.keys() & set(_WAYS):
        raise ValueError(
            f"{where}: `{scope}` must hold two directions, fw and bw, got "
            f"{', '.join(groups) or 'nothing'}. Use `load` for one direction."
        )
    return [
        _bound(where, _join(scope, way), pick(where, groups, way), hyper)
        for way in _WAYS
    ]


def _bound(
    where: str, scope: str, named: Mapping[str, Any], hyper: _Hyper
) -> BoundCell:
    """The cell or the stack of cells in a scope."""
    groups = _groups(named)
    found = [match for match in map(_CELL.fullmatch, groups) if match]
    if len(found) != 1:
        got = ", ".join(match[0] for match in found) or ", ".join(groups)
        raise ValueError(
            f"{where}: `{scope}` must hold one of {', '.join(_CELLS)} and {_STACK}, "
            f"got {got or 'nothing'}. Rename the variables of a cell with a name of "
            "its own; of several cells pass those of one."
        )
    (match,) = found
    place, inner = _join(scope, match[0]), groups[match[0]]
    if match[1] != _STACK:
        return _cell(where, place, match[1], inner, hyper)
    layers = _groups(inner)
    names = [f"cell_{i}" for i in range(len(layers))]
    cells = []
    for name in names:
        layer = pick(where, layers, name)
        check_names(where, f"{place}/{name}", _groups(layer), [_only(layer)])
        cells.append(_bound(where, f"{place}/{name}", layer, hyper))
    params = {name: cell.params for name, cell in zip(names, cells, strict=True)}
    return MultiRNNCell(tuple(cell.cell for cell in cells)).bind(params)


def _only(named: Mapping[str, Any]) -> str:
    """The first that is a cell, or the first."""
    heads = list(_groups(named))
    return next(filter(_CELL.fullmatch, heads), heads[0])


def _cell(
    where: str, place: str, kind: str, weights: Mapping[str, Any], hyper: _Hyper
) -> BoundCell:
    """A cell with its parameters, held to the shapes that it asks for."""
    make, last = _CELLS[kind], "bias"
    full = {f"{place}/{name}": value for name, value in weights.items()}
    read = reader(where)
    if make is GRUCell:
        last = "candidate/bias"
    elif make is CudnnCompatibleGRUCell:
        last = "candidate/hidden_projection/bias"

    def get(name: str, *shape: int | None) -> np.ndarray:
        name = f"{place}/{name}"
        return read(name, pick(where, full, name), shape)

    size = get(last, None).shape[0]
    options: dict[str, Any] = {"activation": hyper.activation}
    if make in (BasicLSTMCell, LSTMCell):
        size, rest = divmod(size, 4)
        if rest:
            raise ValueError(
                f"{where}: `{place}/bias` must have 4 blocks of one size, got "
                f"{describe(weights['bias'])}."
            )
        free = kind == "cudnn_compatible_lstm_cell"
        options["forget_bias"] = 0.0 if free else hyper.forget_bias
    outputs = size
    if make is LSTMCell:
        options |= {"cell_clip": hyper.cell_clip, "proj_clip": hyper.proj_clip}
        options["use_peepholes"] = any("_diag" in name for name in weights)
        if "projection/kernel" in weights:
            outputs = get("projection/kernel", size, None).shape[1]
            options["num_proj"] = outputs
    cell = make(size, **options)
    first = "gates/kernel" if "gates/kernel" in weights else "kernel"
    depth = get(first, None, None).shape[0] - outputs
    if depth < 1:
        raise ValueError(
            f"{where}: `{place}/{first}` must have a row for each input and each of "
            f"{outputs} of the state, got {describe(weights[first])}."
        )
    specs = _flat(cell.param_specs(depth))
    check_names(where, place, weights, specs)
    return cell.bind(
        _nested({name: get(name, *spec.shape) for name, spec in specs.items()})
    )


def _check_clips(where: str, hyper: _Hyper, cells: Sequence[BoundCell]) -> None:
    """Raises ValueError for a clip that no cell has."""
    single = [
        each for cell in cells for each in getattr(cell.cell, "cells", [cell.cell])
    ]
    if any(isinstance(each, LSTMCell) for each in single):
        return
    for name in ("cell_clip", "proj_clip"):
        if getattr(hyper, name) is not None:
            raise ValueError(
                f"{where}: `{name}` must be None, as there is no lstm_cell that could "
                f"have one, got {getattr(hyper, name)}."
            )


def _variables(where: str, name: str, cell: Any, scope: str) -> dict[str, np.ndarray]:
    cell = as_bound(where, name, cell)
    if isinstance(cell.cell, MultiRNNCell):
        made = {}
        for i, (own, each) in enumerate(parts(where, name, cell)):
            place = _join(scope, f"{_STACK}/cell_{i}")
            made |= _variables(where, own, each, place)
        return made
    params = read_params(where, name, cell)
    place = _join(scope, _NAMES[type(cell.cell)])
    return {f"{place}/{key}": array for key, array in _flat(params).items()}


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, with slashes in the names."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    inner = [_flat(value, _join(name, key)) for key, value in tree.items()]
    return {key: value for each in inner for key, value in each.items()}


def _nested(named: Mapping[str, Any]) -> Params:
    if "" in named:
        return named[""]
    return {head: _nested(rest) for head, rest in _groups(named).items()}
