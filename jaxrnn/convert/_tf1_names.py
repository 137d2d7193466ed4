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
from .._base.arguments import check_given, check_instance
from .._base.errors import InvalidValue, error_note
from .._base.typing import Params, PyTree
from .._cells.base import RNNCell, scope_name
from .._wrappers.base import OwnParams, WrapperCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._tf1_scopes import join, variables_in
from ._weights import Weights, check_concrete, faults, listed, reader

# Wrappers that have neither variables nor a scope of their own.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN
_MEMORY_LAYER = "memory_layer"

Named: TypeAlias = list[tuple[str, PyTree]]


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
    fix = "Example: `jax.ShapeDtypeStruct((1, 8), jnp.float32)`."
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
    with error_note("A size of `cell` or `inputs` may differ from the script."):
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
    with error_note("`memory_scope` is where the script created the mechanism."):
        memory = variables_in(variables, memory_scope, _MEMORY_LAYER)
    return found | {join(memory_scope, name): value for name, value in memory.items()}


def _check_found(scope: str, found: Weights, wanted: Collection[str]) -> None:
    """Raises ValueError for a missing or unknown variable.

    Variables outside the cell, e.g. the weights of an output layer, are ignored.
    """
    heads = {_head(name, scope) for name in wanted}
    wrong = faults([name for name in found if _head(name, scope) in heads], wanted)
    if wrong:
        raise InvalidValue(
            f"`{scope}` must hold the variables of `cell`{wrong}. Found: "
            f"{listed(found)}. The scope, the class or `name` of a cell, or an option, "
            "e.g. `use_bias`, may differ from the TensorFlow script."
        )


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
        why = "both layers of `cell` are the same object and need equal values"
        check_concrete(name, [found[name], found[owner]], why)
        if not np.array_equal(found[name], found[owner]):
            raise InvalidValue(
                f"`{name}` must equal `{owner}`, since both layers of `cell` are the "
                "same object. Create a separate cell for each layer."
            )


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
        if place in full:
            raise InvalidValue(
                f"two cells within `cell` have a variable `{place}`. Give one of them "
                "a `name`, the numbered scope that TensorFlow gives to it."
            )
        full[place] = value
    if memory_scope and not layers:
        raise InvalidValue(
            "`memory_scope` must be omitted for a cell without an AttentionWrapper, "
            f"got {memory_scope!r}."
        )
    return full


def _named(cell: Any, params: Params) -> Named:
    """The parameters of a cell under TensorFlow's names, including scopes.

    The name of a memory layer begins with a slash to mark that it is outside the cell's
    scope: the constructor of the mechanism creates the layer.
    """
    if isinstance(cell, OwnParams):
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
