"""The decoders of seq2seq: contrib's results, draws, derivatives, and refusals.

`golden/README.md` describes the goldens.
"""
# ruff: noqa: E501 (One refusal a row.)

import functools
import inspect
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, drawn

import jaxrnn
from jaxrnn import contrib, decode

from ..golden import replay_seq2seq, store

END = replay_seq2seq.END
KEY = jax.random.key(7)
VOCAB, DEPTH, UNITS, TIME, BATCH = 6, 3, 4, 5, 3
TOLERANCES = {"float64": (1e-12, 1e-12), "float32": (1e-5, 3e-6)}
CASES = store.recorded("seq2seq")["cases"]
NAMES = [case["name"] for case in CASES]


# Contrib's results.


def compare(case, **how):
    for path, got, wanted in replay_seq2seq.pairs(case, **how):
        rtol, atol = 0, 0
        if store.is_float(wanted.dtype.name):
            rtol, atol = TOLERANCES[case["dtype"]]
            rtol, atol = (case["rtol"] or rtol, case["rtol"] or atol)
        # An entry that is a small sum of large terms is rounded as those are.
        finite = np.abs(wanted, where=np.isfinite(wanted), out=np.zeros(wanted.shape))
        atol *= max(1, finite[finite < 1e30].max(initial=0).item())
        wide = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(*wide, rtol, atol, equal_nan=False, err_msg=path)


@pytest.mark.fast(
    "training-impute",
    "greedy-impute",
    "attention-beam-3-coverage",
    "loss-00-ragged-float64",
    "tree-ragged",
)
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_same_as_contrib_under_jit(case):
    compare(case, jit=True, spare=3)


EAGER = "training-f32", "scheduled_embedding-always", "beam-5-early-penalty"
SOME = [c for i, c in enumerate(CASES) if i % 3 == 0 or c["name"] in EAGER]


@pytest.mark.fast("training-f32")
@pytest.mark.parametrize("case", SOME, ids=[case["name"] for case in SOME])
def test_same_as_contrib_outside_of_jit(case):
    compare(case, jit=False)


def test_goldens_end_early_late_and_never():
    """What would go unnoticed if all rows were alike."""
    for start in ("greedy", "beam-3", "beam-5"):
        found = set()
        for case in CASES:
            if case["name"].startswith(start):
                found |= set(store.arrays(case)["/results/lengths"].flat)
        assert {1, 2} <= found, start
        assert max(found) >= 6, start


# A model of our own.


