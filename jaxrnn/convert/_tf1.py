"""Weights of TensorFlow's v1 cells, by variable name.

TensorFlow and jaxrnn use the same layout, so arrays are copied unchanged. A checkpoint
stores neither the class nor the arguments of a cell, so the caller passes an equivalent
jaxrnn cell. This cell may be wrapped, stacked, from `jaxrnn.contrib`, or your own.

The memory layers of an `AttentionWrapper` are in the scope where your TensorFlow script
created the attention mechanisms. The wrapper's other variables are in the scope of the
loop.
"""

import functools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

import jax
import numpy as np
from jax.tree_util import keystr

from .. import contrib
from .._base.arguments import check_given, check_instance
from .._base.errors import Verbatim, error_note, expect
from .._base.hints import with_hints
from .._base.inputs import check_concrete
from .._base.typing import Params, PyTree, Shaped
from .._cells.base import BoundCell, RNNCell, scope_name
from .._cells.wrappers.base import ParamsWrapper, WrapperCell, unwrapped
from .._cells.wrappers.multi_rnn import MultiRNNCell
from .._drivers.stack_bidirectional import init_stack_bidirectional
from ..contrib._fused import BoundFusedCell
from ._kinds import KINDS
from ._layer_weights import Cells, as_bound, layer_of, rows_of, single_cells
from ._weights import (
    Reader,
    Weights,
    as_mapping,
    as_prefix,
    check_directions,
    check_names,
    listed,
    on_device,
)

# Wrappers that have neither variables nor a scope of their own.
_BARE = WrapperCell, contrib.FusedRNNCellAdaptor, contrib.TimeReversedFusedRNN
_MEMORY_LAYER = "memory_layer"

UnboundT = TypeVar("UnboundT", bound=RNNCell)

Named: TypeAlias = list[tuple[str, PyTree]]
Variables: TypeAlias = dict[str, Callable[[], Any]]
"""Maps the name of each variable to a function that reads its value."""
# Converts a scope to the start of its variables' names: "encoder/rnn" to
# "encoder/rnn/", and "" to "".
_scope = functools.partial(as_prefix, mark="/")


@overload
def from_tf1(
    variables: object,
    *,
    at: str = "",
    cell: UnboundT,
    inputs: Shaped | PyTree,
    bidirectional: Literal[False] | None = None,
    memory_at: str = "",
) -> BoundCell[UnboundT]: ...


@overload
def from_tf1(
    variables: object,
    *,
    at: str = "",
    cell: object,
    inputs: Shaped | PyTree,
    bidirectional: bool | None = None,
    memory_at: str = "",
) -> Any: ...


