"""Weights of TensorFlow's v1 cells, by variable name.

    cell = jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(128), jaxrnn.LSTMCell(128)])
    inputs = jax.ShapeDtypeStruct((1, 64), jax.numpy.float32)  # Of one step.
    reader = tf.train.load_checkpoint("model.ckpt")
    cell = jaxrnn.convert.tf1.load(reader, "encoder/rnn", cell=cell, inputs=inputs)
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

TensorFlow and jaxrnn use the same layout, so arrays are copied unchanged. The cell
`cell` has the class and the arguments of the cell in the TensorFlow script, because a
checkpoint stores neither. It may be any cell: wrapped, stacked, of `jaxrnn.contrib`, or
your own.

The memory layers of an `AttentionWrapper` are in the scope where the script created the
attention mechanisms. The wrapper's other variables are in the scope of the loop, which
is "decoder" for `dynamic_decode`:

    cell = jaxrnn.convert.tf1.load(
        reader, "decoder", cell=attention, inputs=inputs, memory_scope=""
    )
"""

from typing import Any

import jax
import numpy as np

from .._base.arguments import as_bool, check_given, check_instance
from .._base.hints import with_hints
from .._base.modules import export as _export
from .._base.typing import PyTree, Shaped
from .._cells.base import RNNCell
from .._cells.bound import BoundCell
from .._drivers.stack_bidirectional import init_stack_bidirectional
from ..contrib import FusedRNNCell
from ._bound_cells import KINDS, Cells, as_bound, as_pairs, read_params, single_cells
from ._tf1_names import join, load_into, save_from, variables_in
from ._weights import Weights, listed

__all__ = ["load", "save"]


@with_hints
def load(
    variables: Any,
    scope: str | None = None,
    *,
    cell: Any = None,
    inputs: Shaped | PyTree = None,
    bidirectional: bool = False,
    memory_scope: str = "",
) -> Any:
    """Loads the variables in a scope as a bound cell, or as cells per direction.

    Args:
        variables: A mapping from names to arrays, or a reader from
            `tf.train.load_checkpoint`. `load` ignores a ":0" at the end of names,
            optimizer slots (`.../kernel/Adam`), other scopes, and layers next to the
            cell (`dense/kernel`).
        scope: The scope of the cell: everything before the cell's own name or
            `multi_rnn_cell`. The scope ends with the `scope` argument of the loop, by
            default "rnn" for `dynamic_rnn` and "decoder" for `dynamic_decode`. To load
            a single direction, pass a scope like "bidirectional_rnn/fw". For two
            directions, pass everything before `fw` and `bw` or, for several layers,
            before `cell_0`; for a stack from `tf.contrib.rnn`, the scope ends with
            "stack_bidirectional_rnn". None stands for "rnn", or for "bidirectional_rnn"
            if `bidirectional`.
        cell: The unbound cell to load, with the class and the arguments of the cell in
            the TensorFlow script. Required. `load` looks in `scope` for the name
            `cell.name`, or for TensorFlow's default name, such as `lstm_cell`. If the
            variables have another name, such as `lstm_cell_1` or
            `cudnn_compatible_lstm_cell`, pass this `name` to the cell. For two
            directions, the pair `(cells_fw, cells_bw)`, each a cell or a list with one
            cell per layer.
        inputs: One step of the inputs of `cell`, or its shapes, as for `cell.init`.
            Required.
        bidirectional: Whether the scope belongs to one or several stacked
            `bidirectional_dynamic_rnn`s.
        memory_scope: The scope where the script created the mechanisms of an
            `AttentionWrapper`; this scope contains `memory_layer`. "" for no scope.

    Returns:
        `cell`, bound to its parameters. For two directions, `(cells_fw, cells_bw)` for
        `stack_bidirectional_dynamic_rnn`, each with one bound cell per layer.

    Raises:
        TypeError: If `variables` is neither a mapping nor a reader, a weight is not a
            floating-point array, or `cell` is not an unbound cell.
        ValueError: If the scope contains no variables, or `cell` or `inputs` is not
            given; if a weight is missing, unknown, or has the wrong shape; if two
            layers of `cell` are the same object, but the variables of the layers
            differ; if `memory_scope` is given and `cell` has no attention.

    Example:
        >>> import jax, numpy as np, jaxrnn, jaxrnn.convert.tf1
        >>> shapes = {"rnn/lstm_cell/kernel:0": (8, 20), "rnn/lstm_cell/bias:0": (20,)}
        >>> variables = {name: np.ones(shape) for name, shape in shapes.items()}
        >>> step = jax.ShapeDtypeStruct((1, 3), np.float32)
        >>> cell = jaxrnn.LSTMCell(5)
        >>> cell = jaxrnn.convert.tf1.load(variables, cell=cell, inputs=step)
        >>> cell.cell.forget_bias, cell.params["kernel"].shape
        (1.0, (8, 20))
        >>> sorted(jaxrnn.convert.tf1.save(cell, "encoder/rnn"))
        ['encoder/rnn/lstm_cell/bias', 'encoder/rnn/lstm_cell/kernel']
    """
    scope = _as_scope(scope, bidirectional)
    check_instance("memory_scope", memory_scope, str, "a string")
    found = variables_in(variables, scope)
    _check_given(cell, inputs, found)
    key = jax.random.key(0)

    def bind(cell: Any, shapes: PyTree, scope: str) -> BoundCell:
        return load_into(cell, shapes, scope, found, variables, memory_scope)

    if not bidirectional:
        kinds = RNNCell | FusedRNNCell
        check_instance("cell", cell, kinds, "an unbound cell")
        return bind(cell, jax.eval_shape(lambda: cell.init(key, inputs)), scope)
    layers = as_pairs(cell)
    sides = [[each for _, each in side] for side in zip(*layers, strict=True)]
    shapes = jax.eval_shape(
        lambda: init_stack_bidirectional(sides[0], sides[1], key, inputs)
    )
    places = zip(*_scopes(scope, len(layers)), strict=True)
    directions = zip(sides, shapes, places, strict=True)
    cells_fw, cells_bw = (tuple(map(bind, *direction)) for direction in directions)
    return cells_fw, cells_bw


