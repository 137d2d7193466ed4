"""One name for each argument, and hints for the names of `generate` and TensorFlow."""

import inspect

import numpy as np
import pytest
from decoders import make_model, make_params
from helpers import refusals

from jaxrnn import decode

MODEL = make_model("gru", make_params("gru", 4, 0))
SIGNATURES = {
    "Model": "cell embed project initial_state start_ids eos_id",
    "greedy": "model max_length",
    "sample": "model max_length key temperature top_k top_p",
    "beam_search": "model max_length num_beams length_penalty length_penalty_form",
    "score": "model ids",
    "ensemble": "models",
    "tile_beams": "tree num_beams",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments(name):
    arguments = inspect.signature(getattr(decode, name)).parameters
    assert " ".join(arguments) == SIGNATURES[name]


def greedy(**options):
    return lambda: decode.greedy(MODEL, 2, **options)


def sample(**options):
    return lambda: decode.sample(MODEL, 2, **options)


def beams(**options):
    return lambda: decode.beam_search(MODEL, 2, 2, **options)


def model(**options):
    return lambda: decode.Model(MODEL.cell, MODEL.embed, MODEL.project, **options)


HINTS = [
    ("Use `max_length`", lambda: decode.greedy(MODEL, max_new_tokens=3)),
    ("Use `max_length`", lambda: decode.greedy(MODEL, max_time=3)),
    ("Use `max_length`", lambda: decode.beam_search(MODEL, maximum_iterations=3)),
    ("Use `num_beams`", lambda: decode.beam_search(MODEL, 3, beam_width=3)),
    ("Use `num_beams`", lambda: decode.tile_beams(np.ones(2), beam_width=3)),
    ("Use `eos_id`", model(eos_token_id=1)),
    ("Use `eos_id`", model(end_token=1)),
    ("Use `start_ids`", model(start_tokens=1)),
    ("Use `start_ids`", model(decoder_start_token_id=1)),
    ("Use `project`", model(output_layer=None)),
    ("Use `embed`", model(embedding=None)),
    ("Use `length_penalty`", beams(length_penalty_weight=1.0)),
    ("Use `ids`", lambda: decode.score(MODEL, input_ids=[[1]] * 2)),
    ("Use `key`", sample(rng=0)),
    ("key=jax.random.key", sample(seed=0)),
    ("accept `max_length`", model(max_length=3)),
    ("Only `jaxrnn.decode.sample`", greedy(temperature=0.5)),
    ("Only `jaxrnn.decode.sample`", beams(top_k=3)),
    ("Only `jaxrnn.decode.sample`", beams(top_p=0.9)),
    ("Only `jaxrnn.decode.beam_search`", greedy(num_beams=3)),
    ("Only `jaxrnn.decode.beam_search`", greedy(length_penalty=1.0)),
    ("Only `jaxrnn.decode.sample` draws", greedy(do_sample=True)),
    ("Remember the ids", greedy(frequency_penalty=0.5)),
    ("field of `jaxrnn.decode.Model`", greedy(eos_id=1)),
    ("field of `jaxrnn.decode.Model`", beams(eos_token_id=1)),
    ("`Decoded.lengths`", beams(pad_token_id=1)),
    ("Run a prompt with `dynamic_rnn`", greedy(input_ids=[[1]])),
    ("`tile_beams`", sample(num_return_sequences=2)),
    ("finished beams compete", beams(early_stopping=True)),
    ("no groups", beams(num_beam_groups=2)),
    ("`jaxrnn.contrib.BeamSearchDecoder`", beams(coverage_penalty_weight=1.0)),
    ("-inf in `project`", greedy(bad_words_ids=[[1]])),
    ("-inf in `project`", sample(min_p=0.1)),
    ("in the cell's state", greedy(repetition_penalty=1.2)),
    ("in the cell's state", beams(no_repeat_ngram_size=2)),
    ("in the cell's state", beams(min_length=2)),
    ("in `embed`", greedy(streamer=None)),
    ("`jaxrnn.contrib.Helper`", greedy(stopping_criteria=None)),
    ("the cell's state is", greedy(use_cache=True)),
    ("has `ids`", beams(output_scores=True)),
]
test_hints = refusals(HINTS, "message call")
