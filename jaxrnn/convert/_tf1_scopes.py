"""Scopes of TensorFlow's variables, and inference of cells from the variables."""

import dataclasses
import re
from typing import Any, NamedTuple

from .._base.arguments import check_equal
from .._base.errors import InvalidValue, name_of
from .._base.typing import Params
from .._cells.activations import resolve_activation
from .._cells.base import RNNCell, scope_name
from .._cells.bound import BoundCell
from .._cells.hyperparameters import snake_case
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._bound_cells import KINDS, as_bound, input_depth, read_params, stacked_cells
from ._layer_weights import ActivationLike
from ._weights import Weights, as_mapping, check_string, listed, pick, reader

_CELLS = {snake_case(cell.__name__): cell for cell in KINDS}
# The variable scope of the LSTMs in `CudnnLSTM` checkpoints. (`CudnnLSTM` adds no
# forget bias.)
_CUDNN_LSTM = "cudnn_compatible_lstm_cell"
_CELLS[_CUDNN_LSTM] = LSTMCell
STACK = "multi_rnn_cell"
# For each cell whose bias of size `num_units` is not named "bias": the name of this
# bias.
_LAST_BIAS = {
    "gru_cell": "candidate/bias",
    "cudnn_compatible_gru_cell": "candidate/hidden_projection/bias",
}
# TensorFlow appends a number to the name of every further cell in a scope.
_CELL = re.compile(rf"({'|'.join([*_CELLS, STACK])})(_\d+)?")


class Hyper(NamedTuple):
    """Hyperparameters that are not stored in variables."""

    forget_bias: float = 1.0
    activation: ActivationLike = None
    cell_clip: float | None = None
    proj_clip: float | None = None


def join(scope: str, name: str) -> str:
    """The full name of `name` in a scope, which may be empty."""
    return f"{scope}/{name}" if scope else name


def variables_in(variables: Any, scope: str, start: str = "") -> Params:
    """The variables in a scope, by relative name, without optimizer slots.

    Args:
        variables: A mapping or a checkpoint reader.
        scope: The scope.
        start: The prefix of the relative names to find.

    Raises:
        TypeError: If `variables` is neither a mapping nor a checkpoint reader, or
            `scope` is not a string.
        ValueError: If the scope contains no variable whose name begins with `start`.
    """
    check_string("scope", scope)
    if hasattr(variables, "get_variable_to_shape_map"):  # A checkpoint reader.
        names = variables.get_variable_to_shape_map()
        get = variables.get_tensor
    else:
        fix = "`tf.train.load_checkpoint(path)` reads a checkpoint."
        names = as_mapping("variables", variables, fix)
        get = names.__getitem__
    prefix = join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    own = [name for name in full if not _is_slot(name, full)]
    inside = [name for name in own if name.startswith(prefix + start)]
    if not inside:
        what = start or "variable"
        raise InvalidValue(f"no {what} is in scope `{scope}`. Found: {listed(own)}.")
    return {name.removeprefix(prefix): get(full[name]) for name in inside}


