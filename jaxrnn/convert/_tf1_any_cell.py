"""TensorFlow's names for the variables of any cell, wrapped and stacked ones included.

The cell tells which parameters there are; only the scopes are TensorFlow's.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from .. import contrib
from .._base.errors import describe
from .._base.typing import Params
from .._cells.base import RNNCell, scope_name
from .._wrappers.base import WrapperCell
from .._wrappers.multi_rnn import MultiRNNCell
from ..contrib._wrapper import OwnParams
from ._tf1_names import join
from ._weights import check_names, flattened, reader

# Wrappers that have no variables, and no scope.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN


def is_of_contrib(cell: Any) -> bool:
    """Whether the cell, or one that it holds, is of `jaxrnn.contrib`."""
    held = [getattr(cell, "cell", None), *getattr(cell, "cells", ())]
    own = getattr(contrib, type(cell).__name__, None) is type(cell)
    return own or any(is_of_contrib(each) for each in held if each is not None)


def load_into(cell: Any, inputs: Any, variables: Mapping[str, Any], scope: str) -> Any:
    """The cell with the parameters that a scope holds.

    Args:
        cell: An unbound cell.
        inputs: One step of its inputs, or its shapes.
        variables: Those in the scope, under their names in it.
        scope: The scope, for messages.

    Raises:
        TypeError: If `cell` is not an unbound cell, or a weight not a floating array.
        ValueError: If `inputs` are None, a weight is missing, not known, or of the
            wrong shape.
    """
    if not isinstance(cell, RNNCell | contrib.FusedRNNCell):
        raise TypeError(
            f"`cell` must be a cell without its parameters, got {describe(cell)}."
        )
    if inputs is None:
        raise ValueError(
            "`inputs` must be one step of the inputs of `cell`, or its shapes, such as "
            "`jax.ShapeDtypeStruct((1, 8), jnp.float32)`, got None."
        )
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs))
    leaves, tree = jax.tree.flatten(shapes)
    places = dict(named(cell, tree.unflatten(range(len(leaves)))))
    # Layers that share their parameters have one name each, of which the first counts.
    names = {i: name for name, i in reversed(places.items())}
    wanted = [
        name for name, i in places.items() if name in variables or names[i] == name
    ]
    check_names(scope, variables, wanted)
    read = reader(variables, join(scope, ""))
    arrays = [read(names[i], *leaf.shape) for i, leaf in enumerate(leaves)]
    return cell.bind(tree.unflatten(arrays))


def save_from(bound: Any, scope: str) -> dict[str, np.ndarray]:
    """The variables of a bound cell under their names in a graph.

    Raises:
        TypeError: If a parameter is not a floating array.
        ValueError: If those of an inner cell are missing.
    """
    arrays = {join(scope, name): x for name, x in named(bound.cell, bound.params)}
    read = reader(arrays)
    return {name: read(name, *np.shape(x)) for name, x in arrays.items()}


def named(cell: Any, params: Params) -> Iterator[tuple[str, Any]]:
    """The parameters of a cell under TensorFlow's names, scopes included."""
    if isinstance(cell, OwnParams):
        own, inner = cell.split_params(params)
        pairs = [*flattened(own).items(), *named(cell.cell, inner)]
        # This one calls its cell without entering a scope.
        has_scope = not isinstance(cell, contrib.HighwayWrapper)
        yield from _in_scope(scope_name(cell) if has_scope else "", pairs)
    elif isinstance(cell, _BARE):
        yield from named(cell.cell, params)
    elif isinstance(cell, MultiRNNCell):
        for i, (each, owner) in enumerate(zip(cell.cells, cell.owners, strict=True)):
            pairs = named(each, params[f"cell_{owner}"])
            yield from _in_scope(f"{scope_name(cell)}/cell_{i}", pairs)
    else:
        yield from _in_scope(scope_name(cell), flattened(params).items())


def _in_scope(scope: str, pairs: Any) -> Iterator[tuple[str, Any]]:
    return ((join(scope, name), value) for name, value in pairs)