@with_hints
def save(
    cell: Cells,
    scope: str | None = None,
    *,
    bidirectional: bool = False,
    memory_scope: str = "",
) -> dict[str, np.ndarray]:
    """Returns a cell's variables, by their names in a TensorFlow graph, without ":0".

    In a session, `variable.load(arrays[variable.op.name], session)` assigns the
    returned `arrays` to the variables. The forget bias, the activation and the clips
    are not stored in variables, so pass the same values to the constructors of
    TensorFlow's cells.

    Args:
        cell: A bound cell. If several layers of a stack are the same object, `save`
            stores the shared variables in the scope of each layer; TensorFlow itself
            stores only the first copy. For two directions, the pair
            `(cells_fw, cells_bw)`, each a list with one bound cell per layer.
        scope: As in `load`. Several layers of two directions become a stack.
        bidirectional: Whether `cell` is such a pair.
        memory_scope: As in `load`.

    Raises:
        TypeError: If `cell` is not a bound cell, or a parameter is not a floating
            array.
        ValueError: If a parameter of a core cell is missing, unknown, or has the wrong
            shape; if two cells inside `cell` have the same scope, or the directions
            differ in the number of layers.
    """
    scope = _as_scope(scope, bidirectional)
    check_instance("memory_scope", memory_scope, str, "a string")
    if not bidirectional:
        return _save("cell", cell, scope, memory_scope)
    variables: dict[str, np.ndarray] = {}
    layers = as_pairs(cell)
    for layer, places in zip(layers, _scopes(scope, len(layers)), strict=True):
        for each, place in zip(layer, places, strict=True):
            variables |= _save(*each, place, memory_scope)
    return variables


def _as_scope(scope: str | None, bidirectional: object) -> str:
    both = as_bool("bidirectional", bidirectional)
    default = "bidirectional_rnn" if both else "rnn"
    return check_instance("scope", default if scope is None else scope, str, "a string")


def _scopes(scope: str, layers: int) -> list[tuple[str, str]]:
    """The scopes of the forward and the backward cell of each layer."""
    places = [scope]
    if layers > 1:
        places = [join(scope, f"cell_{i}/bidirectional_rnn") for i in range(layers)]
    return [(join(place, "fw"), join(place, "bw")) for place in places]


def _check_given(cell: Any, inputs: PyTree, found: Weights) -> None:
    """Raises ValueError, which lists the variables, if `cell` or `inputs` is None."""
    shapes = listed(f"{name} {list(np.shape(value))}" for name, value in found.items())
    what = "the unbound cell of the TensorFlow script, such as `jaxrnn.LSTMCell(128)`"
    check_given("cell", cell, f"Found: {shapes}.", what)
    what = "one step of the inputs of `cell`, or its shapes"
    fix = "For example, pass `jax.ShapeDtypeStruct((1, 8), jnp.float32)`."
    check_given("inputs", inputs, fix, what)


def _save(name: str, cell: Any, scope: str, memory_scope: str) -> dict[str, np.ndarray]:
    if not isinstance(getattr(cell, "cell", None), FusedRNNCell):
        cell = as_bound(name, cell)
        for own, each in single_cells(name, cell):
            if type(each.cell) in KINDS:
                read_params(own, each)  # Raises an error for wrong parameters.
    return save_from(cell, scope, memory_scope)


_export(globals())