@with_hints
def from_tf1(
    variables: object,
    *,
    at: str = "",
    cell: Any = None,
    inputs: Shaped | PyTree = None,
    bidirectional: bool | None = None,
    memory_at: str = "",
) -> Any:
    """Loads variables of TensorFlow 1 as a bound cell, or as cells of two directions.

    Checkpoints do not store the class and the options of a cell, so `cell` is required.

    Args:
        variables: A mapping from names to arrays, or a reader from
            `tf.train.load_checkpoint`. `from_tf1` ignores a ":0" at the end of names,
            optimizer slots (`.../kernel/Adam`), other scopes, and layers next to the
            cell (`dense/kernel`).
        at: The scope of the cell: everything in the variables' names before the cell's
            own name or `multi_rnn_cell`, e.g. "encoder/rnn". A final slash is optional.
            The scope ends with the `scope` argument of the loop, by default "rnn" for
            `dynamic_rnn` and "decoder" for `dynamic_decode`. To load a single
            direction, pass a scope like "bidirectional_rnn/fw". For two directions,
            pass everything before `fw` and `bw` or, for several layers, before
            `cell_0`. For a stack from `tf.contrib.rnn`, this scope ends with
            "stack_bidirectional_rnn". Use "" if the names begin with the cell.
        cell: The unbound cell to load, with the class and the arguments of the cell in
            the TensorFlow program that saved the variables. Required. `from_tf1` looks
            in `at` for the name `cell.name`, or for TensorFlow's default name, such as
            `lstm_cell`. If the variables have another name, such as `lstm_cell_1` or
            `cudnn_compatible_lstm_cell`, pass this `name` to the cell. For two
            directions, the pair `(cells_fw, cells_bw)`, each a cell or a list with one
            cell per layer. If this program passes one object for both directions, pass
            one cell for both, because TensorFlow stores the variables only in the scope
            `fw`.
        inputs: One step of inputs for `cell`, `[batch, depth]` or a nest, as arrays or
            `jax.ShapeDtypeStruct`s. Required.
        bidirectional: True requires that `cell` is a pair, False requires one cell. By
            default, both are accepted.
        memory_at: The scope in which the script created the mechanisms of an
            `AttentionWrapper`, i.e. everything before `memory_layer`. A final slash is
            optional.

    Returns:
        `cell`, bound to its parameters. For two directions, `(cells_fw, cells_bw)` for
        `stack_bidirectional_dynamic_rnn`, each with one bound cell per layer.

    Raises:
        TypeError: If `variables` is neither a mapping nor a reader, a weight is not a
            floating-point array, or `cell` is not an unbound cell.
        ValueError: If the scope contains no variables, or `cell` or `inputs` is not
            given, or `bidirectional` does not fit `cell`. If a weight is missing,
            unknown, or has the wrong shape. If a variable has different values with and
            without ":0". If two layers of `cell` are the same object, but the variables
            of the layers differ. If `memory_at` is given and `cell` has no attention.

    Example:
        >>> import jax, numpy as np, jaxrnn, jaxrnn.convert
        >>> shapes = {"rnn/lstm_cell/kernel:0": (8, 20), "rnn/lstm_cell/bias:0": (20,)}
        >>> variables = {name: np.ones(shape) for name, shape in shapes.items()}
        >>> step = jax.ShapeDtypeStruct((1, 3), np.float32)
        >>> options = {"cell": jaxrnn.LSTMCell(5), "inputs": step}
        >>> cell = jaxrnn.convert.from_tf1(variables, at="rnn", **options)
        >>> cell.cell.forget_bias, cell.params["kernel"].shape
        (1.0, (8, 20))
        >>> sorted(jaxrnn.convert.to_tf1(cell, at="encoder/rnn"))
        ['encoder/rnn/lstm_cell/bias', 'encoder/rnn/lstm_cell/kernel']
    """
    scope, memory = _scope("at", at), _scope("memory_at", memory_at)
    arrays = _opened(variables)
    what = "the unbound cell of the TensorFlow script, such as `jaxrnn.LSTMCell(128)`"
    check_given("cell", cell, f"Found: {listed(arrays)}.", what)
    check_given("inputs", inputs, "", "one step of the inputs of `cell`, or its shapes")
    rows = rows_of("cell", cell)
    check_directions("cell", len(rows[0]), bidirectional)
    sides = [[each for _, each in side] for side in zip(*rows, strict=True)]
    key = jax.random.key(0)
    if len(sides) == 2:
        init = functools.partial(init_stack_bidirectional, *sides, key, inputs)
    else:
        kinds = RNNCell | contrib.FusedRNNCell
        check_instance("cell", cell, kinds, "an unbound cell")
        init = lambda: [[cell.init(key, inputs)]]
    shapes, scopes = jax.eval_shape(init), _scopes(scope, rows)
    bound: list[list[BoundCell]] = [[] for _ in sides]
    # If TensorFlow runs a cell several times, it stores the variables once, in the
    # scope of the first run.
    firsts: dict[Hashable, str] = {}
    for row, *own, places in zip(rows, *shapes, scopes, strict=True):
        for side, (_, each), spec, place in zip(bound, row, own, places, strict=True):
            first = firsts.setdefault(_objects(each), place)
            is_held = any(name.startswith(place) for name in arrays)
            place = place if is_held else first
            side.append(_bind(arrays, memory, each, spec, place))
    return tuple(map(tuple, bound)) if len(bound) == 2 else bound[0][0]


