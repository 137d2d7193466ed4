"""A `Model` is a pytree: it enters `jit`, `vmap` and `grad`; and names of arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import START, make_model, make_params
from helpers import assert_near, refusals
from jax.tree_util import Partial

from jaxrnn import decode

KEY = jax.random.key(3)


def read(table, ids):
    return table[ids]


def project(kernel, output):
    return output @ kernel


def project_to_six(output):
    return output @ jnp.eye(4, 6) * 3


def of_arrays(seed, kind="gru"):
    """A model in which all arrays are leaves."""
    params = make_params(kind, 5, seed)
    functions = Partial(read, params["table"]), Partial(project, params["kernel"])
    return make_model(kind, params, embed=functions[0], project=functions[1])


def search(model, ids):
    model = dataclasses.replace(model, start_ids=ids)
    return decode.beam_search(model, max_length=4, num_beams=2, length_penalty=0.6)


RUNS = {
    "beam_search": search,
    "greedy": lambda model, ids: decode.greedy(model, 4),
    "sample": lambda model, ids: decode.sample(model, 4, KEY),
    "score": lambda model, ids: decode.score(model, [[2, 0, 3]] * 2),
    "ensemble": lambda model, ids: decode.greedy(decode.ensemble([model] * 2), 4),
}


def counted(run):
    """The function under `jit`, and the list of its compilations."""
    traced = []

    def count(*args):
        traced.append(None)
        return run(*args)

    return jax.jit(count), traced


@pytest.mark.fast("greedy")
@pytest.mark.parametrize("name", RUNS)
def test_one_program_for_equal_functions(name):
    run, traced = counted(RUNS[name])
    for seed in range(2):
        model = of_arrays(seed)
        again = jax.jit(lambda model: RUNS[name](model, START))
        assert_near(run(model, START), again(model), tolerance=1e-12)
    assert len(traced) == 1
    run.lower(dataclasses.replace(model, eos_id=None), START)
    assert len(traced) == 2


def test_plain_functions_are_static():
    run, traced = counted(RUNS["greedy"])
    model = dataclasses.replace(of_arrays(0), project=project_to_six)
    found = run(model, START)
    for _ in range(2):
        again = dataclasses.replace(of_arrays(0), project=project_to_six)
        assert_near(run(again, START), found, tolerance=1e-12)
    assert len(traced) == 1
    run.lower(dataclasses.replace(model, project=lambda y: project_to_six(y)), START)
    assert len(traced) == 2
    names = {jax.tree_util.keystr(path[:1]) for path, _ in leaves(model)}
    assert names == {".cell", ".embed", ".initial_state", ".start_ids"}


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


@pytest.mark.slow
def test_vmap_over_models():
    run = lambda model: decode.greedy(model, 4)
    models = [of_arrays(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    found = jax.device_get(jax.jit(jax.vmap(run))(stacked))
    for i, model in enumerate(models):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        assert_near(one, jax.device_get(jax.jit(run)(model)), tolerance=1e-12)


@pytest.mark.slow
def test_gradients_with_respect_to_a_model():
    """The gradient of a model holds the gradients of its arrays."""
    params = make_params("gru", 5, 1)

    def loss(model):
        return decode.score(model, [[2, 0, 3]] * 2).sum()

    def of(params):
        functions = Partial(read, params["table"]), Partial(project, params["kernel"])
        options = {"embed": functions[0], "project": functions[1]}
        return make_model("gru", params, **options)

    got = jax.jit(jax.grad(loss, allow_int=True))(of(params))
    want = jax.jit(jax.grad(lambda params: loss(of(params))))(params)
    assert isinstance(got, decode.Model)
    assert_near(got.cell.params, want["cell"], tolerance=1e-12)
    assert_near(got.initial_state, want["state"], tolerance=1e-12)
    assert_near(got.embed.args, (want["table"],), tolerance=1e-12)
    assert_near(got.project.args, (want["kernel"],), tolerance=1e-12)
    assert np.any(want["kernel"])


# One name for each argument, and hints for the names of `generate` and TensorFlow.

MODEL = make_model("gru", make_params("gru", 4, 0))


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
    ("Use `num_beams`", lambda: decode.beam_search(MODEL, 3, beam_width=3)),
    ("Use `eos_id`", model(end_token=1)),
    ("Use `start_ids`", model(start_tokens=1)),
    ("Use `project`", model(output_layer=None)),
    ("Only `jaxrnn.decode.sample`", greedy(temperature=0.5)),
    ("Only `jaxrnn.decode.sample` draws", greedy(do_sample=True)),
    ("`Decoded.lengths`", beams(pad_token_id=1)),
    ("Run `dynamic_rnn` over the prompt", greedy(input_ids=[[1]])),
    ("`tile_beams`", sample(num_return_sequences=2)),
]
test_hints = refusals(HINTS, "message call")
