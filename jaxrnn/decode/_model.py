"""`Model`, which all decoders run, and ensembles of models."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .._base import arguments, inputs, trees
from .._base.cell_keys import cell_at_step
from .._base.errors import Verbatim, expect
from .._base.math import concrete_or_none
from .._base.typing import Array, ArrayLike, DType, PyTree, RNNCellLike
from .._cells.fields import set_field
from .._drivers.arguments import check_is_cell
from .._run.arguments import check_rows_of_state
from .._run.first_step import call_start, rows_interact, zero_state
from . import _ids
from ._ids import Embed, Project


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network that predicts the next id of each row, and how the rows start and end.

    The functions may close over arrays, such as memories and tied embeddings, that are
    not parameters of the cell. Therefore, a model is not a pytree: under `jit` and
    `grad`, make the model inside the transformed function, from its arguments. To
    change some fields, use `dataclasses.replace`.

    Attributes:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. `ids` may hold `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int; None if the vocabulary has no such id.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If the shapes of the state and of `start_ids` do not match, or
            `end_id` is negative.

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
        ...     end_id=0,
        ... )
        >>> jaxrnn.decode.beam_search(model, max_time=5, beam_width=3).ids.shape
        (2, 3, 5)
    """

    cell: RNNCellLike
    embed: Embed
    project: Project
    initial_state: PyTree
    start_ids: ArrayLike
    end_id: int | None

    def __post_init__(self) -> None:
        check_is_cell("cell", self.cell)
        fix = "For a table of embeddings, pass `lambda ids: table[ids]`."
        arguments.check_function("embed", self.embed, "a function of ids [batch]", fix)
        fix = "For a kernel, pass `lambda output: output @ kernel`."
        what = "a function of the cell's output"
        arguments.check_function("project", self.project, what, fix)
        ids = _ids.as_start_ids("start_ids", self.start_ids)
        end = self.end_id
        if end is not None:
            fix = "Pass an id of the vocabulary or, if no id ends a row, None."
            end = arguments.as_count("end_id", end, 0, fix)
        state = inputs.as_arrays("initial_state", self.initial_state)
        fix = "Pass the state of each row once; `beam_search` repeats it."
        check_rows_of_state(state, ids.shape[0], "like `start_ids`", fix)
        what = "`initial_state` (see `cell.state_size`)"
        own = trees.opaque(trees.without_read_only(state))
        inputs.check_structure(what, self.cell.state_size, own, strict=True)
        state = trees.with_tuples_of(self.cell.state_size, state)
        set_field(self, "initial_state", state)
        set_field(self, "start_ids", ids)
        set_field(self, "end_id", end)


def check_model(name: str, model: Model) -> None:
    """Raises TypeError unless `model` is a `Model`."""
    names = ", ".join(field.name for field in dataclasses.fields(Model))
    fix = f"Make one with `jaxrnn.decode.Model({names})`."
    arguments.check_instance(name, model, Model, "a Model", fix)


def ensemble(models: Sequence[Model]) -> Model:
    """Combines models into one model that predicts the mean of their probabilities.

    Pass the result to any decoder or to `score`::

        together = decode.ensemble([model_a, model_b])
        decode.beam_search(together, max_time=20, beam_width=4)

    The models may have different cells, sizes and states, but must share a vocabulary
    and the ids with which rows start and end.

    Args:
        models: A list or tuple of models.

    Returns:
        A `Model` whose inputs, states and outputs are tuples with one entry per model.
        `project` returns the logarithm of the mean of the models' probabilities, in
        float32 or float64. A model whose logits in a row are all -inf has probability 0
        for every id of the row. Under `jit`, the values of the models' start ids are
        not compared; the ensemble uses those of the first model.

    Raises:
        TypeError: If `models` is not a list or tuple of models.
        ValueError: If `models` is empty, or the models' start ids or end ids differ; in
            the loop, if the models' logits differ in shape.
    """
    arguments.check_instance("models", models, list | tuple, "a list of models")
    expect(models, "models", "hold at least one model", models)
    for i, model in enumerate(models):
        check_model(f"models[{i}]", model)
    first = models[0]
    ends = [model.end_id for model in models]
    same = len({*ends}) == 1
    expect(same, "end_id", "be the same for all models", Verbatim(ends))
    starts = [concrete_or_none(model.start_ids) for model in models]
    known = [ids for ids in starts if ids is not None]
    same = all(np.array_equal(ids, known[0]) for ids in known)
    expect(same, "start_ids", "be the same for all models", Verbatim(known))

    def embed(ids: Array) -> tuple[PyTree, ...]:
        return tuple(model.embed(ids) for model in models)

    def project(outputs: tuple[PyTree, ...]) -> Array:
        pairs = zip(models, outputs, strict=True)
        return _log_mean([model.project(output) for model, output in pairs])

    cells = _Cells(tuple(model.cell for model in models))
    states = tuple(model.initial_state for model in models)
    return Model(cells, embed, project, states, first.start_ids, first.end_id)


def _log_mean(logits: list[Array]) -> Array:
    """The logarithm of the models' mean probabilities, `[batch, vocab]`."""
    rows = jax.tree.leaves(logits)[0].shape[:1]
    logits = [_ids.as_logits(each, rows) for each in logits]
    dtype = _ids.score_dtype(logits)
    wide = jnp.stack([each.astype(dtype) for each in logits])
    log_probs = _ids.log_softmax(wide)
    # If all models assign an id the probability 0, do not take the logarithm of this 0,
    # because the derivative of the logarithm at 0 is infinite.
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
        """Prepares the states that have read-only parts; see `RNNCell.start`."""
        return tuple(map(call_start, self.cells, state))

    def at_step(self, t: Array) -> "_Cells":
        """The cells, each with its random key for step `t`."""
        return _Cells(tuple(cell_at_step(cell, t) for cell in self.cells))

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs one step of each cell."""
        steps = zip(self.cells, inputs, state, strict=True)
        outputs, states = zip(*(cell(x, s) for cell, x, s in steps), strict=True)
        return outputs, states