@with_hints
def to_tf1(cell: Cells, *, at: str = "", memory_at: str = "") -> dict[str, np.ndarray]:
    """Returns a cell's variables as NumPy arrays, by their names in TensorFlow.

    The names do not end in ":0".

    In a session, `variable.load(arrays[variable.op.name], session)` assigns one of the
    returned `arrays` to a `variable` of the TensorFlow graph. The forget bias, the
    activation and the clips are not stored in variables, so pass the same values to the
    constructors of TensorFlow's cells.

    Args:
        cell: A bound cell. If several layers of a stack are the same object, `to_tf1`
            stores the shared variables in the scope of each layer. TensorFlow itself
            stores only the first copy. For two directions, the pair
            `(cells_fw, cells_bw)`, each a list with one bound cell per layer.
        at: The scope, as in `from_tf1`. Several layers of two directions get the names
            of `stack_bidirectional_dynamic_rnn`.
        memory_at: The scope of the memory layers, as in `from_tf1`.

    Raises:
        TypeError: If `cell` is not a bound cell, or a parameter is not a floating
            array.
        ValueError: If a parameter of a core cell is missing, unknown, or has the wrong
            shape. If two cells inside `cell` have the same scope, or the directions
            differ in the number of layers.
    """
    scope, memory = _scope("at", at), _scope("memory_at", memory_at)
    variables: dict[str, np.ndarray] = {}
    rows = rows_of("cell", cell)
    for row, places in zip(rows, _scopes(scope, rows), strict=True):
        for each, place in zip(row, places, strict=True):
            variables |= _save(*each, place, memory)
    return variables


def _scopes(scope: str, rows: Sequence[Sequence[object]]) -> list[list[str]]:
    """The scope of each layer's cells, such as ["rnn/fw/", "rnn/bw/"]."""
    places = [scope]
    if len(rows) > 1:
        places = [f"{scope}cell_{i}/bidirectional_rnn/" for i in range(len(rows))]
    ends = ("fw/", "bw/") if len(rows[0]) == 2 else ("",)
    return [[place + end for end in ends] for place in places]


def _opened(variables: Any) -> Variables:
    """Maps the names of variables to functions that read them; omits optimizer slots.

    Raises:
        TypeError: If `variables` is neither a mapping nor a checkpoint reader.
    """
    if hasattr(variables, "get_variable_to_shape_map"):
        # `variables` is a checkpoint reader.
        names = variables.get_variable_to_shape_map()
        get = variables.get_tensor
    else:
        fix = "Read a checkpoint with `tf.train.load_checkpoint(path)`."
        names = as_mapping("variables", variables, fix)
        get = names.__getitem__
    full: dict[str, list[str]] = {}
    for name in names:
        full.setdefault(str(name).removesuffix(":0"), []).append(name)
    own = {name: keys for name, keys in full.items() if not _is_slot(name, full)}
    return {name: functools.partial(_read, get, keys) for name, keys in own.items()}


def _read(get: Callable[[str], Any], keys: list[str]) -> Any:
    """Reads a variable, whose values with and without ":0" must be equal."""
    first = get(keys[0])
    for key in keys[1:]:
        _check_equal(str(key), get(key), str(keys[0]), first, "they name one variable")
    return first


def _objects(cell: RNNCell) -> Hashable:
    """Identifies the cells that own variables, to find layers that share an object."""
    cell = unwrapped(cell)
    is_stack = isinstance(cell, MultiRNNCell)
    return tuple(map(_objects, cell.cells)) if is_stack else id(cell)


def _is_slot(name: str, names: Weights) -> bool:
    """Whether `name` is an optimizer slot, such as "kernel/Adam" next to "kernel"."""
    levels = name.split("/")
    return any("/".join(levels[:i]) in names for i in range(1, len(levels)))


