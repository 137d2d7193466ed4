"""`Model`, the network that functions such as `greedy` run, and `ensemble`."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from .._base import arguments, inputs, trees
from .._base.cell_keys import cell_at_step
from .._base.errors import Verbatim, expect
from .._base.hints import with_hints
from .._base.math import concrete_or_none
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._cells.fields import set_field
from .._drivers.arguments import check_is_cell
from .._run.arguments import check_rows_of_state
from .._run.first_step import call_start, rows_interact, zero_state
from . import _ids
from ._ids import Embed, Project


@with_hints
@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network that predicts the next id of each row, and how the rows start and end.

    A model is a pytree, so you can pass it to `jax.jit`, `jax.vmap` and `jax.tree.map`.
    Its leaves are the arrays of the cell, the initial state and the start ids. If
    `embed` or `project` is a pytree, such as `jax.tree_util.Partial(function, table)`
    or a module of Flax nnx, its arrays are also leaves.

    Functions that are not pytrees, and `eos_id`, are static under `jit`. JAX compiles
    again for each new function, and treats arrays that the function closes over as
    constants. If a function closes over traced arrays, create the model inside the
    transformed function.

    A model cannot be the argument of `jax.grad`, because its start ids are integers.
    Differentiate with respect to a floating-point field, such as `initial_state`, and
    call `dataclasses.replace` in the loss function.

    Attributes:
        cell: A bound cell, or any object that implements the RNNCell protocol. To pass
            the model to `jit`, the cell must be a pytree.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. `ids` may contain `eos_id`. A function that
            is not a pytree is stored as a `jax.tree_util.Partial`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output. Stored like `embed`.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        eos_id: The id that ends a row, an int, or None if no id ends a row.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If the shapes of the state and of `start_ids` do not match, or
            `eos_id` is negative.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.GRUCell(4)
        >>> table = jnp.eye(6, 4, dtype=jnp.float32)  # Six ids.
        >>> params = cell.init(jax.random.key(0), table[:2])
        >>> model = jaxrnn.decode.Model(
        ...     cell.bind(params),
        ...     embed=lambda ids: table[ids],
        ...     project=lambda output: output @ table.T,
        ...     initial_state=cell.zero_state(2, jnp.float32),
        ...     start_ids=jnp.array([1, 2]),
        ...     eos_id=0,
        ... )
        >>> jaxrnn.decode.beam_search(model, max_length=5, num_beams=3).ids.shape
        (2, 3, 5)
    """

    cell: RNNCellLike
    embed: Embed
    project: Project
    initial_state: PyTree
    start_ids: ArrayLike
    eos_id: int | None

    def __post_init__(self) -> None:
        check_is_cell("cell", self.cell)
        fix = "For a table of embeddings, pass `lambda ids: table[ids]`."
        arguments.check_function("embed", self.embed, "a function of ids [batch]", fix)
        fix = "For a kernel, pass `lambda output: output @ kernel`."
        what = "a function of the cell's output"
        arguments.check_function("project", self.project, what, fix)
        ids = _ids.as_start_ids("start_ids", self.start_ids)
        end = self.eos_id
        if end is not None:
            fix = "Pass an id of the vocabulary or, if no id ends a row, None."
            end = arguments.as_count("eos_id", end, 0, fix)
        state = inputs.as_arrays("initial_state", self.initial_state)
        fix = "Pass one state for each row, also to `beam_search`."
        check_rows_of_state(state, ids.shape[0], "like `start_ids`", fix)
        what = "`initial_state` (see `cell.state_size`)"
        own = trees.opaque(trees.without_read_only(state))
        inputs.check_structure(what, self.cell.state_size, own, strict=True)
        state = trees.with_tuples_of(self.cell.state_size, state)
        for name in ("embed", "project"):
            function = getattr(self, name)
            if jax.tree_util.all_leaves([function]):
                set_field(self, name, Partial(function))
        set_field(self, "initial_state", state)
        set_field(self, "start_ids", ids)
        set_field(self, "eos_id", end)


_LEAVES = ("cell", "embed", "project", "initial_state", "start_ids")


def _flatten(model: Model) -> tuple[list[tuple[Any, PyTree]], int | None]:
    fields = [(jax.tree_util.GetAttrKey(n), getattr(model, n)) for n in _LEAVES]
    return fields, model.eos_id


def _unflatten(eos_id: int | None, fields: Iterable[PyTree]) -> Model:
    """Creates a model without checks, because JAX may pass other leaves than arrays."""
    model = object.__new__(Model)
    vars(model).update(zip(_LEAVES, fields, strict=True), eos_id=eos_id)
    return model


jax.tree_util.register_pytree_with_keys(Model, _flatten, _unflatten)