def draw(*shape, seed=0, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


CELL = jaxrnn.GRUCell(UNITS)
TABLE, KERNEL = 2 * draw(VOCAB, DEPTH, seed=1), 2 * draw(UNITS, VOCAB, seed=2)
INPUTS = draw(BATCH, TIME, DEPTH, seed=3)
STATE = draw(BATCH, UNITS, seed=4)
LENGTHS = np.array([5, 2, 3])
START = np.array([2, 0, 5])
PARAMS = jax.tree.map(
    lambda x: draw(*x.shape, seed=5),
    jax.eval_shape(lambda: CELL.init(KEY, jnp.zeros((1, DEPTH)))),
)


BIAS = np.where(np.arange(VOCAB) == END, 2.5, 0.0)


def project(outputs):
    return outputs @ KERNEL + BIAS.reshape((1,) * (outputs.ndim - 1) + (-1,))


def basic(helper, cell=None, state=STATE, layer=project):
    cell = CELL.bind(PARAMS) if cell is None else cell
    return contrib.BasicDecoder(cell, helper, state, layer)


def beams(width, **options):
    tiled = contrib.tile_batch(STATE, width)
    given = CELL.bind(PARAMS), TABLE, START, END, tiled, width, project
    return contrib.BeamSearchDecoder(*given, **options)


def test_signatures_are_contribs():
    wanted = {
        "BasicDecoder": "cell, helper, initial_state, output_layer=None",
        "TrainingHelper": "inputs, sequence_length, time_major=False, name=None",
        "GreedyEmbeddingHelper": "embedding, start_tokens, end_token",
        "SampleEmbeddingHelper": "embedding, start_tokens, end_token, softmax_temperature=None, seed=None",
        "ScheduledEmbeddingTrainingHelper": "inputs, sequence_length, embedding, sampling_probability, time_major=False, seed=None, scheduling_seed=None, name=None",
        "ScheduledOutputTrainingHelper": "inputs, sequence_length, sampling_probability, time_major=False, seed=None, next_inputs_fn=None, auxiliary_inputs=None, name=None",
        "InferenceHelper": "sample_fn, sample_shape, sample_dtype, start_inputs, end_fn, next_inputs_fn=None",
        "CustomHelper": "initialize_fn, sample_fn, next_inputs_fn, sample_ids_shape=None, sample_ids_dtype=None",
        "BeamSearchDecoder": "cell, embedding, start_tokens, end_token, initial_state, beam_width, output_layer=None, length_penalty_weight=0.0, coverage_penalty_weight=0.0, reorder_tensor_arrays=True",
        "dynamic_decode": "decoder, output_time_major=False, impute_finished=False, maximum_iterations=None, parallel_iterations=32, swap_memory=False, scope=None",
        "sequence_loss": "logits, targets, weights, average_across_timesteps=True, average_across_batch=True, sum_over_timesteps=False, sum_over_batch=False, softmax_loss_function=None, name=None",
        "tile_batch": "t, multiplier, name=None",
        "gather_tree": "step_ids, parent_ids, max_sequence_lengths, end_token",
        "BasicDecoderOutput": "rnn_output, sample_id",
        "BeamSearchDecoderState": "cell_state, log_probs, finished, lengths, accumulated_attention_probs",
        "BeamSearchDecoderOutput": "scores, predicted_ids, parent_ids",
        "FinalBeamSearchDecoderOutput": "predicted_ids, beam_search_decoder_output",
    }
    for name, signature in wanted.items():
        got = inspect.signature(getattr(contrib, name)).parameters.values()
        got = [
            p.name if p.default is p.empty else f"{p.name}={p.default}"
            for p in got
            if p.kind is not p.KEYWORD_ONLY
        ]
        assert ", ".join(got) == signature, name


@pytest.mark.fast("True")
@pytest.mark.parametrize("compiled", [False, True])
def test_no_more_steps_than_inputs_or_maximum(compiled):
    """TensorFlow takes the lesser of both."""

    def steps(maximum):
        helper = contrib.TrainingHelper(draw(3, 4, DEPTH, seed=1), [4, 2, 3])
        run = lambda: contrib.dynamic_decode(basic(helper), maximum_iterations=maximum)
        outputs, _, lengths = (jax.jit(run) if compiled else run)()
        return outputs.rnn_output.shape[1], lengths.tolist()

    assert steps(9) == steps(None) == (4, [4, 2, 3])
    assert steps(3) == (3, [3, 2, 3])


@pytest.mark.fast("0", "5")
@pytest.mark.parametrize("maximum", [0, 2, 5, 9])
def test_a_traced_maximum_takes_what_a_static_one_does(maximum):
    def run(maximum, **options):
        helper = contrib.GreedyEmbeddingHelper(TABLE, START, END)
        decoder = basic(helper, layer=lambda outputs: outputs @ KERNEL)
        options["maximum_iterations"] = maximum
        outputs, state, lengths = contrib.dynamic_decode(decoder, **options)
        return outputs.rnn_output, state, lengths

    got = jax.jit(functools.partial(run, max_time=5))(maximum)
    want = jax.jit(run, static_argnums=0)(min(maximum, 5))
    assert got[0].shape[1] == 5
    cut = got[0][:, : min(maximum, 5)], *got[1:]
    chex.assert_trees_all_close(cut, want, rtol=1e-12)
    assert not got[0][:, maximum:].any()


class Scalar(contrib.Decoder):
    """Ends all rows at once, as decoders of spectrograms do."""

    batch_size, output_size, output_dtype = 3, jaxrnn.TensorShape([]), jnp.float32

    def __init__(self, first):
        self.first = first

    def initialize(self, name=None):
        return self.first, jnp.zeros(3), jnp.zeros(3)

    def step(self, time, inputs, state, name=None):
        return jnp.ones(3, jnp.float32), state, inputs, time >= 3


@pytest.mark.parametrize("first", [np.bool_(False), np.zeros(3, bool)])
@pytest.mark.parametrize("compiled", [False, True])
def test_finished_may_be_that_of_all_rows(first, compiled):
    run = lambda: contrib.dynamic_decode(Scalar(first), maximum_iterations=6)
    outputs, _, lengths = (jax.jit(run) if compiled else run)()
    assert lengths.tolist() == [4, 4, 4]
    assert outputs.sum() == 12


def test_greedy_is_that_of_decode():
    helper = contrib.GreedyEmbeddingHelper(TABLE, START, END)
    options = {"maximum_iterations": 9, "impute_finished": True}
    outputs, _, lengths = contrib.dynamic_decode(basic(helper), **options)
    want = decode.greedy(
        CELL.bind(PARAMS), TABLE.__getitem__, project, STATE, START, END, 9
    )
    np.testing.assert_array_equal(lengths, want.lengths)
    steps = outputs.sample_id.shape[1]
    inside = np.arange(steps) < np.asarray(lengths)[:, None]
    ids = np.where(inside, want.ids[:, :steps], 0)
    np.testing.assert_array_equal(outputs.sample_id, ids)
    assert 1 < len(set(lengths.tolist()))


@pytest.mark.slow
def test_beams_are_those_of_decode():
    found, state, _ = contrib.dynamic_decode(beams(4), maximum_iterations=9)
    want = decode.beam_search(
        CELL.bind(PARAMS), TABLE.__getitem__, project, STATE, START, END, 9, 4
    )
    steps = found.predicted_ids.shape[1]
    ids = jnp.swapaxes(want.ids, 1, 2)[:, :steps]
    np.testing.assert_array_equal(found.predicted_ids, ids)
    np.testing.assert_array_equal(state.lengths, want.lengths)
    chex.assert_trees_all_close(state.log_probs, want.scores, rtol=1e-12)


# Draws.


def helpers(key, probability=0.5, **seeds):
    return {
        "sample": contrib.SampleEmbeddingHelper(TABLE, START, END, 1.5, key=key),
        "embedding": contrib.ScheduledEmbeddingTrainingHelper(
            INPUTS, LENGTHS, TABLE, probability, key=key, **seeds
        ),
        "output": contrib.ScheduledOutputTrainingHelper(
            INPUTS, LENGTHS, probability, next_inputs_fn=lambda x: x[:, :3], key=key
        ),
    }


def decoded_by(helper):
    return contrib.dynamic_decode(basic(helper), maximum_iterations=TIME)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "embedding", "output"])
