"""The decoders of seq2seq: draws, derivatives, states and refusals.

Their goldens are in `test_goldens.py`.
"""
# ruff: noqa: E501 (One refusal a row.)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, bound, differentiated, draw, refusals

import jaxrnn
from jaxrnn import contrib

from ..golden.hand_decoders import END

KEY = jax.random.key(7)
VOCAB, DEPTH, UNITS, TIME, BATCH = 6, 3, 4, 5, 3


# A model of our own.


CELL = jaxrnn.GRUCell(UNITS)
TABLE, KERNEL = 2 * draw(VOCAB, DEPTH, seed=1), 2 * draw(UNITS, VOCAB, seed=2)
INPUTS = draw(BATCH, TIME, DEPTH, seed=3)
STATE = draw(BATCH, UNITS, seed=4)
LENGTHS = np.array([5, 2, 3])
START = np.array([2, 0, 5])
BIAS = np.where(np.arange(VOCAB) == END, 2.5, 0.0)
BOUND = bound(CELL, DEPTH, seed=2)
PARAMS = BOUND.params
GREEDY = contrib.GreedyEmbeddingHelper(TABLE, START, END)
TRAINING = contrib.TrainingHelper(INPUTS, LENGTHS)


def project(outputs):
    return outputs @ KERNEL + BIAS.reshape((1,) * (outputs.ndim - 1) + (-1,))


def basic(helper, cell=BOUND, state=STATE, layer=project):
    return contrib.BasicDecoder(cell, helper, state, layer)


def beams(width, **options):
    tiled = contrib.tile_batch(STATE, width)
    return contrib.BeamSearchDecoder(
        BOUND, TABLE, START, END, tiled, width, project, **options
    )


@pytest.mark.parametrize("maximum", [0, 9])
def test_a_traced_maximum_takes_what_a_static_one_does(maximum):
    def run(maximum, **options):
        decoder = basic(GREEDY, layer=lambda outputs: outputs @ KERNEL)
        options["maximum_iterations"] = maximum
        outputs, state, lengths = contrib.dynamic_decode(decoder, **options)
        return outputs.rnn_output, state, lengths

    got = jax.jit(functools.partial(run, max_time=5))(maximum)
    want = jax.jit(run, static_argnums=0)(min(maximum, 5))
    assert got[0].shape[1] == 5
    cut = got[0][:, : min(maximum, 5)], *got[1:]
    assert_near(cut, want, tolerance=1e-12)
    assert not got[0][:, maximum:].any()


# Draws.


def sampling(**options):
    return contrib.SampleEmbeddingHelper(TABLE, START, END, **options)


def scheduled(probability, embedding=TABLE, **options):
    return contrib.ScheduledEmbeddingTrainingHelper(
        INPUTS, LENGTHS, embedding, probability, **{"key": KEY, **options}
    )


@pytest.mark.slow
def test_keys_and_seeds_separate_draws():
    def ids(**options):
        outputs, _, _ = contrib.dynamic_decode(basic(scheduled(0.5, **options)))
        return outputs.sample_id

    changes = {}, {"seed": 1}, {"scheduling_seed": 1}, {"key": jax.random.key(8)}
    run = jax.jit(lambda: [ids(**change) for change in changes])
    plain, other, times, another = map(np.asarray, run())
    np.testing.assert_array_equal(plain < 0, other < 0)
    assert (plain != other).any()
    assert ((plain < 0) != (times < 0)).any()
    assert ((plain < 0) != (another < 0)).any()


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
    padding = (np.arange(TIME) >= LENGTHS[:, None])[..., None]
    run = functools.partial(of_decoder, swap_memory=True)
    want = differentiated(of_dynamic_rnn, PARAMS, INPUTS)
    got = differentiated(run, PARAMS, jnp.where(padding, jnp.nan, INPUTS))
    assert_near(got, want, tolerance=1e-12)


class StopDecoder(contrib.BasicDecoder):
    """Emits a second output, as users' decoders of TensorFlow do."""

    _rnn_output_size = lambda self: {"logits": VOCAB, "stop": 1}

    def step(self, time, inputs, state, name=None):
        emit, state, inputs, finished = super().step(time, inputs, state)
        stop = jax.nn.sigmoid(emit.rnn_output.mean(axis=-1, keepdims=True))
        outputs = {"logits": emit.rnn_output, "stop": stop}
        return emit._replace(rnn_output=outputs), state, inputs, finished


def stopping(kind=StopDecoder):
    decoder = kind(BOUND, TRAINING, STATE, lambda outputs: outputs @ KERNEL)
    return contrib.dynamic_decode(decoder, impute_finished=True)[0].rnn_output


@pytest.mark.slow
def test_a_basic_decoder_that_emits_more():
    want, got = stopping(contrib.BasicDecoder), jax.jit(stopping)()
    np.testing.assert_allclose(got["logits"], want, rtol=1e-12)
    stop = 1 / (1 + np.exp(-np.mean(want, axis=-1, keepdims=True)))
    taken = np.arange(TIME)[:, None] < LENGTHS[:, None, None]
    np.testing.assert_allclose(got["stop"], np.where(taken, stop, 0), rtol=1e-12)


# States of any kind.


