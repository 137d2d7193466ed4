"""Scopes of TensorFlow's variables, and inference of cells from the variables."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import contrib
from .._base.errors import InvalidValue, describe
from .._cells.activations import resolve_activation
from .._cells.base import RNNCell, scope_name
from .._cells.bound import BoundCell
from .._cells.hyperparameters import snake_case
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._bound_cells import KINDS, as_bound, input_depth, read_params, stacked_cells
from ._weights import as_mapping, check_string, listed, pick, reader

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
    activation: Any = None
    cell_clip: float | None = None
    proj_clip: float | None = None


def join(scope: str, name: str) -> str:
    """The full name of `name` in a scope, which may be empty."""
    return f"{scope}/{name}" if scope else name


def variables_in(variables: Any, scope: str, start: str = "") -> dict[str, Any]:
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
        names, get = variables.get_variable_to_shape_map(), variables.get_tensor
    else:
        fix = "`tf.train.load_checkpoint(path)` reads a checkpoint."
        names, get = as_mapping("variables", variables, fix), variables.__getitem__
    prefix = join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    own = [name for name in full if not _is_slot(name, full)]
    inside = [name for name in own if name.startswith(prefix + start)]
    if not inside:
        missing = f"no {start or 'variable'} is in the scope `{scope}`"
        raise InvalidValue(f"{missing}. Found: {listed(own)}.")
    return {name.removeprefix(prefix): get(full[name]) for name in inside}


def _is_slot(name: str, names: Mapping[str, Any]) -> bool:
    """Whether `name` is an optimizer slot, i.e. one of its scopes names a variable."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def grouped(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Groups variables by the first part of their names."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = value
    return groups


def guess_cell(
    scope: str, named: Mapping[str, Any], hyper: Hyper
) -> tuple[RNNCell, int]:
    """Infers the unbound cell or stack in a scope, and the size of its inputs."""
    groups = grouped(named)
    found = [match for match in map(_CELL.fullmatch, groups) if match]
    if len(found) != 1:
        got = ", ".join(match[0] for match in found) or ", ".join(groups)
        others = [] if found else map(_cell_of_contrib, groups)
        made = next(filter(None, others), None)
        fix = (
            "If the scope holds several cells, pass the variables of one. For another "
            "cell, or one with a `name`, pass `cell` and `inputs`."
        )
        if made:
            fix = f"Pass `cell=jaxrnn.contrib.{made}(...)` and `inputs`."
        raise InvalidValue(
            f"`{scope}` must hold one of {', '.join(_CELLS)} and {STACK}, got "
            f"{got or 'nothing'}. {fix}"
        )
    (match,) = found
    place, inner = join(scope, match[0]), groups[match[0]]
    if match[1] != STACK:
        return _single_cell(place, match, inner, hyper)
    layers = grouped(inner)
    guess = lambda name: guess_cell(f"{place}/{name}", pick(layers, name), hyper)
    guessed = [guess(f"cell_{i}") for i in range(len(layers))]
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
            want, got = (getattr(each, "__name__", each) for each in (want, got))
            raise InvalidValue(
                f"`{name}` must have {field} {want} (the argument of `save`), got "
                f"{got}. Variables do not store this value, so pass the same "
                f"`{field}` to `save`, to `load` and to TensorFlow's cell."
            )


def _guessed_cells(name: str, cell: Any) -> list[tuple[str, RNNCell]] | None:
    """The cells that `load` infers from variables, each with a name for messages.

    Returns None if `load` requires the argument `cell`.
    """
    cell = as_bound(name, cell)
    if type(cell.cell) is MultiRNNCell:
        found = []
        for layer in stacked_cells(name, cell):
            cells = _guessed_cells(*layer)
            if cells is None:
                return None
            found += cells
        return found
    if not _is_guessed(cell.cell):
        return None
    read_params(name, cell)  # Raises an error for wrong parameters.
    return [(name, cell.cell)]


def _is_guessed(cell: RNNCell) -> bool:
    """Whether `guess_cell` can infer this single cell from its variables."""
    return type(cell) in KINDS and bool(_CELL.fullmatch(scope_name(cell)))


def _is_fixed(cell: RNNCell, field: str) -> bool:
    """Whether the cell's scope determines the hyperparameter."""
    return field == "forget_bias" and scope_name(cell).startswith(_CUDNN_LSTM)


def _cell_of_contrib(scope: str) -> str | None:
    """The name of the `jaxrnn.contrib` class that has this scope by default."""
    for name, each in vars(contrib).items():
        if isinstance(each, type) and issubclass(each, RNNCell):
            if scope == (getattr(each, "name", None) or snake_case(name)):
                return name
    return None


def _single_cell(
    place: str, match: re.Match, weights: Mapping[str, Any], hyper: Hyper
) -> tuple[RNNCell, int]:
    """The cell and the size of its inputs, inferred from its variables."""
    kind, read = match[1], reader(weights, f"{place}/")
    make = _CELLS[kind]
    names = {field.name for field in dataclasses.fields(make)}
    options = {k: value for k, value in hyper._asdict().items() if k in names}
    units = read(_LAST_BIAS.get(kind, "bias"), None).shape[0]
    if make in (BasicLSTMCell, LSTMCell):
        units, rest = divmod(units, 4)
        if rest:
            raise InvalidValue(
                f"`{place}/bias` must have 4 blocks of equal size, got "
                f"{describe(weights['bias'])}."
            )
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