def test_draws_depend_on_the_key_alone(name):
    run = lambda key: decoded_by(helpers(key)[name])
    compiled = jax.jit(run)
    eager = run(KEY)
    chex.assert_trees_all_close(eager, compiled(KEY), rtol=1e-9, atol=1e-12)
    several = jax.vmap(lambda key: run(key)[0].sample_id)(jax.random.split(KEY, 8))
    assert len({str(ids) for ids in several.tolist()}) > 4


def test_samples_are_those_of_decode():
    ids = decoded_by(helpers(KEY)["sample"])[0].sample_id
    want = decode.sample(
        CELL.bind(PARAMS),
        TABLE.__getitem__,
        project,
        STATE,
        START,
        END,
        TIME,
        KEY,
        temperature=1.5,
    )
    inside = np.arange(TIME) < np.asarray(want.lengths)[:, None]
    np.testing.assert_array_equal(ids[inside], want.ids[inside])


def test_seeds_separate_draws():
    ids = lambda **seeds: decoded_by(helpers(KEY, 0.5, **seeds)["embedding"])[0][1]
    plain, other, scheduled = ids(), ids(seed=1), ids(scheduling_seed=1)
    np.testing.assert_array_equal(plain < 0, other < 0)
    assert (plain != other).any()
    assert ((plain < 0) != (scheduled < 0)).any()


@pytest.mark.slow
def test_frequencies_of_scheduled_sampling():
    probability, rows, time = np.array([0.0, 0.3, 1.0]), 3, 2000
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
    helper = contrib.ScheduledEmbeddingTrainingHelper(
        jnp.zeros((rows, time, DEPTH)),
        np.full(rows, time),
        TABLE,
        probability,
        key=KEY,
    )
    layer = lambda outputs: jnp.tile(jnp.asarray(logits), (outputs.shape[0], 1))
    run = lambda: contrib.dynamic_decode(basic(helper, layer=layer))[0].sample_id
    ids = np.asarray(jax.jit(run)())
    assert (ids[0] == -1).all()
    assert (ids[2] >= 0).all()
    assert abs((ids[1] >= 0).mean() - 0.3) < 0.05
    counts = np.bincount(ids[2], minlength=4) / time
    np.testing.assert_allclose(counts, np.exp(logits), atol=0.05)


# Derivatives and transformations.


def of_dynamic_rnn(params, inputs):
    outputs, state = jaxrnn.dynamic_rnn(CELL.bind(params), inputs, LENGTHS, STATE)
    inside = np.arange(TIME) < LENGTHS[:, None]
    return jnp.where(inside[..., None], project(outputs), 0), state


def of_decoder(params, inputs, **options):
    decoder = basic(contrib.TrainingHelper(inputs, LENGTHS), CELL.bind(params))
    outputs, state, _ = contrib.dynamic_decode(decoder, False, True, **options)
    return outputs.rnn_output, state


def test_training_is_that_of_dynamic_rnn_and_padding_does_not_matter():
    weights = draw(BATCH, TIME, VOCAB, seed=6), draw(BATCH, UNITS, seed=7)
    padding = (np.arange(TIME) >= LENGTHS[:, None])[..., None]

    def loss(run):
        total = lambda *args: sum(
            jnp.vdot(w, x) for w, x in zip(weights, run(*args), strict=True)
        )
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))

    want = loss(of_dynamic_rnn)(PARAMS, INPUTS)
    got = loss(of_decoder)(PARAMS, jnp.where(padding, jnp.nan, INPUTS))
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-12)
    values = of_decoder(PARAMS, INPUTS)
    chex.assert_trees_all_close(values, of_dynamic_rnn(PARAMS, INPUTS), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [True, jaxrnn.memory.Recompute()])
def test_memory_strategies_change_nothing(strategy):
    gradient = lambda **options: jax.jit(
        jax.grad(lambda p: of_decoder(p, INPUTS, **options)[0].sum())
    )(PARAMS)
    chex.assert_trees_all_close(gradient(swap_memory=strategy), gradient(), rtol=1e-9)