def _bind(
    variables: Variables, memory: str, cell: Any, shapes: PyTree, scope: str
) -> Any:
    """Binds a cell to the variables in a scope, after checks against `shapes`."""
    leaves, tree = jax.tree.flatten(shapes)
    numbered = tree.unflatten(range(len(leaves)))
    places = _full_names(cell, numbered, scope, memory)
    starts = [scope, memory + _MEMORY_LAYER]
    if not any(name.startswith(starts[1]) for name in places):
        starts.pop()
    inside = [name for name in variables if name.startswith(tuple(starts))]
    ends = tuple(name.removeprefix(scope).removeprefix(memory) for name in places)
    likely = [name for name in variables if name.endswith(ends)]
    there = listed(dict.fromkeys([*likely, *inside, *variables]))
    for start in starts:
        must = f"hold names that begin with {start!r} (see `at`, `memory_at`)"
        is_held = any(name.startswith(start) for name in variables)
        fix = ""
        if start.endswith("bw/"):
            fix = "If the script has one cell for both directions, pass one cell twice."
        expect(is_held, "variables", must, there, fix)
    # Shared parameters have a name in each layer that uses them. Read the first.
    names = {i: name for name, i in reversed(places.items())}
    wanted = {n: names[i] for n, i in places.items() if n in inside or names[i] == n}
    # Ignore variables outside the cell, e.g. the weights of an output layer.
    heads = {_head(name, scope) for name in wanted}
    own = [name for name in inside if _head(name, scope) in heads]
    fix = (
        "Check that `at`, and the cell's class, `name` and options (such as "
        f"`use_peepholes`), match the TensorFlow script. Found: {there}."
    )
    place = scope.removesuffix("/") or "variables"
    check_names(place, own, wanted, "the variables of `cell`", fix)
    found = {name: variables[name]() for name in wanted}
    for name, first in wanted.items():
        if name != first:
            why = "two layers of `cell` are the same object"
            fix = "Create a separate cell for each layer."
            _check_equal(name, found[name], first, found[first], why, fix)
    read = Reader(found)
    with error_note("Check the sizes in `cell`, and the depth of `inputs`."):
        arrays = [read(names[i], *leaf.shape) for i, leaf in enumerate(leaves)]
    return cell.bind(on_device(tree.unflatten(arrays)))


def _head(name: str, scope: str) -> str:
    """The scope and the next level of a name, such as "rnn/lstm_cell"."""
    outer = scope if name.startswith(scope) else ""
    return outer + name.removeprefix(outer).partition("/")[0]


def _check_equal(
    name: str, array: Any, first: str, other: Any, why: str, fix: str = ""
) -> None:
    """Raises ValueError unless two variables are equal, for the reason `why`."""
    reason = f"{why} and need equal values"
    check_concrete("variables", {name: array, first: other}, why=reason)
    must = f"equal `{first}`, because {why}"
    expect(np.array_equal(array, other), name, must, Verbatim("other values"), fix)


def _save(name: str, cell: Any, scope: str, memory: str) -> dict[str, np.ndarray]:
    if not isinstance(cell, BoundFusedCell):
        cell = as_bound(name, cell)
        for own, each in single_cells(name, cell):
            if type(each.cell) in KINDS:
                layer_of(own, each)  # Raises an error for wrong parameters.
    arrays = _full_names(cell.cell, cell.params, scope, memory)
    read = Reader(arrays)
    return {name: read(name, *np.shape(x)) for name, x in arrays.items()}


def _full_names(cell: object, params: Params, scope: str, memory: str) -> Params:
    """The parameters of a cell, by their names in a TensorFlow graph.

    Raises:
        ValueError: If two parameters have the same name, or `memory_at` is given
            for a cell without memory layers.
    """
    full: Params = {}
    layers = 0
    for name, value in _named(cell, params):
        place = scope + name
        if name.startswith("/"):
            number = f"_{layers}" if layers else ""
            place = f"{memory}{_MEMORY_LAYER}{number}/kernel"
            layers += 1
        fix = "Set the `name` of one cell to the cell's numbered scope in TensorFlow."
        must = "have only one variable per name"
        expect(place not in full, "cell", must, Verbatim(f"two `{place}`"), fix)
        full[place] = value
    must = "be omitted for a cell without an AttentionWrapper"
    expect(layers or not memory, "memory_at", must, memory)
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


def _held(cell: object, params: Params) -> Named:
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
    start = f"{scope}/" if scope else ""
    return [(k if k.startswith("/") else start + k, x) for k, x in pairs]
