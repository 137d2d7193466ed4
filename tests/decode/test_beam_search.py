"""Beam search against all sequences, and the two beam searches against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import END, START, OneRow, every_sequence, make_model, make_params, padded

from jaxrnn import contrib, decode

RULES = [(0.0, "power"), (1.0, "power"), (-0.7, "power"), (0.6, "gnmt"), (-2.0, "gnmt")]


@pytest.mark.fast("1.0-power")
@pytest.mark.parametrize(("penalty", "form"), RULES)
def test_the_beams_are_the_best_of_all_sequences(penalty, form):
    """With a beam for each prefix, the search is exhaustive, so it finds them all."""
    length, vocab = 4, 3
    found = sorted(every_sequence(vocab, length))
    width = len(found)
    assert width == 2**4 + 2**3 + 2**2 + 2 + 1
    options = {"length_penalty": penalty, "length_penalty_form": form}
    for seed in range(3):
        params = make_params("gru", vocab, seed)
        model = make_model("gru", params, width)
        ids, scores, lengths = decode.beam_search(model, length, width, **options)
        for row in range(2):
            one = OneRow("gru", params, row)
            log_probs = np.array([one.score(i) for i in found])
            n = np.array([len(i) for i in found], float)
            base = n if form == "power" else (5 + n) / 6
            want = log_probs / np.power(base, penalty)
            order = np.argsort(-want)
            np.testing.assert_allclose(scores[row], want[order], atol=1e-12)
            assert ids[row].tolist() == [padded(found[i], length) for i in order]
            assert lengths[row].tolist() == [len(found[i]) for i in order]


def test_the_two_forms_prefer_different_sequences():
    """Equally likely ids: [END] has -log 2, and two ids have -2 log 2 together."""
    even = lambda output: jnp.zeros((len(output), 2))
    model = make_model("gru", make_params("gru", 2, 0), project=even)
    scores = {"power": -2 * np.log(2) / 2**1.5, "gnmt": -np.log(2)}
    for form, score in scores.items():
        options = {"length_penalty": 1.5, "length_penalty_form": form}
        best = decode.beam_search(model, 2, num_beams=3, **options)
        assert best.lengths[:, 0].tolist() == [2 if form == "power" else 1] * 2
        np.testing.assert_allclose(best.scores[:, 0], score, rtol=1e-12)


def in_contrib(params, eos, width, length, weight):
    """The same search as a `BeamSearchDecoder`: ids, scores and lengths."""
    model = make_model("lstm", params, width)
    project = lambda output: model.project(output.reshape(2 * width, -1))
    decoder = contrib.BeamSearchDecoder(
        model.cell,
        params["table"],
        START,
        eos,
        contrib.tile_batch(params["state"], width),
        width,
        lambda output: project(output).reshape(2, width, -1),
        length_penalty_weight=weight,
    )
    outputs, state, _ = contrib.dynamic_decode(decoder, maximum_iterations=length)
    scores = outputs.beam_search_decoder_output.scores[:, -1]
    return outputs.predicted_ids.swapaxes(1, 2), scores, state.lengths


@pytest.mark.parametrize(("eos", "weight"), [(END, 0.0), (None, 0.0), (None, 1.3)])
def test_the_search_equals_that_of_contrib(eos, weight):
    """Without a penalty, or if no id ends: contrib does not count an id that ends."""
    length, width = 6, 3

    @jax.jit
    def run(params):
        model = make_model("lstm", params, width, eos_id=eos)
        options = {"length_penalty": weight, "length_penalty_form": "gnmt"}
        ours = decode.beam_search(model, length, width, **options)
        return ours, in_contrib(params, -1 if eos is None else eos, *sizes, weight)

    sizes, ended = (width, length), set()
    for seed in range(4):
        ours, theirs = run(make_params("lstm", 4, seed))
        for got, want in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(got, want)
        ended |= {*ours.lengths.ravel().tolist()}
    assert (len(ended) > 1) == (eos is not None)


def test_beams_without_a_sequence_are_where_the_searches_differ():
    """TensorFlow fills them with the lowest number, for an id after the end."""
    width, params = 3, make_params("lstm", 4, 0)
    params["kernel"] = jnp.zeros_like(params["kernel"])
    certain = jnp.where(jnp.arange(4) == END, 0.0, -jnp.inf)
    params["memory"] = jnp.tile(certain, (2, 1))
    ids, scores, lengths = in_contrib(params, END, width, 5, 0.0)
    lowest = float(np.finfo(np.float64).min)
    assert scores.tolist() == [[0.0, lowest, lowest]] * 2
    assert (ids == END).all()
    assert lengths.tolist() == [[1, 1, 1]] * 2
    model = make_model("lstm", params, width)
    found = decode.beam_search(model, 5, width)
    assert found.scores.tolist() == [[0.0, -np.inf, -np.inf]] * 2
    assert found.lengths.tolist() == [[1, 0, 0]] * 2