@pytest.mark.slow
def test_vmap_of_beams():
    def run(scale):
        decoder = beams(3, length_penalty_weight=scale)
        return contrib.dynamic_decode(decoder, maximum_iterations=6)

    scales = jnp.array([0.0, 1.5])
    batched = jax.jit(jax.vmap(run))(scales)
    for i, scale in enumerate(scales):
        one = jax.tree.map(lambda x, i=i: x[i], batched)
        chex.assert_trees_all_close(one, jax.jit(run)(scale), rtol=1e-9, atol=1e-12)


def in_shard_map(run):
    """`run(params, start, state)` with a row on each of four devices."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def of_device(params, start, state):
        # Summed over devices before the loop, whose length differs between them.
        return run(jax.lax.pcast(params, "d", to="varying"), start, state)

    rows = jax.P("d")
    specs = {"in_specs": (jax.P(), rows, rows), "out_specs": rows}
    return jax.shard_map(of_device, mesh=mesh, **specs)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_rows_are_divided_by_shard_map(search):
    def run(params, start, state):
        cell, kernel = CELL.bind(params["cell"]), params["kernel"]
        bias = 3 * BIAS  # Rows end early.
        layer = lambda x: x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))
        if search == "greedy":
            helper = contrib.GreedyEmbeddingHelper(params["table"], start, END)
            decoder = contrib.BasicDecoder(cell, helper, state, layer)
            outputs, final, n = contrib.dynamic_decode(decoder, False, True, 7)
            return outputs.rnn_output, (outputs.sample_id, n, final)
        tiled = contrib.tile_batch(state, 3)
        decoder = contrib.BeamSearchDecoder(
            cell, params["table"], start, END, tiled, 3, layer
        )
        outputs, final, _ = contrib.dynamic_decode(decoder, maximum_iterations=7)
        return final.log_probs, (outputs.predicted_ids, final.lengths)

    def loss(run, params):
        value, others = run(params, jnp.array([2, 0, 5, 3]), draw(4, UNITS, seed=4))
        return jnp.sum(value**2), others

    params = {"cell": PARAMS, "kernel": KERNEL, "table": TABLE}
    results = [
        jax.jit(jax.value_and_grad(functools.partial(loss, run), has_aux=True))(params)
        for run in (run, in_shard_map(run))
    ]
    chex.assert_trees_all_close(*results, rtol=1e-7, atol=1e-12)
    lengths = results[0][0][1][1]
    assert len(set(np.max(lengths.reshape(4, -1), axis=1).tolist())) > 1


class StopDecoder(contrib.BasicDecoder):
    """Emits a second output, as users' decoders of TensorFlow do."""

    def _rnn_output_size(self):
        return {"logits": VOCAB, "stop": 1}

    def step(self, time, inputs, state, name=None):
        emit, state, inputs, finished = super().step(time, inputs, state)
        stop = jax.nn.sigmoid(emit.rnn_output.mean(axis=-1, keepdims=True))
        outputs = {"logits": emit.rnn_output, "stop": stop}
        return emit._replace(rnn_output=outputs), state, inputs, finished


def stopping(kind=StopDecoder):
    helper = contrib.TrainingHelper(INPUTS, LENGTHS)
    layer = lambda outputs: outputs @ KERNEL
    decoder = kind(bound(), helper, STATE, layer)
    return contrib.dynamic_decode(decoder, impute_finished=True)[0]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_basic_decoder_that_emits_more(wrap):
    want = stopping(contrib.BasicDecoder).rnn_output
    got = wrap(stopping)().rnn_output
    np.testing.assert_allclose(got["logits"], want, rtol=1e-12)
    stop = 1 / (1 + np.exp(-np.mean(want, axis=-1, keepdims=True)))
    taken = np.arange(want.shape[1]) < np.asarray(LENGTHS)[:, None]
    stop = np.where(taken[..., None], stop, 0)
    np.testing.assert_allclose(got["stop"], stop, rtol=1e-12)


def test_a_tuple_is_no_size_of_a_decoder(monkeypatch):
    sizes = {"logits": (VOCAB,), "stop": 1}
    monkeypatch.setattr(StopDecoder, "_rnn_output_size", lambda self: sizes)
    with pytest.raises(ValueError, match=r"an int, .* TensorShape; a tuple is a nest"):
        stopping()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_narrow_dtypes(dtype):
    """Outputs have the dtype of the state, scores are float32."""
    narrow = jax.tree.map(lambda x: x.astype(dtype), (PARAMS, TABLE, KERNEL, STATE))
    params, table, kernel, state = narrow
    cell, layer = CELL.bind(params), lambda outputs: outputs @ kernel
    for helper in (
        contrib.TrainingHelper(INPUTS.astype(dtype), LENGTHS),
        contrib.SampleEmbeddingHelper(table, START, END, key=KEY),
    ):
        decoder = contrib.BasicDecoder(cell, helper, state, layer)
        outputs, final, _ = contrib.dynamic_decode(decoder, maximum_iterations=5)
        assert (outputs.rnn_output.dtype, final.dtype) == (dtype, dtype)
    tiled = contrib.tile_batch(state, 2)
    decoder = contrib.BeamSearchDecoder(cell, table, START, END, tiled, 2, layer)
    outputs, final, _ = contrib.dynamic_decode(decoder, maximum_iterations=5)
    assert final.log_probs.dtype == jnp.float32
    assert final.cell_state.dtype == dtype
    loss = contrib.sequence_loss(
        draw(2, 3, VOCAB).astype(dtype), jnp.zeros((2, 3), jnp.int32), jnp.ones((2, 3))
    )
    assert loss.dtype == dtype