def check_model(name: str, model: Model) -> None:
    """Raises TypeError unless `model` is a `Model`."""
    names = ", ".join(field.name for field in dataclasses.fields(Model))
    fix = f"Make one with `jaxrnn.decode.Model({names})`."
    arguments.check_instance(name, model, Model, "a Model", fix)


@with_hints
def ensemble(models: Sequence[Model]) -> Model:
    """Combines models into one model that predicts the mean of their probabilities.

    Pass the result to any decoder or to `score`::

        together = decode.ensemble([model_a, model_b])
        decode.beam_search(together, max_length=20, num_beams=4)

    The models may have different cells, sizes and states, but must share a vocabulary
    and the ids with which rows start and end.

    Args:
        models: A list or tuple of models.

    Returns:
        A `Model` whose inputs, states and outputs are tuples with one entry per model.
        `project` returns the logarithm of the mean of the models' probabilities, in
        float32 or float64. If all of a model's logits in a row are -inf, the model adds
        probability 0 for every id of the row. Under `jit`, the start ids of the first
        model are used, because their values cannot be compared.

    Raises:
        TypeError: If `models` is not a list or tuple of models.
        ValueError: If `models` is empty, or the models differ in `start_ids` or
            `eos_id`. In the loop, if the models' logits differ in shape.
    """
    arguments.check_instance("models", models, list | tuple, "a list of models")
    expect(models, "models", "hold at least one model", models)
    for i, model in enumerate(models):
        check_model(f"models[{i}]", model)
    first = models[0]
    ends = [model.eos_id for model in models]
    same = len({*ends}) == 1
    expect(same, "eos_id", "be the same for all models", Verbatim(ends))
    starts = [concrete_or_none(model.start_ids) for model in models]
    known = [ids for ids in starts if ids is not None]
    same = all(np.array_equal(ids, known[0]) for ids in known)
    expect(same, "start_ids", "be the same for all models", Verbatim(known))

    return Model(
        _Cells(tuple(model.cell for model in models)),
        Partial(_embed_all, [model.embed for model in models]),
        Partial(_project_all, [model.project for model in models]),
        initial_state=tuple(model.initial_state for model in models),
        start_ids=first.start_ids,
        eos_id=first.eos_id,
    )


def _embed_all(functions: list[Embed], ids: Array) -> tuple[PyTree, ...]:
    """The inputs of all cells."""
    return tuple(embed(ids) for embed in functions)


def _project_all(functions: list[Project], outputs: tuple[PyTree, ...]) -> Array:
    """The logarithm of the models' mean probabilities, `[batch, vocab]`."""
    pairs = zip(functions, outputs, strict=True)
    return _log_mean([project(output) for project, output in pairs])


def _log_mean(logits: list[Array]) -> Array:
    """The logarithm of the models' mean probabilities, `[batch, vocab]`."""
    rows = jax.tree.leaves(logits)[0].shape[:1]
    logits = [_ids.as_logits(each, rows) for each in logits]
    dtype = _ids.score_dtype(logits)
    wide = jnp.stack([each.astype(dtype) for each in logits])
    log_probs = _ids.log_softmax(wide)
    # Where all models assign the probability 0, do not compute log(0), because its
    # derivative is infinite.
    exists = jnp.any(~_ids.is_minus_infinity(log_probs), axis=0)
    summed = jax.nn.logsumexp(jnp.where(exists[None], log_probs, 0), axis=0)
    return jnp.where(exists, summed - math.log(len(logits)), -jnp.inf)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Cells:
    """Several cells that run as one cell; inputs, states and outputs are tuples."""

    cells: tuple[RNNCellLike, ...]

    @property
    def state_size(self) -> PyTree:
        """The sizes of the states of all cells."""
        return tuple(cell.state_size for cell in self.cells)

    @property
    def output_size(self) -> PyTree:
        """The sizes of the outputs of all cells."""
        return tuple(cell.output_size for cell in self.cells)

    @property
    def rows_interact(self) -> bool:
        """Whether rows affect each other in any cell."""
        return any(map(rows_interact, self.cells))

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The zero states of all cells."""
        return tuple(zero_state(cell, batch_size, dtype) for cell in self.cells)

    def start(self, state: PyTree) -> PyTree:
        """Prepares states for a run, e.g. the keys of a memory; see `RNNCell.start`."""
        return tuple(map(call_start, self.cells, state))

    def at_step(self, t: Array) -> "_Cells":
        """The cells, each with its random key for step `t`."""
        return _Cells(tuple(cell_at_step(cell, t) for cell in self.cells))

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs one step of each cell."""
        steps = zip(self.cells, inputs, state, strict=True)
        outputs, states = zip(*(cell(x, s) for cell, x, s in steps), strict=True)
        return outputs, states