ATTENTION = contrib.AttentionWrapper(
    CELL, contrib.LuongAttention(UNITS, 4), UNITS, alignment_history=True
)
ATTENDING = bound(ATTENTION, DEPTH, scale=0.5)
MEMORY = draw(BATCH, 4, 4, seed=6)


def attended_beams(memory, width, **options):
    """A run over a memory `[batch, time, 4]`, with alignments of all steps."""
    state = contrib.tile_batch(ATTENTION.initial_state(memory), width)
    decoder = contrib.BeamSearchDecoder(
        ATTENDING, TABLE, START, END, state, width, project, **options
    )
    return contrib.dynamic_decode(decoder, maximum_iterations=5)


@jax.jit
def attended(x, memory):
    """Outputs, and alignments `[batch, time, memory_time]`, of `dynamic_rnn`."""
    state = ATTENTION.initial_state(memory)
    outputs, state = jaxrnn.dynamic_rnn(ATTENDING, x, None, state, x.dtype)
    return outputs, jnp.swapaxes(state.alignment_history.stack(), 0, 1)


def test_arrays_in_the_state_hold_the_steps_of_the_final_beams():
    width = 3
    run = functools.partial(attended_beams, width=width, coverage_penalty_weight=0.4)
    found, state, _ = jax.jit(run)(MEMORY)
    assert state.accumulated_attention_probs.shape == (BATCH, width, 4)
    assert state.cell_state.time == 5
    # The cell over the ids of each beam: it reads one that it has not yet chosen.
    ids = np.moveaxis(found.predicted_ids, 2, 1).reshape(BATCH * width, -1)
    read = np.concatenate([np.repeat(START, width)[:, None], ids], axis=1)[:, :-1]
    _, want = attended(TABLE[read], jnp.repeat(MEMORY, width, axis=0))
    history = np.swapaxes(state.cell_state.alignment_history, 0, 1)
    taken = np.logical_and.accumulate(read != END, axis=1)
    np.testing.assert_allclose(history[taken], want[taken], rtol=1e-9)


# The loss.


def test_loss_and_its_gradient_ignore_padding():
    logits, targets = draw(2, 3, VOCAB), jnp.array([[1, 2, 0], [3, 0, 0]])
    weights = jnp.array([[1.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    padded = jnp.where(weights[..., None] == 0, jnp.nan, logits)
    loss = jax.jit(jax.value_and_grad(contrib.sequence_loss))
    want = loss(logits, targets, weights)
    for padding in (0, -1, -99, VOCAB, 99):
        ids = jnp.where(weights == 0, padding, targets)
        assert_near(loss(padded, ids, weights), want, tolerance=1e-12)
    value, gradient = loss(logits, targets, jnp.zeros((2, 3)))
    assert value == 0
    assert not gradient.any()


# Refusals.


def decoding(decoder, **options):
    return lambda: contrib.dynamic_decode(decoder(), **options)


def custom(**changes):
    no, first = jnp.zeros(BATCH, bool), INPUTS[:, 0]
    functions = {
        "initialize_fn": lambda: (no, first),
        "sample_fn": lambda time, outputs, state: jnp.zeros(BATCH, jnp.int32),
        "next_inputs_fn": lambda time, outputs, state, sample_ids: (~no, first, state),
    }
    return lambda: basic(contrib.CustomHelper(**{**functions, **changes}))


def test_a_target_out_of_range_makes_the_loss_nan_unless_its_weight_is_0():
    logits, targets = draw(2, 3, 4), np.array([[0, 4, 1], [2, 3, 0]])
    loss = jax.jit(lambda weights: contrib.sequence_loss(logits, targets, weights))
    assert np.isnan(loss(np.ones((2, 3))))
    assert np.isfinite(loss((targets < 4) * 1.0))


loss = functools.partial(contrib.sequence_loss, draw(2, 3, 4))
REFUSALS = [
    (ValueError, "`maximum_iterations`", decoding(lambda: basic(GREEDY), maximum_iterations=-1)),
    (ValueError, "`impute_finished`", decoding(lambda: beams(2), impute_finished=True)),
    (ValueError, "`maximum_iterations`", jax.jit(decoding(lambda: basic(GREEDY)))),
    (ValueError, "`outputs.sample_id`", decoding(custom(sample_fn=lambda time, outputs, state: jnp.zeros(2, jnp.int32)))),
    (TypeError, "`cell`", lambda: contrib.BasicDecoder(CELL, GREEDY, STATE)),
    (ValueError, "`sequence_length`", lambda: contrib.TrainingHelper(INPUTS, [6, 1, 1])),
    (ValueError, "`start_tokens`", lambda: contrib.GreedyEmbeddingHelper(TABLE, 2, END)),
    (ValueError, "`seed`", lambda: sampling(seed=2**32, key=KEY)),
    (ValueError, "`sampling_probability`", lambda: scheduled(jnp.ones(2))),
    # One number would be fed as each of three features.
    (ValueError, r"`embedding\(ids\)`", jax.jit(decoding(lambda: basic(scheduled(0.5, embedding=TABLE[:, :1])), max_time=2))),
    (ValueError, "`multiplier`", lambda: beams(0)),
    (ValueError, "`logits`", lambda: loss(jnp.zeros((2, 4), jnp.int32), jnp.ones((2, 4)))),
]  # fmt: skip


test_refuses = refusals(REFUSALS)
