"""TensorFlow's variable names for any cell, including wrapped and stacked cells.

The cell determines the names of its parameters. This module adds TensorFlow's scopes to
the names.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.tree_util import keystr

from .. import contrib
from .._base.errors import Verbatim, error_note
from .._base.expect import expect
from .._base.inputs import check_concrete
from .._base.typing import Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._wrappers.base import ParamsWrapper, WrapperCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._weights import Weights, as_mapping, check_names, listed, reader

# Wrappers that have neither variables nor a scope of their own.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN
_MEMORY_LAYER = "memory_layer"

Named: TypeAlias = list[tuple[str, PyTree]]


def join(scope: str, name: str) -> str:
    """The full name of `name` in a scope, which may be empty."""
    return f"{scope}/{name}" if scope else name


def variables_in(variables: Any, scope: str, start: str = "") -> Params:
    """The variables in a scope, by full name, without optimizer slots.

    Args:
        variables: A mapping or a checkpoint reader.
        scope: The scope.
        start: The prefix of the names in the scope to find.

    Raises:
        TypeError: If `variables` is neither a mapping nor a checkpoint reader.
        ValueError: If the scope contains no variable whose name begins with `start`.
    """
    if hasattr(variables, "get_variable_to_shape_map"):
        # `variables` is a checkpoint reader.
        names = variables.get_variable_to_shape_map()
        get = variables.get_tensor
    else:
        fix = "Read a checkpoint with `tf.train.load_checkpoint(path)`."
        names = as_mapping("variables", variables, fix)
        get = names.__getitem__
    full = {str(name).removesuffix(":0"): name for name in names}
    own = [name for name in full if not _is_slot(name, full)]
    inside = [name for name in own if name.startswith(join(scope, start))]
    must = f"contain a {start or 'variable'}"
    expect(inside, "scope", must, scope, f"Found: {listed(own)}.")
    return {name: get(full[name]) for name in inside}


def _is_slot(name: str, names: Weights) -> bool:
    """Whether `name` is an optimizer slot, i.e. one of its scopes names a variable."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def load_into(
    cell: Any,
    shapes: PyTree,
    scope: str,
    found: Params,
    variables: object,
    memory_scope: str,
) -> Any:
    """Binds a cell to the variables in a scope.

    Args:
        cell: An unbound cell.
        shapes: The shapes of the cell's parameters.
        scope: The scope of the cell.
        found: The variables in this scope, and perhaps in others, by full name.
        variables: A mapping or a checkpoint reader, for the memory layers of attention.
        memory_scope: The scope of these memory layers.

    Raises:
        TypeError: If a weight is not a floating-point array.
        ValueError: If a weight is missing, unknown, or has the wrong shape.
    """
    leaves, tree = jax.tree.flatten(shapes)
    numbered = tree.unflatten(range(len(leaves)))
    places = full_names(cell, numbered, scope, memory_scope)
    start = join(memory_scope, _MEMORY_LAYER)
    if any(name.startswith(start) for name in places):
        with error_note("Pass the scope of the attention mechanism as `memory_scope`."):
            found = found | variables_in(variables, memory_scope, _MEMORY_LAYER)
    # Shared parameters have one name in each layer; use the first of these names.
    names = {i: name for name, i in reversed(places.items())}
    wanted = [name for name, i in places.items() if name in found or names[i] == name]
    _check_found(scope, found, wanted)
    _check_shared(found, {name: names[places[name]] for name in wanted})
    read = reader(found)
    note = "Check that the sizes of `cell` and `inputs` match the TensorFlow script."
    with error_note(note):
        arrays = [read(names[i], *leaf.shape) for i, leaf in enumerate(leaves)]
    return cell.bind(tree.unflatten(arrays))


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
    """The first level of a name inside the scope, with the scope."""
    outer = join(scope, "") if name.startswith(join(scope, "")) else ""
    return outer + name.removeprefix(outer).partition("/")[0]


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
