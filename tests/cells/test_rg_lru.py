"""The real-gated linear recurrent unit against results of recurrentgemma."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import RGLRUCell
from jaxrnn._cells.lru import bounded_sqrt

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "rg_lru.npz")
HEADS = {"one_head": 1, "two_heads": 2, "reset": 2}


def nested(arrays):
    """The parameters from a state dict with recurrentgemma's names."""
    params = {}
    for name, leaf in arrays.items():
        *path, last = name.split(".")
        functools.reduce(lambda at, key: at.setdefault(key, {}), path, params)[last] = (
            leaf
        )
    return params


def load(case):
    """A cell bound to the weights of a case, and the arrays of the case."""
    arrays = with_prefix(f"{case}/", FILE)
    cell = RGLRUCell(4, num_heads=HEADS[case])
    return cell.bind(nested(with_prefix("weights/", arrays))), arrays


@pytest.mark.parametrize("case", ["one_head", "two_heads"])
def test_numbers_and_gradients_of_recurrentgemma(case):
    cell, arrays = load(case)

    def loss(cell, x, h0):
        outputs, h = jaxrnn.dynamic_rnn(cell, x, None, h0)
        return jnp.sum(outputs**2) + jnp.sum(h**2), (outputs, h)

    gradients, results = jax.grad(loss, (0, 1, 2), has_aux=True)(
        cell, arrays["x"], arrays["h0"]
    )
    near = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    near(results[0], arrays["outputs"])
    near(results[1], arrays["h"])
    grads = with_prefix("grads/", arrays)
    near(gradients[1], grads.pop("x"))
    near(gradients[2], grads.pop("h0"))
    jax.tree.map(near, gradients[0].params, nested(grads))


def test_only_the_first_step_of_recurrentgemma_differs():
    """The package does not scale the first input; later steps are equal."""
    cell, arrays = load("reset")
    x, want = arrays["x"], arrays["outputs"]
    gate = cell.params["input_gate"]
    blocks = np.einsum("bhi,hij->bhj", x[:, 0].reshape(2, 2, 2), gate["w"]) + gate["b"]
    first = x[:, 0] / (1 + np.exp(-blocks.reshape(2, 4)))
    np.testing.assert_allclose(want[:, 0], first, rtol=1e-12)
    outputs, _ = jaxrnn.dynamic_rnn(cell, x[:, 1:], None, first)
    np.testing.assert_allclose(outputs, want[:, 1:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initial_values(dtype):
    """`a` at a gate of 1/8 is uniform in the ring's area, up to rounding."""
    cell = RGLRUCell(2000, num_heads=20)
    params = cell.init(jax.random.key(0), jnp.ones((1, 2000), dtype))
    radius = np.exp(-np.logaddexp(0, np.asarray(params["a_param"], np.float64)))
    rounding = 8 * float(jnp.finfo(dtype).eps)
    assert np.all((radius > 0.9 - rounding) & (radius < 0.999 + rounding))
    quarter = np.sqrt(0.9**2 + (0.999**2 - 0.9**2) / 4)
    assert abs(np.mean(radius < quarter) - 0.25) < 0.04
    for gate in ("input_gate", "a_gate"):
        w = np.asarray(params[gate]["w"], np.float64)
        np.testing.assert_allclose(w.std(), 0.1, rtol=0.02)
        assert not np.any(params[gate]["b"])
    assert not np.array_equal(params["input_gate"]["w"], params["a_gate"]["w"])


def test_the_square_root_and_its_derivatives_are_finite():
    x = jnp.asarray([0.0, 1e-30, 1e-13, 1e-11, 0.5, 1.0], jnp.float32)
    np.testing.assert_allclose(bounded_sqrt(x)[3:], np.sqrt(x[3:]), rtol=1e-6)
    slope = jax.vmap(jax.grad(bounded_sqrt))
    np.testing.assert_allclose(slope(x)[3:], 0.5 / np.sqrt(x[3:]), rtol=1e-6)
    assert np.all(np.abs(slope(x)) <= 1.01 / np.finfo("float32").eps)
    assert np.all(np.isfinite(jax.vmap(jax.grad(jax.grad(bounded_sqrt)))(x)))


def test_the_square_root_is_that_of_float64():
    x = np.append(10.0 ** np.arange(-40, 1), 0)
    np.testing.assert_allclose(bounded_sqrt(jnp.asarray(x)), np.sqrt(x), 0, 1e-16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_finite_where_nothing_decays(dtype):
    cell = RGLRUCell(4, min_radius=1.0, max_radius=1.0)
    x = jnp.ones((2, 5, 4), dtype)
    params = cell.init(jax.random.key(0), x[:, 0])
    params["a_gate"]["b"] -= jnp.asarray([[0, 50, 100, 1000]], dtype)
    run = lambda params: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]
    gradients = jax.grad(lambda params: jnp.sum(run(params)))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_heads": 3}, ValueError, "`num_heads` must divide `num_units`, 4, got 3"),
        ({"num_heads": 0}, ValueError, "`num_heads` must be at least 1"),
        ({"max_radius": 2}, ValueError, "`max_radius` must be in"),
        ({"kernel_initializer": 1}, TypeError, "`kernel_initializer` must be a func"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        RGLRUCell(4, **options)


def test_inputs_must_have_the_size_of_outputs():
    message = r"must have depth `num_units` \(4\), got 5.*InputProjectionWrapper"
    cell = RGLRUCell(4, 2)
    with pytest.raises(ValueError, match=message):
        cell.init(jax.random.key(0), np.ones((1, 5)))
    with pytest.raises(ValueError, match=message):
        jaxrnn.dynamic_rnn(bound(cell, 4), np.ones((1, 2, 5)), dtype=jnp.float64)