# States of any kind.


class Attending(NamedTuple):
    """The state of a cell with something like attention."""

    hidden: Any
    count: Any
    history: Any
    alignments: Any


class AttendingCell:
    """A cell whose state has a scalar, a TensorArray and alignments."""

    places = 4
    output_size = UNITS
    state_size = Attending(UNITS, jaxrnn.TensorShape([]), 0, places)

    def zero_state(self, batch_size, dtype):
        history = jaxrnn.TensorArray(dtype, 0, dynamic_size=True)
        hidden = jnp.zeros((batch_size, UNITS), dtype)
        alignments = jnp.zeros((batch_size, self.places), dtype)
        return Attending(hidden, jnp.int32(0), history, alignments)

    def __call__(self, inputs, state):
        hidden, _ = CELL.bind(PARAMS)(inputs, state.hidden)
        alignments = jax.nn.softmax(hidden[:, : self.places] * 4, axis=-1)
        history = state.history.write(state.count, hidden)
        return hidden, Attending(hidden, state.count + 1, history, alignments)


def attending_beams(width, **options):
    cell = AttendingCell()
    state = cell.zero_state(width * BATCH, jnp.float64)
    given = cell, TABLE, START, END, state, width, project
    return contrib.BeamSearchDecoder(*given, **options)


def attended_beams(memory, lengths=None, **options):
    """A run over a memory `[batch, time, 4]`, with alignments of all steps."""
    cell = contrib.AttentionWrapper(
        CELL, contrib.LuongAttention(UNITS, 4), UNITS, alignment_history=True
    )
    bound = cell.bind(drawn(cell, jax.ShapeDtypeStruct((1, DEPTH), INPUTS.dtype)))
    state = contrib.tile_batch(cell.initial_state(memory, lengths), 2)
    given = bound, TABLE, START[: len(memory)], END, state, 2, project
    decoder = contrib.BeamSearchDecoder(*given, **options)
    return contrib.dynamic_decode(decoder, maximum_iterations=4)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_beams_over_a_memory_without_steps(weight):
    """As over one whose rows have no length."""
    run = functools.partial(attended_beams, coverage_penalty_weight=weight)
    got = jax.jit(run)(np.zeros((BATCH, 0, 4)))
    want = jax.jit(run)(np.full((BATCH, 2, 4), np.nan), np.zeros(BATCH, np.int32))
    results = lambda outputs, state, lengths: (outputs, state.log_probs, lengths)
    assert_near(results(*got), results(*want), tolerance=1e-12)


def test_beams_of_an_empty_batch():
    outputs, state, lengths = jax.jit(attended_beams)(np.zeros((0, 3, 4)))
    assert (outputs.predicted_ids.shape, lengths.shape) == ((0, 4, 2), (0, 2))
    assert state.cell_state.alignment_history.shape[1:] == (0, 3)


def in_python(width, weight, steps):
    """Beams with a coverage penalty, as lists: `[(score, ids)]` for each row."""
    # Log-probability, score, ids, state, coverage.
    live = [[(0.0, 0.0, [], jnp.zeros((1, UNITS)), np.zeros(4))] for _ in START]
    for _ in range(steps):
        # Scores change after the end: the loop ends when all beams of all rows have.
        if all(END in ids for row in live for _, _, ids, *_ in row):
            break
        for row, start in enumerate(START):
            longer = [
                new for beam in live[row] for new in continued(beam, int(start), weight)
            ]
            live[row] = sorted(longer, key=lambda beam: -beam[1])[:width]
    return [[(score, ids) for _, score, ids, *_ in row] for row in live]


def continued(beam, start, weight):
    total, _, ids, hidden, coverage = beam
    ended = END in ids
    last = ids[-1] if ids else start
    _, new = CELL.bind(PARAMS)(TABLE[last][None], hidden)
    coverage = coverage + (0 if ended else np.asarray(jax.nn.softmax(new[0] * 4)))
    penalty = np.log(np.minimum(coverage, 1)).sum() * weight * ended
    log_probs = np.asarray(jax.nn.log_softmax(project(new)[0]))
    for i in [END] if ended else range(VOCAB):
        log_prob = total + (0 if ended else log_probs[i])
        yield log_prob, log_prob + penalty, [*ids, i], new, coverage


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_coverage_penalty_and_arrays_in_the_state(weight):
    width, steps = 3, 5

    def run():
        decoder = attending_beams(width, coverage_penalty_weight=weight)
        return contrib.dynamic_decode(decoder, maximum_iterations=steps)

    want = in_python(width, weight, steps)
    for found, state, _ in (jax.jit(run)(), run()):
        history = state.cell_state.history
        for row in range(BATCH):
            taken = len(want[row][0][1])
            ids = np.asarray(found.predicted_ids[row, :taken]).T.tolist()
            assert ids == [beam for _, beam in want[row]]
            scores = found.beam_search_decoder_output.scores[row, taken - 1]
            np.testing.assert_allclose(scores, [s for s, _ in want[row]], rtol=1e-9)
            written = history.reshape(len(history), BATCH, width, -1)[:, row]
            for k in range(width):
                check_history(written[:, k], row, ids[k])
        assert state.cell_state.count == len(want[0][0][1])
        shape = (BATCH, width, 4)
        coverage = state.accumulated_attention_probs
        assert coverage.shape == shape if weight else coverage == ()


