"""TensorFlow's variable names for any cell, including wrapped and stacked cells.

The cell determines the names of its parameters. This module adds TensorFlow's scopes to
the names. It also infers core cells from the names and shapes of their variables.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import keystr

from .. import contrib
from .._base.arguments import check_given, check_instance
from .._base.errors import Verbatim, error_note
from .._base.expect import expect
from .._base.inputs import check_concrete
from .._base.typing import Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._cells.fields import snake_case
from .._cells.lstm import BasicLSTMCell, LSTMCell
from .._wrappers.base import ParamsWrapper, WrapperCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._bound_cells import KINDS, input_depth
from ._layer_weights import ActivationLike
from ._weights import (
    Weights,
    as_mapping,
    check_names,
    listed,
    pick,
    reader,
)

# Wrappers that have neither variables nor a scope of their own.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN
_MEMORY_LAYER = "memory_layer"
_CELLS = {snake_case(cell.__name__): cell for cell in KINDS}
# The variable scope of the LSTMs in `CudnnLSTM` checkpoints. (`CudnnLSTM` adds no
# forget bias.)
_CUDNN_LSTM = "cudnn_compatible_lstm_cell"
_CELLS[_CUDNN_LSTM] = LSTMCell
_STACK = "multi_rnn_cell"
# For cells without a variable "bias" of their own, the path of the bias whose size
# determines `num_units`.
_LAST_BIAS = {
    "gru_cell": "candidate/bias",
    "cudnn_compatible_gru_cell": "candidate/hidden_projection/bias",
}
# If several cells in a scope have the same name, TensorFlow appends a number to each
# name except the first.
_CELL = re.compile(rf"({'|'.join([*_CELLS, _STACK])})(_\d+)?")


Named: TypeAlias = list[tuple[str, PyTree]]


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
    check_instance("scope", scope, str, "a string")
    if hasattr(variables, "get_variable_to_shape_map"):
        # `variables` is a checkpoint reader.
        names = variables.get_variable_to_shape_map()
        get = variables.get_tensor
    else:
        fix = "Read a checkpoint with `tf.train.load_checkpoint(path)`."
        names = as_mapping("variables", variables, fix)
        get = names.__getitem__
    prefix = join(scope, "")
    full = {str(name).removesuffix(":0"): name for name in names}
    own = [name for name in full if not _is_slot(name, full)]
    inside = [name for name in own if name.startswith(prefix + start)]
    must = f"contain a {start or 'variable'}"
    expect(inside, "scope", must, scope, f"Found: {listed(own)}.")
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


def load_into(
    cell: Any, inputs: PyTree, variables: object, scope: str, memory_scope: str
) -> Any:
    """Binds a cell to the variables in a scope.

    Args:
        cell: An unbound cell.
        inputs: One step of the cell's inputs, or its shapes.
        variables: A mapping or a checkpoint reader.
        scope: The scope of the cell.
        memory_scope: The scope of the memory layers of attention.

    Raises:
        TypeError: If `cell` is not an unbound cell, or a weight is not a floating
            array.
        ValueError: If `inputs` is None, or a weight is missing, unknown, or has the
            wrong shape.
    """
    check_instance("cell", cell, RNNCell | contrib.FusedRNNCell, "an unbound cell")
    what = "one step of the inputs of `cell`, or its shapes"
    fix = "For example, pass `jax.ShapeDtypeStruct((1, 8), jnp.float32)`."
    check_given("inputs", inputs, fix, what)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs))
    leaves, tree = jax.tree.flatten(shapes)
    numbered = tree.unflatten(range(len(leaves)))
    places = full_names(cell, numbered, scope, memory_scope)
    # Shared parameters have one name in each layer; use the first of these names.
    names = {i: name for name, i in reversed(places.items())}
    found = _found(variables, scope, memory_scope, places)
    wanted = [name for name, i in places.items() if name in found or names[i] == name]
    _check_found(scope, found, wanted)
    _check_shared(found, {name: names[places[name]] for name in wanted})
    read = reader(found)
    note = "Check that the sizes of `cell` and `inputs` match the TensorFlow script."
    with error_note(note):
        arrays = [read(names[i], *leaf.shape) for i, leaf in enumerate(leaves)]
    return cell.bind(tree.unflatten(arrays))


def _found(
    variables: object, scope: str, memory_scope: str, places: Collection[str]
) -> Params:
    """The variables of a cell and of its memory layers, by full name."""
    own = variables_in(variables, scope)
    found = {join(scope, name): value for name, value in own.items()}
    start = join(memory_scope, _MEMORY_LAYER)
    if not any(name.startswith(start) for name in places):
        return found
    with error_note("Pass the scope of the attention mechanism as `memory_scope`."):
        memory = variables_in(variables, memory_scope, _MEMORY_LAYER)
    return found | {join(memory_scope, name): value for name, value in memory.items()}


def _check_found(scope: str, found: Weights, wanted: Collection[str]) -> None:
    """Raises ValueError for a missing or unknown variable.

    Variables outside the cell, e.g. the weights of an output layer, are ignored.
    """
    heads = {_head(name, scope) for name in wanted}
    own = [name for name in found if _head(name, scope) in heads]
    fix = (
        f"Found: {listed(found)}. Check that the scope and the cell's class, `name` "
        "and options (such as `use_bias`) match the TensorFlow script."
    )
    check_names(scope or "variables", own, wanted, "the variables of `cell`", fix)


def _head(name: str, scope: str) -> str:
    return name.removeprefix(join(scope, "")).partition("/")[0]


def _check_shared(found: Weights, owners: Mapping[str, str]) -> None:
    """Raises ValueError if layers that share parameters have different variables.

    Args:
        found: The variables.
        owners: Maps the name of each variable to the name of the variable whose values
            the layer uses.
    """
    pairs = {name: owner for name, owner in owners.items() if name != owner}
    for name, owner in pairs.items():
        why = "two layers of `cell` are the same object and need equal values"
        for each in (name, owner):
            check_concrete(each, found[each], why=why)
        is_equal = np.array_equal(found[name], found[owner])
        must = f"equal `{owner}`, because two layers of `cell` are the same object"
        fix = "Create a separate cell for each layer."
        expect(is_equal, name, must, Verbatim("other values"), fix)


def save_from(bound: Any, scope: str, memory_scope: str) -> dict[str, np.ndarray]:
    """The variables of a bound cell, by their names in a TensorFlow graph.

    Raises:
        TypeError: If a parameter is not a floating-point array.
        ValueError: If the parameters of an inner cell are missing.
    """
    arrays = full_names(bound.cell, bound.params, scope, memory_scope)
    read = reader(arrays)
    return {name: read(name, *np.shape(x)) for name, x in arrays.items()}


def full_names(cell: Any, params: Params, scope: str, memory_scope: str) -> Params:
    """The parameters of a cell, by their names in a TensorFlow graph.

    Raises:
        ValueError: If two parameters have the same name, or `memory_scope` is given
            for a cell without memory layers.
    """
    full: Params = {}
    layers = 0
    for name, value in _named(cell, params):
        place = join(scope, name)
        if name.startswith("/"):
            number = f"_{layers}" if layers else ""
            place = join(memory_scope, f"{_MEMORY_LAYER}{number}/kernel")
            layers += 1
        fix = "Set the `name` of one cell to the cell's numbered scope in TensorFlow."
        must = "have only one variable of each name"
        expect(place not in full, "cell", must, Verbatim(f"two `{place}`"), fix)
        full[place] = value
    must = "be omitted for a cell without an AttentionWrapper"
    expect(layers or not memory_scope, "memory_scope", must, memory_scope)
    return full


def _named(cell: Any, params: Params) -> Named:
    """The parameters of a cell under TensorFlow's names, including scopes.

    The name of a memory layer begins with a slash, because the constructor of the
    mechanism creates the layer outside the cell's scope.
    """
    if isinstance(cell, ParamsWrapper):
        own, inner = cell.split_params(params)
        pairs = _leaves(own)
        if isinstance(cell, contrib.AttentionWrapper):
            pairs = [(re.sub(f"^{_MEMORY_LAYER}", r"/\g<0>", k), x) for k, x in pairs]
        pairs += _named(cell.cell, inner)
        # `HighwayWrapper` calls its cell without entering a scope.
        has_scope = not isinstance(cell, contrib.HighwayWrapper)
        return _in_scope(scope_name(cell) if has_scope else "", pairs)
    if isinstance(cell, _BARE):
        return _named(cell.cell, params)
    return _in_scope(scope_name(cell), _held(cell, params))


def _held(cell: Any, params: Params) -> Named:
    """The parameters of a cell, with one scope per inner cell."""
    if not isinstance(params, Mapping):
        return _leaves(params)
    rest = dict(params)
    pairs: Named = []
    if isinstance(cell, MultiRNNCell):
        for i, (each, owner) in enumerate(zip(cell.cells, cell.owners, strict=True)):
            pairs += _in_scope(f"cell_{i}", _named(each, params[f"cell_{owner}"]))
            rest.pop(f"cell_{owner}", None)
    for name in params:
        inner = getattr(cell, name, None)
        if isinstance(inner, RNNCell):
            pairs += _named(inner, rest.pop(name))
    return pairs + _leaves(rest)


def _leaves(params: Params) -> Named:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _in_scope(scope: str, pairs: Named) -> Named:
    return [(k if k.startswith("/") else join(scope, k), x) for k, x in pairs]


def guess_cell(scope: str, named: Weights, hyper: Hyper) -> tuple[RNNCell, int]:
    """Infers the unbound cell or stack in a scope, and the size of its inputs."""
    groups = grouped(named)
    found = [match for match in map(_CELL.fullmatch, groups) if match]
    must = f"hold exactly one of {listed(_CELLS)}, {_STACK}"
    got = listed(match[0] for match in found) if found else listed(groups)
    fix = "For another cell, or one of several, pass `cell` and `inputs`."
    expect(len(found) == 1, scope or "variables", must, got, fix)
    (match,) = found
    place = join(scope, match[0])
    inner = groups[match[0]]
    if match[1] != _STACK:
        return _single_cell(place, match, inner, hyper)
    layers = grouped(inner)
    names = [f"cell_{i}" for i in range(len(layers))]
    guessed = [guess_cell(f"{place}/{x}", pick(layers, x), hyper) for x in names]
    return MultiRNNCell(tuple(cell for cell, _ in guessed)), guessed[0][1]


def is_guessed(cell: RNNCell) -> bool:
    """Whether `guess_cell` can infer this single cell from its variables."""
    return type(cell) in KINDS and bool(_CELL.fullmatch(scope_name(cell)))


def is_cudnn_lstm(cell: RNNCell) -> bool:
    """Whether the cell's scope determines its forget bias."""
    return scope_name(cell).startswith(_CUDNN_LSTM)


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
        must = "have a size divisible by 4"
        expect(units == units // 4 * 4, f"{place}/bias", must, units)
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
    return cell, input_depth(f"{place}/{first}", len(kernel), cell.output_size)
