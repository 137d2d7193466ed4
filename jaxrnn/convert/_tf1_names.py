"""TensorFlow's variable names for any cell, including wrapped and stacked cells.

The cell determines the names of its parameters. This module adds TensorFlow's scopes to
the names.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from .. import contrib
from .._base.arguments import check_given, check_instance
from .._base.errors import InvalidValue
from .._base.typing import Params
from .._cells.base import RNNCell, scope_name
from .._wrappers.base import OwnParams, WrapperCell
from .._wrappers.multi_rnn import MultiRNNCell
from ._tf1_scopes import join, variables_in
from ._weights import check_concrete, faults, listed, reader

# Wrappers that have neither variables nor a scope of their own.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN
_MEMORY_LAYER = "memory_layer"

Named = list[tuple[str, Any]]


def load_into(
    cell: Any, inputs: Any, variables: Any, scope: str, memory_scope: str
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
    kinds, what = RNNCell | contrib.FusedRNNCell, "an unbound cell"
    check_instance("cell", cell, kinds, what)
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
    _check_found(type(cell).__name__, scope, found, wanted)
    _check_shared(found, {name: names[places[name]] for name in wanted})
    read = reader(found)
    try:
        arrays = [read(names[i], *leaf.shape) for i, leaf in enumerate(leaves)]
    except ValueError as error:
        fix = "A size of `cell` or `inputs` may differ from the TensorFlow script."
        raise InvalidValue(f"{error} {fix}") from None
    return cell.bind(tree.unflatten(arrays))


def _found(
    variables: Any, scope: str, memory_scope: str, places: Collection[str]
) -> dict[str, Any]:
    """The variables of a cell and of its memory layers, by full name."""
    own = variables_in(variables, scope)
    found = {join(scope, name): value for name, value in own.items()}
    start = join(memory_scope, _MEMORY_LAYER)
    if not any(name.startswith(start) for name in places):
        return found
    try:
        memory = variables_in(variables, memory_scope, _MEMORY_LAYER)
    except ValueError as error:
        fix = "`memory_scope` is the scope where the script created the mechanism."
        raise InvalidValue(f"{error} {fix}") from None
    return found | {join(memory_scope, name): value for name, value in memory.items()}


def _check_found(
    kind: str, scope: str, found: Collection[str], wanted: Collection[str]
) -> None:
    """Raises ValueError for a missing or unknown variable.

    Variables outside the cell, e.g. the weights of an output layer, are ignored.
    """
    head = lambda name: name.removeprefix(join(scope, "")).partition("/")[0]
    heads = {head(name) for name in wanted}
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted and head(name) in heads]
    if not missing and not unknown:
        return
    fix = "" if unknown else f"Found: {listed(found)}. "
    fix += (
        "The scope, the class or `name` of a cell, or an option, e.g. `use_bias`, may "
        "differ from the TensorFlow script."
    )
    last = scope.rpartition("/")[2]
    if last in heads:
        fix = f"Leave `{last}` out of the scope."
    wrong = faults(missing, unknown)
    place = f"`{scope}`" if scope else "the root"
    raise InvalidValue(f"{place} must hold the variables of {kind}{wrong}. {fix}")


def _check_shared(found: Mapping[str, Any], owners: Mapping[str, str]) -> None:
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


def full_names(
    cell: Any, params: Params, scope: str, memory_scope: str
) -> dict[str, Any]:
    """The parameters of a cell, by their names in a TensorFlow graph.

    Raises:
        ValueError: If two parameters have the same name, or `memory_scope` is given
            for a cell without memory layers.
    """
    full, layers = {}, 0
    for name, value in _named(cell, params):
        place = join(scope, name)
        if name.startswith("/"):
            number = f"_{layers}" if layers else ""
            place = join(memory_scope, f"{_MEMORY_LAYER}{number}/kernel")
            layers += 1
        if place in full:
            raise InvalidValue(
                f"two cells within `cell` have a variable `{place}`. TensorFlow "
                "numbers the second scope; pass the numbered scope as the `name` of "
                "that cell."
            )
        full[place] = value
    if memory_scope and not layers:
        raise InvalidValue(
            "`memory_scope` must be omitted for a cell without an AttentionWrapper, "
            f"got {memory_scope!r}. A custom wrapper must store the inner cell in a "
            "field, and the inner cell's parameters under the name of the field."
        )
    return full


def _named(cell: Any, params: Params) -> Named:
    """The parameters of a cell under TensorFlow's names, including scopes.

    The name of a memory layer begins with a slash to mark that it is outside the cell's
    scope: the constructor of the mechanism creates the layer.
    """
    if isinstance(cell, OwnParams):
        own, inner = cell.split_params(params)
        attends = isinstance(cell, contrib.AttentionWrapper)
        is_memory = lambda name: attends and name.startswith(_MEMORY_LAYER)
        marked = lambda name: f"/{name}" if is_memory(name) else name
        pairs = [(marked(name), leaf) for name, leaf in _leaves(own)]
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
    rest, pairs = dict(params), []
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
    path_name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return [(path_name(path), leaf) for path, leaf in leaves]


def _in_scope(scope: str, pairs: Named) -> Named:
    full = lambda name: name if name.startswith("/") else join(scope, name)
    return [(full(name), value) for name, value in pairs]
