"""The scopes of TensorFlow's variables, and the cells that these tell."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from .. import contrib
from .._base.errors import describe
from .._cells.base import RNNCell, snake_case
from .._cells.basic_lstm import BasicLSTMCell
from .._cells.bound import BoundCell
from .._cells.lstm import LSTMCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._cells import KINDS, input_depth
from ._weights import (
    Read,
    as_mapping,
    check_names,
    check_string,
    flattened,
    listed,
    pick,
    reader,
)

_CELLS = {snake_case(cell.__name__): cell for cell in KINDS}
# In checkpoints of `CudnnLSTM`, which adds no forget bias.
_CELLS["cudnn_compatible_lstm_cell"] = LSTMCell
STACK = "multi_rnn_cell"
# The bias whose size is that of the state, where it is not "bias".
_LAST_BIAS = {
    "gru_cell": "candidate/bias",
    "cudnn_compatible_gru_cell": "candidate/hidden_projection/bias",
}
# The second cell in a scope is numbered.
_CELL = re.compile(rf"({'|'.join([*_CELLS, STACK])})(_\d+)?")


class Hyper(NamedTuple):
    """Hyper-parameters that variables do not hold."""

    forget_bias: float = 1.0
    activation: Any = None
    cell_clip: float | None = None
    proj_clip: float | None = None


def join(scope: str, name: str) -> str:
    """The full name of `name` in a scope, which may be empty."""
    return f"{scope}/{name}" if scope else name


def variables_in(variables: Any, scope: str, start: str = "") -> dict[str, Any]:
    """The variables in a scope, under their names in it, without slots.

    Args:
        variables: A mapping, or a checkpoint's reader.
        scope: The scope.
        start: What their names in it begin with.

    Raises:
        TypeError: If `variables` is neither a mapping nor a checkpoint's reader, or
            `scope` is not a string.
        ValueError: If the scope holds no variable.
    """
    check_string("scope", scope)
    if hasattr(variables, "get_variable_to_shape_map"):  # A checkpoint's reader.
        names, get = variables.get_variable_to_shape_map(), variables.get_tensor
    else:
        fix = "`tf.train.load_checkpoint(path)` reads a checkpoint."
        names, get = as_mapping("variables", variables, fix), variables.__getitem__
    prefix = join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    inside = [
        name
        for name in full
        if name.startswith(prefix + start) and not _is_slot(name, full)
    ]
    if not inside:
        raise ValueError(
            f"no {start or 'variable'} is in the scope `{scope}`. There is: "
            f"{listed(full)}."
        )
    return {name.removeprefix(prefix): get(full[name]) for name in inside}


def _is_slot(name: str, names: Mapping[str, Any]) -> bool:
    """Whether `name` is an optimizer's slot: its scope is the name of a variable."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def grouped(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values, grouped by the first part of their names."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = value
    return groups


def cell_in_scope(scope: str, named: Mapping[str, Any], hyper: Hyper) -> BoundCell:
    """The bound cell or stack of cells in a scope."""
    groups = grouped(named)
    found = [match for match in map(_CELL.fullmatch, groups) if match]
    if len(found) != 1:
        got = ", ".join(match[0] for match in found) or ", ".join(groups)
        others = [] if found else map(_cell_of_contrib, groups)
        made = next(filter(None, others), None)
        fix = (
            f"Pass `cell=jaxrnn.contrib.{made}(...)` and `inputs`."
            if made
            else "Rename the variables of a cell with a custom name; of several cells "
            "pass those of one; of another cell pass the `cell`."
        )
        raise ValueError(
            f"`{scope}` must hold one of {', '.join(_CELLS)} and {STACK}, got "
            f"{got or 'nothing'}. {fix}"
        )
    (match,) = found
    place, inner = join(scope, match[0]), groups[match[0]]
    if match[1] != STACK:
        return _cell(place, match[1], inner, hyper)
    layers, cells = grouped(inner), {}
    for name in [f"cell_{i}" for i in range(len(layers))]:
        layer = pick(layers, name)
        heads = list(grouped(layer))
        cell = next(filter(_CELL.fullmatch, heads), heads[0])
        check_names(f"{place}/{name}", heads, [cell])
        cells[name] = cell_in_scope(f"{place}/{name}", layer, hyper)
    params = {name: cell.params for name, cell in cells.items()}
    return MultiRNNCell(tuple(cell.cell for cell in cells.values())).bind(params)


def _cell_of_contrib(scope: str) -> str | None:
    """The name of the class of `jaxrnn.contrib` whose scope that is by default."""
    for name, each in vars(contrib).items():
        if isinstance(each, type) and issubclass(each, RNNCell):
            if scope == (getattr(each, "name", None) or snake_case(name)):
                return name
    return None


def _cell(place: str, kind: str, weights: Mapping[str, Any], hyper: Hyper) -> BoundCell:
    """The bound cell in a scope; checks the shapes of its parameters."""
    read = reader(weights, f"{place}/")
    cell = _unbound(place, kind, weights, hyper, read)
    first = "gates/kernel" if "gates/kernel" in weights else "kernel"
    kernel = read(first, None, None)
    specs = cell.param_specs(input_depth(f"{place}/{first}", kernel, cell.output_size))
    check_names(place, weights, flattened(specs))
    key = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    get = lambda path, spec: read(key(path), *spec.shape)
    return cell.bind(jax.tree_util.tree_map_with_path(get, specs))


def _unbound(
    place: str, kind: str, weights: Mapping[str, Any], hyper: Hyper, read: Read
) -> Any:
    """The cell, whose sizes are inferred from the shapes of its variables."""
    make = _CELLS[kind]
    names = {field.name for field in dataclasses.fields(make)}
    options = {k: value for k, value in hyper._asdict().items() if k in names}
    units = read(_LAST_BIAS.get(kind, "bias"), None).shape[0]
    if make in (BasicLSTMCell, LSTMCell):
        units, rest = divmod(units, 4)
        if rest:
            raise ValueError(
                f"`{place}/bias` must have 4 blocks of one size, got "
                f"{describe(weights['bias'])}."
            )
    if kind == "cudnn_compatible_lstm_cell":
        options["forget_bias"] = 0.0
    if make is LSTMCell:
        options["use_peepholes"] = any("_diag" in name for name in weights)
        if "projection/kernel" in weights:
            options["num_proj"] = read("projection/kernel", units, None).shape[1]
    return make(units, **options)