def check_history(history, row, ids):
    """Each step wrote the state of the sequence that the final beam is."""
    hidden, last = jnp.zeros((1, UNITS)), START[row]
    length = ids.index(END) + 1 if END in ids else len(ids)
    for t in range(length):
        hidden = CELL.bind(PARAMS)(TABLE[last][None], hidden)[1]
        np.testing.assert_allclose(history[t], hidden[0], rtol=1e-9)
        last = ids[t]


@pytest.mark.slow
def test_arrays_in_the_state_stay_if_not_reordered():
    decoder = attending_beams(2, reorder_tensor_arrays=False)
    _, state, _ = contrib.dynamic_decode(decoder, maximum_iterations=3)
    assert isinstance(state.cell_state.history, jaxrnn.TensorArray)


def test_states_with_scalars_and_arrays_are_decoded_with_imputation():
    cell = AttendingCell()
    helper = contrib.TrainingHelper(INPUTS, LENGTHS)
    state = cell.zero_state(BATCH, jnp.float64)
    run = lambda: contrib.dynamic_decode(basic(helper, cell, state), False, True)
    (outputs, final, _), compiled = run(), jax.jit(run)()
    chex.assert_trees_all_close(outputs, compiled[0], rtol=1e-9)
    assert final.count == compiled[1].count == 5
    np.testing.assert_allclose(final.hidden, compiled[1].hidden, rtol=1e-9)


def test_arrays_in_the_state_have_an_entry_for_each_output():
    cell = AttendingCell()
    state = cell.zero_state(BATCH, jnp.float64)
    helper = contrib.TrainingHelper(INPUTS, LENGTHS)
    run = lambda: contrib.dynamic_decode(basic(helper, cell, state))
    for outputs, final, _ in (run(), jax.jit(run)()):
        assert final.history.stack().shape == (TIME, BATCH, UNITS)
        assert outputs.rnn_output.shape[1] == TIME


def test_a_decoder_of_ones_own():
    class Countdown(contrib.Decoder):
        batch_size = 2
        output_size = property(lambda self: {"n": jaxrnn.TensorShape([])})
        output_dtype = property(lambda self: {"n": jnp.int32})

        def initialize(self, name=None):
            start = jnp.array([3, 1], jnp.int32)
            return start <= 0, start, jnp.zeros(2)

        def step(self, time, inputs, state, name=None):
            return {"n": inputs}, state + 1, inputs - 1, inputs <= 1

    for run in (
        contrib.dynamic_decode,
        jax.jit(contrib.dynamic_decode, static_argnums=(0, 1, 2, 3)),
    ):
        outputs, state, lengths = run(Countdown(), False, True, 4)
        assert outputs["n"][:, :3].tolist() == [[3, 2, 1], [1, 0, 0]]
        assert (state.tolist(), lengths.tolist()) == ([3, 1], [3, 1])


# The loss.


