"""Greedy decoding, sampling, beam search, scores and ensembles of models."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base import arguments, inputs, trees
from .._base.cell_keys import cell_at_step, check_key
from .._base.errors import Verbatim, describe, error_note, expect, is_array
from .._base.inputs import check_structure
from .._base.math import is_traced
from .._base.typing import Array, ArrayLike, AxisSize, DType, Key, PyTree, RNNCellLike
from .._drivers.arguments import check_is_cell
from .._run.first_step import call_start
from . import _beams as beams, _ids
from ._basic import BasicDecoder, BasicDecoderOutput, EmbeddingHelper
from ._beam_search import BeamSearchDecoder, BeamSearchDecoderState
from ._decoder import Decoder, dynamic_decode
from ._ids import Embed, Project

Model: TypeAlias = tuple[RNNCellLike, Embed, Project, PyTree, Array, int]
"""The first six arguments of all decoders, checked."""

_KEYS = ["cell", "embed", "initial_state", "project"]
_NO_END = -1  # The end id of a vocabulary without one, which is never chosen.


@trees.serializable
class Decoded(NamedTuple):
    """Decoded sequences of ids.

    Beam search adds a second axis `beam`, with the best beam first.

    Attributes:
        ids: The ids, int32 `[batch, max_time]`; past a row's length, `end_id` or, if
            that is None, -1.
        scores: The log-probability of a row's ids up to its length, including the end
            id, `[batch]`. Beam search divides the log-probability by the length
            penalty. -inf for a row that reached a step at which all logits are -inf.
        lengths: The number of ids, including the end id, int32 `[batch]`; `max_time`
            for rows without an end id; 0 for rows with score -inf.
    """

    ids: Array
    scores: Array
    lengths: Array


def greedy(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int | None,
    max_time: int,
) -> Decoded:
    """Decodes greedily: chooses the most likely id at each step.

    If several ids are equally likely, the lowest id is chosen. The loop ends when all
    rows are finished, at the latest after `max_time` steps. Scores are differentiable
    with respect to the arrays in `embed`, `project`, the cell and the initial state,
    with the ids held constant.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. `ids` may hold `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int; None if the vocabulary has no such id.
        max_time: The maximum number of ids in a row, an int, or symbolic under
            `jax.export`.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are float32, or float64 if the state or the inputs contain float64. A row that
        reaches a step at which all of its logits are -inf has score -inf and length 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or `end_id` is not in the vocabulary.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn.decode
        >>> cell = jaxrnn.GRUCell(4)
        >>> table = jnp.eye(6, 4, dtype=jnp.float32)  # Six ids.
        >>> params = cell.init(jax.random.key(0), table[:2])
        >>> decoded = jaxrnn.decode.greedy(
        ...     cell.bind(params),
        ...     embed=lambda ids: table[ids],
        ...     project=lambda output: output @ table.T,
        ...     initial_state=cell.zero_state(2, jnp.float32),
        ...     start_ids=jnp.array([1, 2]),
        ...     end_id=0,
        ...     max_time=5,
        ... )
        >>> decoded.ids.shape, decoded.scores.shape, decoded.lengths.shape
        ((2, 5), (2,), (2,))

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    model = _checked(cell, embed, project, initial_state, start_ids, end_id)
    return _extended(model, max_time, _ids.most_likely)


def sample(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int | None,
    max_time: int,
    key: Key,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> Decoded:
    """Decodes by sampling: draws ids at random, independently for each row.

    The loop ends when all rows are finished, at the latest after `max_time` steps. To
    draw several samples per row, repeat the rows, which is faster than `jax.vmap` over
    keys.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`. `ids` may hold `end_id`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int; None if the vocabulary has no such id.
        max_time: The maximum number of ids in a row, an int, or symbolic under
            `jax.export`.
        key: A random key. Position t, counted from 0, uses `fold_in(key, t)`.
        temperature: The positive divisor of the logits, a number or an array scalar,
            which may be traced.
        top_k: The number of most likely ids to draw from, an int; None or a number
            above the vocabulary's size selects all ids. If ids are equally likely, the
            lowest ids are selected.
        top_p: A probability in (0, 1], a number or an array scalar, which may be
            traced. Ids are drawn from the smallest set of most likely ids whose total
            probability, after temperature and `top_k`, is at least `top_p`. None for
            all ids.

    Returns:
        `Decoded`: ids `[batch, max_time]`, scores `[batch]`, lengths `[batch]`. Scores
        are log-probabilities without temperature, `top_k` and `top_p`, in float32, or
        in float64 if the state or the inputs contain float64. A row that reaches a step
        at which all of its logits are -inf has score -inf and length 0. If a traced
        `temperature` or `top_p` is NaN, so are the scores.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, a number is outside its range, or `end_id`
            is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1805.04833 for `top_k`;
    arXiv:1904.09751 for `top_p`.
    """
    model = _checked(cell, embed, project, initial_state, start_ids, end_id)
    check_key(key)
    fix = "To choose the most likely id, use `greedy`."
    _ids.as_number("temperature", temperature, fix, low=0)
    fix = "To draw from all ids, pass None."
    if top_k is not None:
        top_k = arguments.as_count("top_k", top_k, 1, fix)
    if top_p is not None:
        _ids.as_number("top_p", top_p, fix, low=0, high=1)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    draw = functools.partial(_ids.draw, key=key, **options)
    decoded = _extended(model, max_time, draw)
    scores = decoded.scores
    for number in (temperature, top_p):
        if is_traced(number):  # With NaN, every draw returns the same id.
            number = jnp.asarray(number, scores.dtype)
            scores = jnp.where(jnp.isnan(number), number, scores)
    return decoded._replace(scores=scores)


def beam_search(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int | None,
    max_time: int,
    beam_width: int,
    *,
    length_penalty: ArrayLike = 0.0,
) -> Decoded:
    """Decodes by beam search: keeps the `beam_width` best sequences of each example.

    The score of a sequence is its log-probability divided by `((5 + length) / 6) **
    length_penalty`. A finished sequence is not extended; its score competes with the
    scores of the other sequences. The loop ends when all beams of all examples are
    finished, at the latest after `max_time` steps.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol. It runs
            on `batch * beam` rows; apply `tile_beams` to memories that the cell closes
            over.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids
            `[batch * beam]`: a nest of arrays with `batch * beam` rows.
        project: `project(output)`, which returns the logits `[batch * beam, vocab]` for
            the cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a sequence, an int; None if the vocabulary has no such
            id.
        max_time: The maximum number of ids in a sequence, an int, or symbolic under
            `jax.export`.
        beam_width: The number of beams, an int, at most 65,536.
        length_penalty: The exponent of the length penalty, a number or an array scalar,
            which may be traced; 0 for no penalty.

    Returns:
        `Decoded`: ids `[batch, beam, max_time]`, scores `[batch, beam]`, lengths
        `[batch, beam]`, with the best beam first. If an example has fewer possible
        sequences than beams, the remaining beams have score -inf and length 0. Scores
        are float32, or float64 if the state or the inputs contain float64.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `beam_width` is out of range, the state
            contains a TensorArray, or `end_id` is not in the vocabulary.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`; arXiv:1609.08144.
    """
    model = _checked(cell, embed, project, initial_state, start_ids, end_id)
    cell, embed, project, state, ids, end = model
    width = beams.as_width("beam_width", beam_width)
    penalty = _ids.as_number("length_penalty", length_penalty, beams.NO_PENALTY)
    state = beams.tile("initial_state", state, width)
    embed, project = _on_rows(embed, project, (ids.shape[0], width), end)
    search = _Search(cell, embed, ids, end, state, width, project, penalty)
    return _run(search, end, max_time)


def score(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int | None,
    ids: ArrayLike,
) -> Array:
    """The log-probability of each given sequence, up to and including its end id.

    For sequences from `greedy`, `sample`, or `beam_search` without a length penalty,
    the result equals, up to rounding, the `scores` in the `Decoded` that contains the
    sequences. If a sequence has no end id, all of its ids count. Ids after an end id
    have no effect, so you can use `end_id` as padding. Ignore the results for beams
    with score -inf, which `beam_search` could not fill. Such a beam contains only
    `end_id`, so `score` returns the log-probability of the first `end_id`, or NaN if
    `end_id` is None.

    Args:
        cell: A bound cell, or any object that implements the RNNCell protocol.
        embed: `embed(ids)`, which returns the cell's inputs for int32 ids `[batch]`: a
            nest of arrays `[batch, ...]`.
        project: `project(output)`, which returns the logits `[batch, vocab]` for the
            cell's output.
        initial_state: The cell's initial state, each leaf `[batch, ...]` or a scalar.
        start_ids: The ids for the first step, integers `[batch]` below 2**31.
        end_id: The id that ends a row, an int; None if the vocabulary has no such id.
        ids: Integers `[batch, time]`, or `[batch, beam, time]` for several sequences
            per row. In the second case, the cell, `embed` and `project` run on
            `batch * beam` rows, as in `beam_search`; apply `tile_beams` to memories
            that these functions read.

    Returns:
        The scores, `[batch]` or `[batch, beam]`, in float32, or in float64 if the state
        or the inputs contain float64. The scores are differentiable with respect to the
        arrays in `embed`, `project`, the cell and the initial state. A sequence has the
        score -inf if one of its ids has a logit of -inf, and the score NaN if an id up
        to its end id is outside the vocabulary.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, `end_id` is not in the vocabulary, or `ids`
            has an axis `beam` and the state contains a TensorArray.

    Source: `loop_fn` of `tf.compat.v1.nn.raw_rnn`.
    """
    model = _checked(cell, embed, project, initial_state, start_ids, end_id)
    cell, embed, project, state, start, end = model
    given = _given_ids(ids, start.shape[0], end)
    *shape, time = given.shape
    note = contextlib.nullcontext()
    if len(shape) == 2:
        state = beams.tile("initial_state", state, shape[1])
        start = beams.repeated(start, shape[1])
        note = error_note(beams.ON_BEAMS.format(start.shape[0]))
    given = given.reshape(math.prod(shape), time)
    model = cell, embed, project, state, start, end
    with note:
        found = _extended(model, time, lambda logits, t: given[:, t])
    return found.scores.reshape(shape)


def _given_ids(ids: ArrayLike, rows: int, end_id: int) -> Array:
    """The ids `[batch, time]` or `[batch, beam, time]`, with `end_id` after an end id.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the ids have another shape.
    """
    what = f"integers [{rows}, time] or [{rows}, beam, time]"
    given = _ids.as_ids("ids", ids, what, (rows, None), (rows, None, None))
    # JAX would count negative ids from the end of the vocabulary. Replace each negative
    # id with an id that is too large, for which `score` returns NaN as documented.
    given = jnp.where(given < 0, arguments.INT32_MAX, given)
    # Ids after the end have no effect, but are read. They may be out of range.
    is_end = given == end_id
    ends = jnp.cumsum(is_end, axis=-1, dtype=jnp.int32)
    return jnp.where((ends > 0) & ~is_end, end_id, given)


def _checked(
    cell: RNNCellLike,
    embed: Embed,
    project: Project,
    initial_state: PyTree,
    start_ids: ArrayLike,
    end_id: int | None,
) -> Model:
    """Checks the first six arguments of all decoders.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, or `end_id` is negative.
    """
    state = _as_state(cell, embed, project, initial_state)
    ids = _ids.as_start_ids("start_ids", start_ids)
    fix = "Pass an id of the vocabulary or, if no id ends a row, None."
    end = _NO_END if end_id is None else arguments.as_count("end_id", end_id, 0, fix)
    inputs.check_rows_of_state(state, ids.shape[0], "like `start_ids`")
    what = "`initial_state` (see `cell.state_size`)"
    own = trees.opaque(trees.without_read_only(state))
    check_structure(what, cell.state_size, own, strict=True)
    state = trees.with_tuples_of(cell.state_size, state)
    return cell, embed, project, state, ids, end


def _as_state(
    cell: RNNCellLike, embed: Embed, project: Project, initial_state: PyTree
) -> PyTree:
    """Checks the parts of a model; returns the state with arrays as leaves.

    Raises:
        TypeError: If a part has the wrong type.
        ValueError: If the state contains None.
    """
    check_is_cell("cell", cell)
    fix = "For a table of embeddings, pass `lambda ids: table[ids]`."
    arguments.check_function("embed", embed, "a function of ids [batch]", fix)
    fix = "For a kernel, pass `lambda output: output @ kernel`."
    what = "a function of the cell's output"
    arguments.check_function("project", project, what, fix)
    return inputs.as_arrays("initial_state", initial_state)


def _on_rows(
    embed: Embed, project: Project, shape: tuple[int, ...], end_id: int
) -> tuple[Embed, Project]:
    """Adapts functions of flat rows to ids of this shape, and checks their results.

    Args:
        embed: As in `greedy`.
        project: As in `greedy`.
        shape: `[batch]`, or `[batch, beam]`; the given functions run on all rows.
        end_id: The id that ends a row, which must be in the vocabulary.
    """
    rows = math.prod(shape)

    def embed_all(ids: Array) -> PyTree:
        ids = ids.reshape(rows)
        with error_note(f"Raised by `embed`, called with ids {describe(ids)}."):
            inputs = embed(ids)
        for name, leaf in trees.named_leaves("embed(ids)", inputs):
            fits = is_array(leaf) and leaf.shape[:1] == (rows,)
            must = f"be an array [{rows}, ...], one row for each id"
            expect(fits, name, must, leaf)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), inputs)

    def project_all(output: PyTree) -> Array:
        output = jax.tree.map(lambda x: jax.lax.collapse(x, 0, len(shape)), output)
        with error_note("Raised by `project`, called with the cell's output."):
            logits = _ids.as_logits(project(output), (rows,))
        vocab = logits.shape[1]
        must = f"be less than {vocab}, the number of logits of each row"
        expect(end_id < vocab, "end_id", must, end_id)
        return logits.reshape(*shape, vocab)

    return embed_all, project_all


def _extended(
    model: Model, max_time: AxisSize, choose: Callable[[Array, Array], Array]
) -> Decoded:
    """Extends each row by the ids that `choose(logits, time)` returns."""
    cell, embed, project, state, ids, end = model
    embed, project = _on_rows(embed, project, ids.shape, end)
    helper = EmbeddingHelper(embed, ids, end, choose)
    return _run(_Scored(cell, helper, state, project), end, max_time)


def _run(decoder: Decoder, end_id: int, max_time: AxisSize) -> Decoded:
    """Runs a decoder that returns a `Decoded` of the steps that ran, time first."""
    fix = "Pass the largest number of ids per row."
    limit = arguments.as_axis_size("max_time", max_time, fix)
    found, _, _ = dynamic_decode(decoder, True, True, max_time=limit)
    lengths = jnp.where(_ids.is_minus_infinity(found.scores), 0, found.lengths)
    ids = jnp.moveaxis(beams.to_time(found.ids, limit), 0, -1)
    time = jnp.arange(ids.shape[-1], dtype=lengths.dtype)
    inside = jnp.broadcast_to(time, ids.shape) < lengths[..., None]
    ids = jnp.where(inside, ids, jnp.asarray(end_id, ids.dtype))
    return Decoded(ids, found.scores, lengths)


class _Scored(BasicDecoder):
    """Emits ids, and sums their log-probabilities in its state."""

    @functools.cached_property
    def _output_types(self) -> PyTree:
        return ()  # Steps do not emit the logits.

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns `(finished, inputs, (cell_state, scores))`."""
        finished, inputs, cell_state = super().initialize()
        dtype = _ids.score_dtype((self._initial_state, inputs))
        return finished, inputs, (cell_state, jnp.zeros_like(finished, dtype))

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[BasicDecoderOutput, PyTree, PyTree, Array]:
        """Extends each row by one id; a row without a possible id ends."""
        cell_state, scores = state
        emit, cell_state, inputs, over = super().step(time, inputs, cell_state)
        logits, ids = emit
        log_probs = _ids.log_softmax(logits.astype(scores.dtype))
        gain = jnp.take_along_axis(log_probs, ids[:, None], axis=1)[:, 0]
        is_dead_end = jnp.all(_ids.is_minus_infinity(log_probs), axis=1)
        emit = BasicDecoderOutput((), ids)
        return emit, (cell_state, scores + gain), inputs, over | is_dead_end

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the ids of each row, with their score and length, and the state."""
        _, scores = final_state
        return Decoded(outputs.sample_id, scores, sequence_lengths), final_state


class _Search(BeamSearchDecoder):
    """A beam search in which the beams of an example finish together.

    The lengths in the scores count the end id. Steps emit no scores.
    """

    tracks_own_finished = property(lambda self: False)
    _impossible = -jnp.inf
    output_dtype: Any = property(lambda self: (jnp.int32, jnp.int32))
    output_size: Any = property(
        lambda self: (trees.TensorShape([self._beam_width]),) * 2
    )

    def initialize(self, name: str | None = None) -> tuple[Array, PyTree, PyTree]:
        """Returns `(finished, inputs, state)` before the first step."""
        _, inputs, state = super().initialize()
        return _all_finished(state), inputs, state

    def step(
        self, time: Array, inputs: PyTree, state: PyTree, name: str | None = None
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        """Extends the beams of each example by one id and keeps the best beams."""
        (_, *emit), state, inputs, _ = super().step(time, inputs, state)
        return tuple(emit), state, inputs, _all_finished(state)

    def finalize(
        self, outputs: PyTree, final_state: PyTree, sequence_lengths: Array
    ) -> tuple[PyTree, PyTree]:
        """Returns the ids of the final beams, with their scores, and the state."""
        steps = jnp.max(sequence_lengths, axis=1)
        ids, parents = outputs
        ids = beams.ids_along_paths(ids, parents, steps, self._end_token)
        _, log_probs, _, lengths, _ = final_state
        scores = beams.penalized(log_probs, lengths, self._length_penalty)
        return Decoded(ids, scores, lengths), final_state

    def _score(
        self, penalty: ArrayLike, log_probs: Array, lengths: Array, ends: Array
    ) -> Array:
        return beams.penalized(log_probs, lengths, self._length_penalty)


def _all_finished(found: BeamSearchDecoderState) -> Array:
    """Whether all beams of an example are finished or impossible, `[batch, beam]`."""
    over = found.finished | _ids.is_minus_infinity(found.log_probs)
    return jnp.broadcast_to(jnp.all(over, axis=1, keepdims=True), over.shape)


def ensemble(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines models into one model that predicts the mean of their probabilities.

    Pass the result to any decoder or to `score`:

        together = decode.ensemble([model_a, model_b])
        decode.beam_search(
            **together, start_ids=start_ids, end_id=0, max_time=20, beam_width=4
        )

    The models may have different cells, sizes and states, but must share a vocabulary.

    Args:
        models: A list or tuple with one dict per model. Each dict holds the arguments
            `cell`, `embed`, `project` and `initial_state`; see `greedy`.

    Returns:
        A dict of the same four arguments, for all models at once. Inputs, states and
        outputs are tuples with one entry per model. `project` returns the logarithm of
        the mean of the models' probabilities, in float32 or float64. A model whose
        logits in a row are all -inf has probability 0 for every id of the row.

    Raises:
        TypeError: If `models` is not a list or tuple of dicts, or a value in a dict has
            the wrong type.
        ValueError: If `models` is empty, or a dict does not have exactly the keys
            `cell`, `embed`, `project` and `initial_state`; in the loop, if the models'
            logits differ in shape.
    """
    arguments.check_instance("models", models, list | tuple, "a list of dicts")
    expect(models, "models", "hold at least one model", models)
    states = []
    for i, model in enumerate(models):
        with error_note(f"Raised for `models[{i}]`."):
            must = f"have the keys {', '.join(_KEYS)}"
            fix = "Pass arguments such as `start_ids` to the decoding function."
            keys = sorted(model)
            expect(keys == _KEYS, f"models[{i}]", must, Verbatim(keys), fix)
            states.append(_as_state(**model))

    def embed(ids: Array) -> tuple[PyTree, ...]:
        return tuple(model["embed"](ids) for model in models)

    def project(outputs: tuple[PyTree, ...]) -> Array:
        pairs = zip(models, outputs, strict=True)
        return _log_mean([model["project"](output) for model, output in pairs])

    return {
        "cell": _Cells(tuple(model["cell"] for model in models)),
        "embed": embed,
        "project": project,
        "initial_state": tuple(states),
    }


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

    state_size = property(lambda self: tuple(c.state_size for c in self.cells))
    output_size = property(lambda self: tuple(c.output_size for c in self.cells))

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The zero states of all cells."""
        return tuple(cell.zero_state(batch_size, dtype) for cell in self.cells)

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
