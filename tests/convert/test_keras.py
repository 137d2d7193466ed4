"""Weights of Keras, against what Keras made of them, `golden/convert/keras.npz`."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import GRUCell
from jaxrnn.convert import keras as convert

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "convert" / "keras.npz")
CASES = list(dict.fromkeys(key.split("/")[0] for key in FILE))
TOLERANCE = 1e-12
AfterGRUCell = jaxrnn.CudnnCompatibleGRUCell


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)


def lists(kind, golden):
    """For each layer the weights, or gradients, in the order of `get_weights()`."""
    made = []
    for i in range(2):
        keys = [f"{kind}/{i}/{k}" for k in range(6)]
        made.append([golden[key] for key in keys if key in golden])
    return [layer for layer in made if layer]


def load(case, weights):
    """One cell, or the pair of both directions' cells."""
    both = "both" in case
    activation = next((a for a in ("relu", "softsign") if a in case), "tanh")
    options = {"activation": activation, "reset_after": "before" not in case}
    return convert.load(*weights, **options, bidirectional=both)


def save(cells):
    if isinstance(cells, tuple):
        return convert.save(cells, bidirectional=True)
    return convert.save(cells)


def states(golden):
    """For each layer the initial state; of two directions a pair."""
    made = []
    for i in range(2):
        if f"h0/{i}" not in golden:
            continue
        h, c = golden[f"h0/{i}"], golden.get(f"c0/{i}")
        if c is None:
            made.append(h)
        elif h.ndim == 2:
            made.append(jaxrnn.LSTMStateTuple(c, h))
        else:
            made.append(
                [jaxrnn.LSTMStateTuple(*each) for each in zip(c, h, strict=True)]
            )
    return made


def run(cells, x, golden):
    """The results of Keras's layers."""
    initial = states(golden)
    if isinstance(cells, tuple):
        initial_fw, initial_bw = (list(each) for each in zip(*initial, strict=True))
        outputs, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(
            *cells, x, initial_fw, initial_bw
        )
        finals = [
            jax.tree.map(lambda *two: jnp.stack(two), *pair)
            for pair in zip(*finals, strict=True)
        ]
    else:
        several = len(initial) > 1
        initial = tuple(initial) if several else initial[0]
        outputs, finals = jaxrnn.dynamic_rnn(cells, x, initial_state=initial)
        finals = finals if several else [finals]
    made = {"outputs": outputs}
    for i, final in enumerate(finals):
        if isinstance(final, jaxrnn.LSTMStateTuple):
            made |= {f"c/{i}": final.c, f"h/{i}": final.h}
        else:
            made[f"h/{i}"] = final
    return made


def loss(cells, x, golden):
    made = run(cells, x, golden)
    return sum(jnp.sum(leaf**2) for leaf in made.values()), made


@pytest.mark.fast("lstm_softsign", "*_both")
@pytest.mark.parametrize("case", CASES)
def test_as_keras(case):
    """Outputs, final states, and gradients with respect to inputs and weights."""
    golden = with_prefix(f"{case}/", FILE)
    loss_of = lambda weights, x: loss(load(case, weights), x, golden)
    gradients = jax.jit(jax.grad(loss_of, (0, 1), has_aux=True))
    (slopes, slope), made = gradients(lists("weights", golden), golden["x"])
    for name, array in {**made, "grads/x": slope}.items():
        close(array, golden[name])
    chex.assert_trees_all_close(
        slopes, lists("grads", golden), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case):
    """All weights are restored exactly, except two biases that become one."""
    weights = lists("weights", with_prefix(f"{case}/", FILE))
    cells = load(case, weights)
    back = save(cells)
    for own, others in zip(back, weights, strict=True):
        if "no_bias" in case:
            assert not any(own[2].ravel())
            own = [array for k, array in enumerate(own) if k % 3 < 2]
        for array, other in zip(own, others, strict=True):
            assert array.dtype == np.float64
            if array.ndim == 2 and len(array) == 2 and "after" in case:
                gates = slice(0, 2 * array.shape[1] // 3)
                np.testing.assert_array_equal(
                    array[:, gates.stop :], other[:, gates.stop :]
                )
                array, other = array.sum(0), other.sum(0)
            np.testing.assert_array_equal(array, other)
    chex.assert_trees_all_equal(load(case, back), cells)


def test_both_directions_there_and_back():
    cells = tuple(
        (bound(AfterGRUCell(5), 3, seed=seed), bound(GRUCell(2), 10, seed=seed))
        for seed in (0, 1)
    )
    again = load("both", save(cells))
    chex.assert_trees_all_equal(again, cells)
