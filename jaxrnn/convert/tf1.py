"""Weights of TensorFlow's v1 cells, by variable name.

    reader = tf.train.load_checkpoint("model.ckpt")
    cell = jaxrnn.convert.tf1.load(reader, scope="encoder/rnn")
    outputs, state = jaxrnn.dynamic_rnn(cell, x, dtype=x.dtype)

TensorFlow and jaxrnn use the same layout, so arrays are copied unchanged. Each cell
becomes the jaxrnn cell of the same name, and a `MultiRNNCell` becomes a `MultiRNNCell`.
The forget bias, the activation and the clips are not stored in variables, so these are
arguments of `load` and `save`. `save` raises an error if the cell's hyperparameters
differ from the arguments.

To load a cell of `jaxrnn.contrib`, a wrapped cell, or a stack that contains one of
these cells, pass the unbound cell, which has the hyperparameters that variables do not
store:

    cell = jaxrnn.contrib.HighwayWrapper(jaxrnn.contrib.NASCell(128))
    inputs = jax.ShapeDtypeStruct((1, 128), jax.numpy.float32)
    cell = jaxrnn.convert.tf1.load(reader, cell=cell, inputs=inputs)

The memory layers of an `AttentionWrapper` are in the scope where the script created the
attention mechanisms. The wrapper's other variables are in the scope of the loop, which
is "decoder" for `dynamic_decode`:

    cell = jaxrnn.convert.tf1.load(
        reader, "decoder", cell=attention, inputs=inputs, memory_scope=""
    )
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import as_bool, check_instance
from .._base.errors import Verbatim, name_of
from .._base.expect import expect
from .._base.modules import export as _export
from .._base.typing import PyTree, Shaped
from .._cells.bound import BoundCell
from .._cells.fields import resolve_activation
from .._cells.lstm import LSTMCell
from ..contrib import FusedRNNCell
from ._bound_cells import Cells, as_bound, as_pairs, read_params, single_cells
from ._layer_weights import ActivationLike
from ._tf1_names import (
    Hyper,
    grouped,
    guess_cell,
    is_cudnn_lstm,
    is_guessed,
    join,
    load_into,
    save_from,
    variables_in,
)
from ._weights import Weights, listed, pick

__all__ = ["load", "save"]


_DIRECTIONS = ("fw", "bw")
_BOTH = "bidirectional_rnn"  # The scope of both directions.
_LAYER = re.compile(r"cell_\d+")
_STACK = re.compile(r"^multi_rnn_cell_\d+")


def load(
    variables: Any,
    scope: str | None = None,
    *,
    bidirectional: bool = False,
    cell: Any = None,
    inputs: Shaped | PyTree = None,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
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
            directions, pass everything before `fw` and `bw` or, for a stack, before
            `cell_0`; for a stack from `tf.contrib.rnn`, the scope ends with
            "stack_bidirectional_rnn". None stands for "rnn", or for "bidirectional_rnn"
            if `bidirectional`.
        bidirectional: Whether the scope belongs to one or several stacked
            `bidirectional_dynamic_rnn`s.
        cell: The unbound cell to load. Required for cells of `jaxrnn.contrib` and for
            wrappers. If None, `load` infers the cell from the variables. `load` looks
            in `scope` for the name `cell.name`, or for TensorFlow's default name. A
            `cell` cannot be combined with `bidirectional`.
        inputs: One step of the inputs of `cell`, or its shapes, as for `cell.init`.
            Required with `cell`.
        memory_scope: The scope where the script created the mechanisms of an
            `AttentionWrapper`; this scope contains `memory_layer`. "" for no scope.
        forget_bias: The forget bias of LSTMs. A `cudnn_compatible_lstm_cell` always has
            a forget bias of 0.
        activation: The activation of the cells; None for tanh.
        cell_clip: The `cell_clip` of `LSTMCell`s.
        proj_clip: The `proj_clip` of `LSTMCell`s.

    Returns:
        `cell`, bound to its parameters. Without `cell`, a bound `BasicRNNCell`,
        `BasicLSTMCell`, `LSTMCell`, `GRUCell` or `CudnnCompatibleGRUCell`; for a stack,
        even of one cell, a bound `MultiRNNCell`. For two directions,
        `(cells_fw, cells_bw)` for `stack_bidirectional_dynamic_rnn`, each with one cell
        per layer of the stack. Without a stack, each tuple has one cell, which may be a
        bound `MultiRNNCell`.

    Raises:
        TypeError: If `variables` is neither a mapping nor a reader, a weight is not a
            floating-point array, `cell` is not an unbound cell, or `inputs` is given
            without `cell`.
        ValueError: If the scope contains no cell or several cells, or `bidirectional`
            does not fit the scope; if a weight is missing, unknown, or has the wrong
            shape; if a clip is given, but the scope contains no `LSTMCell`; if `cell`
            is given without `inputs`, or together with a hyperparameter or
            `bidirectional`; if two layers of `cell` are the same object, but the
            variables of the layers differ; if `memory_scope` is given and `cell` has no
            attention.

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
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    scope = _as_scope(scope, bidirectional)
    check_instance("memory_scope", memory_scope, str, "a string")
    if cell is not None or inputs is not None:
        _check_no_options(hyper, bidirectional)
        return load_into(cell, inputs, variables, scope, memory_scope)
    own = variables_in(variables, scope)
    load_layers = _load_pairs if bidirectional else _load_one
    return load_layers(scope, own, hyper, memory_scope)


def save(
    cell: Cells,
    scope: str | None = None,
    *,
    bidirectional: bool = False,
    memory_scope: str = "",
    forget_bias: float = 1.0,
    activation: ActivationLike = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> dict[str, np.ndarray]:
    """Returns a cell's variables, by their names in a TensorFlow graph, without ":0".

    In a session, `variable.load(arrays[variable.op.name], session)` assigns the
    returned `arrays` to the variables.

    The forget bias, the activation and the clips are not stored in variables. Pass the
    same values to this function, to `load` and to the constructors of TensorFlow's
    cells.

    Args:
        cell: A bound cell. `load` requires the argument `cell` for wrappers, cells of
            `jaxrnn.contrib`, custom cells, cells with a `name`, stacks that contain one
            of these cells, and stacks whose cells differ in a hyperparameter. For these
            cells, `save` accepts any hyperparameters, because `cell` holds them. If
            several layers of a stack are the same object, `save` stores the shared
            variables in the scope of each layer, so that `load` finds them without
            `cell`. TensorFlow itself stores only the first copy. For two directions,
            the pair `(cells_fw, cells_bw)`, each a list with one bound cell per layer.
        scope: As in `load`. Several layers of two directions become a stack.
        bidirectional: Whether `cell` is such a pair.
        memory_scope: As in `load`.
        forget_bias: The forget bias of the cell, if it is an LSTM.
        activation: The activation of the cell; None for tanh.
        cell_clip: The `cell_clip` of the cell, if it is an `LSTMCell`.
        proj_clip: The `proj_clip` of the cell, if it is an `LSTMCell`.

    Raises:
        TypeError: If `cell` is not a bound cell, or a parameter is not a floating
            array.
        ValueError: If the forget bias, the activation or a clip of the cell differs
            from the argument, two cells inside `cell` have the same scope, or the
            directions differ in the number of layers.
    """
    scope = _as_scope(scope, bidirectional)
    check_instance("memory_scope", memory_scope, str, "a string")
    hyper = Hyper(forget_bias, activation, cell_clip, proj_clip)
    if not bidirectional:
        return _save("cell", cell, scope, memory_scope, hyper)
    variables: dict[str, np.ndarray] = {}
    layers = as_pairs(cell)
    for i, layer in enumerate(layers):
        stacked = f"cell_{i}/{_BOTH}/" if len(layers) > 1 else ""
        for direction, (name, own) in zip(_DIRECTIONS, layer, strict=True):
            place = join(scope, stacked + direction)
            variables |= _save(name, own, place, memory_scope, hyper)
    return variables


def _as_scope(scope: str | None, bidirectional: object) -> str:
    default = _BOTH if as_bool("bidirectional", bidirectional) else "rnn"
    scope = default if scope is None else scope
    check_instance("scope", scope, str, "a string")
    return scope


def _check_no_options(hyper: Hyper, bidirectional: bool) -> None:
    """Raises ValueError for an option that cannot be given together with a cell."""
    must = "be omitted if `cell` is given"
    fix = "Load each direction from its scope, such as 'bidirectional_rnn/fw'."
    expect(not bidirectional, "bidirectional", must, bidirectional, fix)
    for name, value, default in zip(Hyper._fields, hyper, Hyper(), strict=True):
        fix = f"Pass `{name}` to the constructor of `cell`."
        expect(value == default, name, must, value, fix)


def _check_clips(hyper: Hyper, bound: Iterable[BoundCell]) -> None:
    """Raises ValueError if a clip is given, but no cell is an `LSTMCell`."""
    cells = [each for b in bound for each in getattr(b.cell, "cells", [b.cell])]
    if any(isinstance(each, LSTMCell) for each in cells):
        return
    for name in ("cell_clip", "proj_clip"):
        what = "None, because there is no lstm_cell to clip"
        expect(
            getattr(hyper, name) in (None,), name, f"be {what}", getattr(hyper, name)
        )


def _load_one(scope: str, own: Weights, hyper: Hyper, memory_scope: str) -> BoundCell:
    """Loads the cell of one direction."""
    heads = sorted(grouped(own))
    two = (*_DIRECTIONS, _BOTH)
    has_two = any(head in two or _LAYER.fullmatch(head) for head in heads)
    fix = f"Pass {_of_two(scope, heads)}, or the scope of one cell."
    place = scope or "variables"
    expect(not has_two, place, "hold one direction", listed(heads), fix)
    bound = _load_guessed(scope, own, hyper, memory_scope)
    _check_clips(hyper, [bound])
    return bound


def _of_two(scope: str, heads: Collection[str]) -> str:
    """The arguments that load both directions below a scope, for messages."""
    inner = f" and `scope={join(scope, _BOTH)!r}`" if _BOTH in heads else ""
    return f"`bidirectional=True`{inner}"


def _load_pairs(
    scope: str, own: Weights, hyper: Hyper, memory_scope: str
) -> tuple[tuple[BoundCell, ...], tuple[BoundCell, ...]]:
    """Loads the cells of both directions of each layer."""
    groups = grouped(own)
    layers = list(filter(_LAYER.fullmatch, groups))
    pairs = {scope: groups}
    if layers:
        pairs = {}
        for name in [f"cell_{i}" for i in range(len(layers))]:
            inner = grouped(pick(groups, name)).get(_BOTH, {})
            pairs[join(scope, f"{name}/{_BOTH}")] = grouped(inner)
    cells = [_load_both(*each, hyper, memory_scope) for each in pairs.items()]
    _check_clips(hyper, [cell for pair in cells for cell in pair])
    cells_fw, cells_bw = zip(*cells, strict=True)
    return cells_fw, cells_bw


def _load_guessed(
    scope: str, own: Weights, hyper: Hyper, memory_scope: str
) -> BoundCell:
    """Infers the cell from the variables in a scope and binds it."""
    cell, depth = guess_cell(scope, own, hyper)
    inputs = jax.ShapeDtypeStruct((1, depth), jnp.float32)
    # TensorFlow appends a number to the name of every further stack in a scope. A stack
    # in jaxrnn has no `name`, so remove the number.
    renamed = {_STACK.sub("multi_rnn_cell", name): x for name, x in own.items()}
    found = {join(scope, name): x for name, x in renamed.items()}
    return load_into(cell, inputs, found, scope, memory_scope)


def _load_both(
    scope: str, groups: Weights, hyper: Hyper, memory_scope: str
) -> list[BoundCell]:
    """Loads the cells of both directions of a layer."""
    must = "hold two directions, fw and bw"
    fix = "Omit `bidirectional` for one direction."
    if _BOTH in groups:
        fix = f"Pass {_of_two(scope, groups)}."
    has_both = groups.keys() & {*_DIRECTIONS}
    expect(has_both, scope or "variables", must, listed(groups), fix)
    own = {join(scope, name): pick(groups, name) for name in _DIRECTIONS}
    return [_load_guessed(*each, hyper, memory_scope) for each in own.items()]


def _save(
    name: str, cell: Any, scope: str, memory_scope: str, hyper: Hyper
) -> dict[str, np.ndarray]:
    """Checks that `load` can restore a cell, and returns the cell's variables."""
    if not isinstance(getattr(cell, "cell", None), FusedRNNCell):
        cell = as_bound(name, cell)
        _check_hyper(name, cell, hyper)
    return save_from(cell, scope, memory_scope)


def _check_hyper(name: str, bound: BoundCell, hyper: Hyper) -> None:
    """Raises ValueError for a hyperparameter that `load` would not restore.

    If `load` requires the argument `cell`, which holds the hyperparameters, this
    function raises no error. `load` also requires `cell` for a stack whose cells differ
    in a hyperparameter.
    """
    cells = single_cells(name, bound)
    if not all(is_guessed(each.cell) for _, each in cells):
        return
    for own, each in cells:
        read_params(own, each)  # Raises an error for wrong parameters.
    hyper = hyper._replace(activation=resolve_activation(hyper.activation))
    for field, want in hyper._asdict().items():
        found = {
            own: getattr(each.cell, field)
            for own, each in cells
            if hasattr(each.cell, field)
            and not (field == "forget_bias" and is_cudnn_lstm(each.cell))
        }
        values = set(found.values())
        for own, got in found.items():
            must = f"have {field} {name_of(want)}, like the argument of `save`"
            fix = f"Pass the same `{field}` to `save`, `load` and TensorFlow's cell."
            fits = len(values) > 1 or got == want
            text = name_of(got)
            if text == name_of(want):
                text = f"another function named {text}"
            expect(fits, own, must, Verbatim(text), fix)


_export(globals())