def _is_slot(name: str, names: Weights) -> bool:
    """Whether `name` is an optimizer slot, i.e. one of its scopes names a variable."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def grouped(named: Weights) -> dict[str, Params]:
    """Groups variables by the first part of their names."""
    groups: dict[str, Params] = {}
    for name, value in named.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = value
    return groups


def guess_cell(scope: str, named: Weights, hyper: Hyper) -> tuple[RNNCell, int]:
    """Infers the unbound cell or stack in a scope, and the size of its inputs."""
    groups = grouped(named)
    found = [match for match in map(_CELL.fullmatch, groups) if match]
    if len(found) != 1:
        raise InvalidValue(
            f"`{scope}` must hold one of {', '.join(_CELLS)} and {STACK}, got "
            f"{listed(match[0] for match in found) if found else listed(groups)}. For "
            "another cell, such as one of contrib, pass `cell` and `inputs`."
        )
    (match,) = found
    place = join(scope, match[0])
    inner = groups[match[0]]
    if match[1] != STACK:
        return _single_cell(place, match, inner, hyper)
    layers = grouped(inner)
    names = [f"cell_{i}" for i in range(len(layers))]
    guessed = [guess_cell(f"{place}/{x}", pick(layers, x), hyper) for x in names]
    return MultiRNNCell(tuple(cell for cell, _ in guessed)), guessed[0][1]


def check_hyper(name: str, bound: BoundCell, hyper: Hyper) -> None:
    """Raises ValueError for a hyperparameter that `load` would not restore.

    The cells of a stack may differ in a hyperparameter. This function then raises no
    error, because `load` requires the argument `cell`, which holds the hyperparameters.
    """
    cells = _guessed_cells(name, bound) or []
    activation = resolve_activation(hyper.activation)
    for field, want in hyper._replace(activation=activation)._asdict().items():
        found = {
            name: getattr(cell, field)
            for name, cell in cells
            if hasattr(cell, field) and not _is_fixed(cell, field)
        }
        values = set(found.values())
        if len(values) == 1 and values != {want}:
            name, got = found.popitem()
            raise InvalidValue(
                f"`{name}` must have {field} {name_of(want)} (the argument of `save`), "
                f"got {name_of(got)}. Variables do not store `{field}`: pass the same "
                "to `save`, to `load` and to TensorFlow's cell."
            )


def _guessed_cells(name: str, cell: object) -> list[tuple[str, RNNCell]] | None:
    """The cells that `load` infers from variables, each with a name for messages.

    Returns None if `load` requires the argument `cell`.
    """
    bound = as_bound(name, cell)
    if type(bound.cell) is MultiRNNCell:
        found: list[tuple[str, RNNCell]] = []
        for own, each in stacked_cells(name, bound):
            cells = _guessed_cells(own, each)
            if cells is None:
                return None
            found += cells
        return found
    if not _is_guessed(bound.cell):
        return None
    read_params(name, bound)  # Raises an error for wrong parameters.
    return [(name, bound.cell)]


def _is_guessed(cell: RNNCell) -> bool:
    """Whether `guess_cell` can infer this single cell from its variables."""
    return type(cell) in KINDS and bool(_CELL.fullmatch(scope_name(cell)))


def _is_fixed(cell: RNNCell, field: str) -> bool:
    """Whether the cell's scope determines the hyperparameter."""
    return field == "forget_bias" and scope_name(cell).startswith(_CUDNN_LSTM)


def _single_cell(
    place: str, match: re.Match[str], weights: Weights, hyper: Hyper
) -> tuple[RNNCell, int]:
    """The cell and the size of its inputs, inferred from its variables."""
    kind = match[1]
    make = _CELLS[kind]
    read = reader(weights, f"{place}/")
    names = {field.name for field in dataclasses.fields(make)}
    options = {k: value for k, value in hyper._asdict().items() if k in names}
    units = read(_LAST_BIAS.get(kind, "bias"), None).shape[0]
    if make in (BasicLSTMCell, LSTMCell):
        must = "have 4 blocks of equal size"
        check_equal(f"{place}/bias", units, units // 4 * 4, must)
        units //= 4
    if kind == _CUDNN_LSTM:
        options["forget_bias"] = 0.0
    if match[0] != snake_case(make.__name__):
        options["name"] = match[0]
    if make is LSTMCell:
        options["use_peepholes"] = any("_diag" in name for name in weights)
        if "projection/kernel" in weights:
            options["num_proj"] = read("projection/kernel", units, None).shape[1]
    cell = make(units, **options)
    first = "gates/kernel" if "gates/kernel" in weights else "kernel"
    kernel = read(first, None, None)
    return cell, input_depth(f"{place}/{first}", kernel, cell.output_size)
