"""The goldens of seq2seq made with jaxrnn, and how far its results are from theirs.

Strict promotion and x64 must be on, as in the test suite.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import contrib

from . import hand_cells, hand_decoders, replay, store
from .hand_decoders import END, UNITS

JAX = hand_cells.Library(replay.JAX, random={"key": jax.random.key(3)})
Case = store.Case


def cell_of(case: Case, named: dict[str, Any]) -> tuple[Any, Any]:
    """The case's bound cell, and its initial state, which may hold a memory."""
    cell, given, state = replay.build(case["cells"]), named["given"], named["start"]
    facts = case["attention"]
    if facts is not None:
        mechanism = getattr(contrib, facts["mechanism"])(
            UNITS, given["memory"].shape[-1], **facts["options"]
        )
        cell = contrib.AttentionWrapper(cell, mechanism, facts["layer"])
        lengths = given.get("memory_lengths")
        state = cell.initial_state(given["memory"], lengths, state)
    return cell.bind(named["params"]), state


def call(case: Case, named: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The results of a case by name."""
    given = named["given"]
    if case["function"] == "sequence_loss":
        options = case["options"] | hand_decoders.functions(JAX, case, given)
        return {"loss": contrib.sequence_loss(**given, **options)}
    if case["function"] == "gather_tree":
        return {"beams": contrib.gather_tree(**given)}
    options = dict(case["options"])
    if limit is not None:
        options["maximum_iterations"] = limit
    make = _basic if case["helper"] else _beam
    decoder = make(case, *cell_of(case, named), given)
    outputs, state, lengths = contrib.dynamic_decode(decoder, **options)
    if case["differs"]:
        outputs = outputs._replace(predicted_ids=_in_contribs_order(outputs, state))
    return hand_decoders.plain({"outputs": outputs, "state": state, "lengths": lengths})


def _in_contribs_order(outputs: Any, state: Any) -> jax.Array:
    """The sequences as contrib traces them: from the end of the longest one."""
    steps = outputs.beam_search_decoder_output
    major = [jnp.swapaxes(x, 0, 1) for x in (steps.predicted_ids, steps.parent_ids)]
    longest = jnp.max(state.lengths, axis=1)
    found = contrib.gather_tree(*major, longest, END)
    return jnp.swapaxes(found, 0, 1)


def _basic(case: Case, cell: Any, start: Any, given: dict[str, Any]) -> Any:
    helper = hand_decoders.helper(JAX, case, given)
    return contrib.BasicDecoder(cell, helper, start, _layer(case, given))


def _beam(case: Case, cell: Any, start: Any, given: dict[str, Any]) -> Any:
    options, embedding = hand_decoders.options(JAX, case, given)
    options["output_layer"] = _layer(case, given)
    tiled = contrib.tile_batch(start, options["beam_width"])
    model = cell, embedding, given["start"], END, tiled
    return contrib.BeamSearchDecoder(*model, **options)


def _layer(case: Case, given: dict[str, Any]) -> Any:
    if "kernel" not in given:
        return None
    scale = 1e4 if case["functions"].get("layer") == "certain" else 1.0

    def layer(outputs):
        bias = given["bias"].reshape((1,) * (outputs.ndim - 1) + (-1,))
        return (outputs @ given["kernel"] + bias) * scale

    return layer


def steps(case: Case) -> int:
    """The number of steps that TensorFlow took; 0 for what is no loop."""
    for path, array in store.arrays(case).items():
        if path.startswith("/results/outputs"):
            major = case["options"].get("output_time_major")
            return array.shape[0 if major else 1]
    return 0


def run(case: Case, *, jit: bool, spare: int = 0) -> tuple[Any, Any]:
    """The results of a case, and the gradients by path, which are None outside of jit.

    Under jit there are outputs for the steps that TensorFlow took, and room for
    `spare` more.
    """
    named, count = replay.arguments(case), steps(case)
    if not jit:
        return jax.tree.map(np.asarray, call(case, named, None)), None
    bound = case["options"].get("maximum_iterations", count + spare)
    major = case["options"].get("output_time_major")

    def results(named):
        found = call(case, named, bound)
        first = lambda x: x[:count] if major else x[:, :count]
        if "outputs" in found:
            found["outputs"] = jax.tree.map(first, found["outputs"])
        return found

    both = jax.jit(functools.partial(replay.differentiated, results))
    return jax.tree.map(np.asarray, both(named, store.below(case, "w_results")))


def pairs(
    case: Case, *, jit: bool, spare: int = 0
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each path with jaxrnn's array and TensorFlow's."""
    results, grads = run(case, jit=jit, spare=spare)
    return replay.matched(case, {"results": results}, grads)
