"""A `Model` is a pytree: it enters `jit`, `vmap` and `grad`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoders import START, make_model, make_params
from flax import nnx
from helpers import assert_near
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


def beams(model, ids):
    model = dataclasses.replace(model, start_ids=ids)
    return decode.beam_search(model, max_length=4, num_beams=2, length_penalty=0.6)


RUNS = {
    "beam_search": beams,
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


@pytest.mark.fast("beam_search")
@pytest.mark.parametrize("name", RUNS)
def test_one_program_for_equal_functions(name):
    run, traced = counted(RUNS[name])
    for seed in range(3):
        model = of_arrays(seed)
        assert_near(run(model, START), RUNS[name](model, START), tolerance=1e-12)
    assert len(traced) == 1
    run(dataclasses.replace(model, eos_id=None), START)
    assert len(traced) == 2


def test_plain_functions_are_static():
    run, traced = counted(beams)
    model = dataclasses.replace(of_arrays(0), project=project_to_six)
    found = run(model, START)
    for _ in range(2):
        again = dataclasses.replace(of_arrays(0), project=project_to_six)
        assert_near(run(again, START), found, tolerance=1e-12)
    assert len(traced) == 1
    run(dataclasses.replace(model, project=lambda y: project_to_six(y)), START)
    assert len(traced) == 2
    names = {jax.tree_util.keystr(path[:1]) for path, _ in leaves(model)}
    assert names == {".cell", ".embed", ".initial_state", ".start_ids"}


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


def test_an_ensemble_enters_jit():
    run, traced = counted(beams)
    for seed in range(2):
        together = decode.ensemble([of_arrays(seed), of_arrays(seed + 5, "lstm")])
        want = beams(together, START)
        assert_near(run(together, START), want, tolerance=1e-12)
    assert len(traced) == 1


def test_vmap_over_models():
    models = [of_arrays(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    found = jax.jit(jax.vmap(beams, in_axes=(0, None)))(stacked, START)
    for i, model in enumerate(models):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        assert_near(one, beams(model, START), tolerance=1e-12)


def test_gradients_with_respect_to_a_model():
    """The gradient of a model holds the gradients of its arrays."""
    params = make_params("gru", 5, 1)

    def loss(model):
        return beams(model, START).scores.sum()

    def of(params):
        functions = Partial(read, params["table"]), Partial(project, params["kernel"])
        options = {"embed": functions[0], "project": functions[1]}
        return make_model("gru", params, **options)

    got = jax.jit(jax.grad(loss, allow_int=True))(of(params))
    want = jax.grad(lambda params: loss(of(params)))(params)
    assert isinstance(got, decode.Model)
    assert_near(got.cell.params, want["cell"], tolerance=1e-12)
    assert_near(got.initial_state, want["state"], tolerance=1e-12)
    assert_near(got.embed.args, (want["table"],), tolerance=1e-12)
    assert_near(got.project.args, (want["kernel"],), tolerance=1e-12)
    assert np.any(want["kernel"])


def test_a_model_that_closes_over_traced_arrays_enters_an_inner_jit():
    params = make_params("gru", 5, 2)
    run = jax.jit(beams)
    outer = jax.jit(lambda params: run(make_model("gru", params, 2), START))
    for seed in range(2):
        params = make_params("gru", 5, seed)
        want = beams(make_model("gru", params, 2), START)
        assert_near(outer(params), want, tolerance=1e-12)


def test_modules_of_nnx_are_leaves():
    run, traced = counted(beams)
    for seed in range(2):
        rngs = nnx.Rngs(seed)
        options = {"param_dtype": jnp.float64, "rngs": rngs}
        modules = nnx.Embed(5, 3, **options), nnx.Linear(4, 5, **options)
        params = make_params("gru", 5, 0)
        model = make_model("gru", params, embed=modules[0], project=modules[1])
        table, kernel = modules[0].embedding[...], modules[1].kernel[...]
        functions = Partial(read, table), Partial(project, kernel)
        same = make_model("gru", params, embed=functions[0], project=functions[1])
        assert_near(run(model, START), beams(same, START), tolerance=1e-12)
    assert len(traced) == 1
