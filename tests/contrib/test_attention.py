"""Attention: equal to contrib's, a cell as any other, blind to padding."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import contrib

from ..golden import attention_specs as specs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "attention.npz"
TOLERANCES = {
    "float64": (1e-11, 1e-12),
    "float32": (2e-5, 2e-6),
    "float16": (2e-2, 1e-2),
}
NAMES = [case["name"] for case in specs.CASES]


def swap_signs(keys, values):
    return -keys, jnp.concatenate([values, -values], axis=-1)


def sum_of_halves(inputs, attention):
    return jnp.concatenate([inputs * 0.5, jnp.tanh(attention)], axis=-1)


def sharpened(mechanism, cell_output, attention_state, attention_layer):
    alignments, state = mechanism(cell_output, attention_state)
    return mechanism.context(alignments**2), alignments, state


OWN = {f.__name__: f for f in (swap_signs, sum_of_halves, sharpened, contrib.hardmax)}


def named(options):
    return {k: OWN.get(v, v) if isinstance(v, str) else v for k, v in options.items()}


@functools.cache
def recorded():
    with np.load(GOLDEN) as stored:
        return {name: stored[name] for name in stored.files}


def below(case, prefix):
    start = f"{case['name']}/{prefix}"
    return {
        k.removeprefix(start): v for k, v in recorded().items() if k.startswith(start)
    }


def build(case):
    mechanisms = [
        getattr(contrib, kind)(4, depth, **named(options))
        for (kind, options), (_, depth) in zip(
            case["mechanisms"], specs.MEMORIES, strict=False
        )
    ]
    kind, units = case["cell"]
    return contrib.AttentionWrapper(
        getattr(jaxrnn, kind)(units),
        mechanisms if case["several"] else mechanisms[0],
        **named(case["wrapper"]),
    )


def nested(flat):
    tree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def initial_state(case, cell, given):
    count = len(case["mechanisms"])
    memories = [given[f"memory/{i}"] for i in range(count)]
    lengths = [*specs.LENGTHS[:count]] if case["memory_lengths"] else [None] * count
    cell_state = None
    if case["given_cell_state"]:
        parts = [given[f"cell_state/{name}"] for name in "ch"]
        cell_state = jaxrnn.LSTMStateTuple(*parts)
    pick = lambda x: x if case["several"] else x[0]
    return cell.initial_state(pick(memories), pick(lengths), cell_state)


def parts_of(case, state):
    several, cells = case["several"], state.cell_state
    found = {"state/time": state.time, "state/attention": state.attention}
    found |= {"state/c": cells.c} if hasattr(cells, "c") else {}
    found["state/h"] = getattr(cells, "h", cells)
    for i in range(len(case["mechanisms"])):
        pick = lambda x, i=i: x[i] if several else x
        found[f"state/alignments/{i}"] = pick(state.alignments)
        if cell_history := case["wrapper"].get("alignment_history"):
            assert cell_history
            history = pick(state.alignment_history)
            found[f"state/history/{i}"] = history.stack()
    return found


def run(case, given):
    cell = build(case)
    params = nested(
        {k.removeprefix("params/"): v for k, v in given.items() if k[:7] == "params/"}
    )
    outputs, state = jaxrnn.dynamic_rnn(
        cell.bind(params),
        given["inputs"],
        case["lengths"],
        initial_state=initial_state(case, cell, given),
        dtype=given["inputs"].dtype,
    )
    return {"outputs": outputs} | parts_of(case, state)


@pytest.mark.fast("luong-whole", "bahdanau_norm-ragged", "two", "luong_recursive-whole")
@pytest.mark.parametrize("case", specs.CASES, ids=NAMES)
def test_same_as_contrib(case):
    grads = {k.removeprefix("/"): v for k, v in below(case, "grads").items()}
    given = {k: jnp.asarray(below(case, k)[""]) for k in grads}
    weights = {k.removeprefix("/"): v for k, v in below(case, "w").items()}

    def total(given):
        results = run(case, given)
        return sum(jnp.sum(results[k] * w) for k, w in weights.items()), results

    got, results = jax.jit(jax.grad(total, has_aux=True))(given)
    rtol, atol = TOLERANCES[case["dtype"]]
    wanted = {k: below(case, k)[""] for k in results}
    for name, value in {**results, **{f"grads/{k}": v for k, v in got.items()}}.items():
        want = grads[name[6:]] if name.startswith("grads/") else wanted[name]
        want = want.astype(np.float64)
        scale = max(1, np.abs(want).max(initial=0))
        np.testing.assert_allclose(
            np.asarray(value, np.float64), want, rtol, atol * scale, err_msg=name
        )


def test_every_array_belongs_to_a_case():
    assert {name.split("/")[0] for name in recorded()} == set(NAMES)