def test_loss_and_its_gradient_ignore_padding():
    logits, targets = draw(2, 3, VOCAB), jnp.array([[1, 2, 0], [3, 0, 0]])
    weights = jnp.array([[1.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    padded = jnp.where(weights[..., None] == 0, jnp.nan, logits)
    loss = jax.value_and_grad(contrib.sequence_loss)
    want = loss(logits, targets, weights)
    for padding in (0, -1, -99, VOCAB, 99):
        ids = jnp.where(weights == 0, padding, targets)
        chex.assert_trees_all_close(loss(padded, ids, weights), want, rtol=1e-12)
    value, gradient = loss(logits, targets, jnp.zeros((2, 3)))
    assert value == 0
    assert not gradient.any()


# Refusals.


def bound():
    return CELL.bind(PARAMS)


def greedy():
    return contrib.GreedyEmbeddingHelper(TABLE, START, END)


def beams_of(table):
    tiled = contrib.tile_batch(STATE, 2)
    given = bound(), table, START % len(table), END, tiled, 2, project
    return contrib.BeamSearchDecoder(*given)


def decoding(decoder, **options):
    return lambda: contrib.dynamic_decode(decoder(), **options)


def jitted(decoder, **options):
    return lambda: jax.jit(decoding(decoder, **options))()


def custom(**changes):
    functions = {
        "initialize_fn": lambda: (jnp.zeros(BATCH, bool), INPUTS[:, 0]),
        "sample_fn": lambda time, outputs, state: jnp.zeros(BATCH, jnp.int32),
        "next_inputs_fn": lambda time, outputs, state, sample_ids: (
            jnp.ones(BATCH, bool),
            INPUTS[:, 0],
            state,
        ),
    }
    return lambda: basic(contrib.CustomHelper(**{**functions, **changes}))


loss = functools.partial(contrib.sequence_loss, draw(2, 3, 4))
zeros = jnp.zeros((2, 3), jnp.int32)
REFUSALS = [
    (decoding(lambda: 3), TypeError, "dynamic_decode: `decoder` must be a Decoder, got 3."),
    (decoding(lambda: basic(greedy()), maximum_iterations=-1), ValueError, "dynamic_decode: `maximum_iterations` must be at least 0, got -1."),
    (lambda: jax.jit(lambda n: decoding(lambda: basic(greedy()), maximum_iterations=n)())(3), ValueError, "dynamic_decode: `max_time` must be given under jit and vmap, got None."),
    (lambda: jax.jit(lambda n: decoding(lambda: basic(greedy()), maximum_iterations=n, max_time=4)())(3.0), TypeError, "`maximum_iterations` must be an integer, got float"),
    (decoding(lambda: basic(greedy()), maximum_iterations=2.5), TypeError, "dynamic_decode: `maximum_iterations` must be an integer, got 2.5."),
    (decoding(lambda: basic(greedy()), impute_finished=1), TypeError, "dynamic_decode: `impute_finished` must be True or False, got 1."),
    (decoding(lambda: beams(2), impute_finished=True), ValueError, "dynamic_decode: `impute_finished` must be False for a BeamSearchDecoder"),
    (jitted(lambda: basic(greedy())), ValueError, "dynamic_decode: `maximum_iterations` must be given under jit and vmap, got None."),
    (decoding(custom(sample_fn=lambda time, outputs, state: jnp.zeros(2, jnp.int32))), ValueError, "dynamic_decode: `outputs.sample_id` must have shape (3,) as at time 0, got int32[2]. The decoder's `output_size`"),
    (decoding(custom(sample_fn=lambda time, outputs, state: jnp.zeros(3))), TypeError, "dynamic_decode: `outputs.sample_id` must have dtype int32 as at time 0, got float64[3]."),
    (decoding(custom(initialize_fn=lambda: (jnp.zeros(3), INPUTS[:, 0]))), TypeError, "dynamic_decode: `finished` must have dtype bool, got float64[3]."),
    (custom(sample_fn=3), TypeError, "CustomHelper: `sample_fn` must be a function, got 3."),
    (lambda: contrib.BasicDecoder(CELL, greedy(), STATE), TypeError, "BasicDecoder: `cell` must be a bound cell, got the unbound GRUCell"),
    (lambda: contrib.BasicDecoder(bound(), INPUTS, STATE), TypeError, "BasicDecoder: `helper` must be a Helper, got float64[3, 5, 3]."),
    (lambda: contrib.BasicDecoder(bound(), greedy(), STATE, 3), TypeError, "BasicDecoder: `output_layer` must be a function, got 3."),
    (decoding(lambda: contrib.BasicDecoder(bound(), greedy(), STATE[:2])), ValueError, "BasicDecoder: `initial_state` must have 3 rows like the helper's inputs or `start_tokens`, got float64[2, 4]."),
    (lambda: contrib.TrainingHelper(INPUTS, [6, 1, 1]), ValueError, "TrainingHelper: `sequence_length` must not exceed the 5 steps of the inputs, got 6."),
    (lambda: contrib.TrainingHelper(INPUTS, [1, 1]), ValueError, "TrainingHelper: `sequence_length` must be a vector of length batch_size (3), one entry per row, got int64[2]."),
    (lambda: contrib.TrainingHelper(INPUTS, None), ValueError, "TrainingHelper: `sequence_length` must be integers [batch], got None."),
    (lambda: contrib.TrainingHelper(START, LENGTHS), ValueError, "TrainingHelper: `inputs` must have rank at least 2, [batch, time, ...]"),
    (lambda: contrib.TrainingHelper((), LENGTHS), ValueError, "TrainingHelper: `inputs` must hold at least one array, got"),
    (lambda: contrib.GreedyEmbeddingHelper(3, START, END), TypeError, "GreedyEmbeddingHelper: `embedding` must be a table [vocab, ...] or a function of ids, got 3."),
    (lambda: contrib.GreedyEmbeddingHelper(TABLE, 2, END), ValueError, "GreedyEmbeddingHelper: `start_tokens` must be integers [batch], got int64[]."),
    (lambda: contrib.GreedyEmbeddingHelper(TABLE, START, START), ValueError, "GreedyEmbeddingHelper: `end_token` must be an integer scalar, got int64[3]."),
    (lambda: contrib.GreedyEmbeddingHelper(TABLE, START, 1.0), TypeError, "GreedyEmbeddingHelper: `end_token` must be an integer scalar, got 1.0."),
    (lambda: contrib.SampleEmbeddingHelper(TABLE, START, END, 0.0, key=KEY), ValueError, "SampleEmbeddingHelper: `softmax_temperature` must be positive and finite, got 0."),
    (lambda: contrib.SampleEmbeddingHelper(TABLE, START, END, key=3), TypeError, "SampleEmbeddingHelper: `key` must be a random key, got 3."),
    (lambda: contrib.SampleEmbeddingHelper(TABLE, START, END, seed="a", key=KEY), TypeError, "SampleEmbeddingHelper: `seed` must be an integer, got 'a'."),
    (lambda: helpers(KEY, jnp.ones(2)), ValueError, "ScheduledEmbeddingTrainingHelper: `sampling_probability` must be a number or an array [3], one number per row, got float64[2]."),
    (decoding(lambda: basic(greedy(), layer=lambda x: (x, x))), TypeError, "GreedyEmbeddingHelper: `outputs` must be one array of logits, got tuple."),
    (lambda: contrib.BeamSearchDecoder(bound(), TABLE, START, END, STATE, 2), ValueError, "BeamSearchDecoder: `initial_state` must have 6 rows, 2 for each entry of `start_tokens`, got float64[3, 4]. Apply `tile_batch` to the state"),
    (lambda: contrib.BeamSearchDecoder(bound(), TABLE, np.repeat(START, 2), END, contrib.tile_batch(STATE, 2), 2), ValueError, "`initial_state` must have 12 rows, 2 for each entry of `start_tokens`, got float64[6, 4]. Apply `tile_batch` to the state, but not to `start_tokens`."),
    (lambda: contrib.tile_batch([6, 4, 2], 3), TypeError, "tile_batch: `t` must hold arrays, got"),
    (decoding(lambda: beams_of(TABLE[:4])), ValueError, "BeamSearchDecoder: `embedding` must have a row for each of 6 logits, got float64[4, 3]. Does the decoder need an `output_layer`?"),
    (decoding(lambda: basic(contrib.GreedyEmbeddingHelper(TABLE[:3], START % 3, END), layer=None)), ValueError, "GreedyEmbeddingHelper: `embedding` must have a row for each of 4 logits, got float64[3, 3]. Does"),
    (decoding(lambda: basic(contrib.SampleEmbeddingHelper(TABLE[:3], START % 3, END, key=KEY))), ValueError, "SampleEmbeddingHelper: `embedding` must have a row for each of 6 logits, got float64[3, 3]. Does"),
    (decoding(lambda: basic(contrib.ScheduledEmbeddingTrainingHelper(INPUTS, LENGTHS, TABLE[:3], 0.5, key=KEY))), ValueError, "ScheduledEmbeddingTrainingHelper: `embedding` must have a row for each of 6 logits, got float64[3, 3]. Does"),
    (lambda: beams(0), ValueError, "tile_batch: `multiplier` must be at least 1, got 0."),
    (lambda: beams(2, length_penalty_weight=np.inf), ValueError, "BeamSearchDecoder: `length_penalty_weight` must be finite, got inf. 0 disables it."),
    (decoding(lambda: beams(2, coverage_penalty_weight=0.1)), ValueError, "BeamSearchDecoder: `coverage_penalty_weight` must be 0 for a cell without attention"),
    (decoding(lambda: contrib.BeamSearchDecoder(bound(), TABLE, START, END, STATE, 1, lambda x: x[0])), ValueError, "BeamSearchDecoder: `output_layer` must return logits [3, 1, vocab], got float64[1, 4]."),
    (lambda: contrib.gather_tree(zeros, zeros, START, END), ValueError, "gather_tree: `step_ids` must be integers [time, batch, beam], got int32[2, 3]."),
    (lambda: contrib.gather_tree(INPUTS, zeros, START, END), TypeError, "gather_tree: `step_ids` must be integers [time, batch, beam], got float64[3, 5, 3]."),
    (lambda: loss(jnp.zeros((2, 4), jnp.int32), jnp.ones((2, 4))), ValueError, "to fit `logits` [2, 3, 4], got int32[2, 4]. Outside jit, the outputs of `dynamic_decode` end with the longest row. Cut"),
    (lambda: loss(zeros[0], jnp.ones((2, 3))), ValueError, "sequence_loss: `targets` must be [batch, time], to fit `logits` [2, 3, 4], got int32[3]."),
    (lambda: loss(zeros, jnp.ones((2, 3, 4))), ValueError, "sequence_loss: `weights` must be [batch, time], to fit `logits` [2, 3, 4], got float64[2, 3, 4]."),
    (lambda: loss(jnp.ones((2, 3)), zeros), TypeError, "sequence_loss: `targets` must be integer, got float64[2, 3]."),
    (lambda: loss(zeros, jnp.ones((2, 3)), sum_over_batch=True), ValueError, "sequence_loss: `sum_over_batch` must be False if `average_across_batch` is True"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refuses(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
