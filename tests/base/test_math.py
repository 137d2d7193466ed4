"""Arithmetic where libraries differ, integers, TensorFlow's shapes, and random keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import draw, weighted_sum

import jaxrnn
from jaxrnn import TensorShape
from jaxrnn._base import math as _math, products as _products
from jaxrnn._base.sharding import key_of_device
from jaxrnn._run.arguments import as_lengths


def test_a_clip_passes_gradients_at_its_bounds_as_tensorflows_does():
    x = np.array([-0.6, -0.5, 0.2, 0.5, 0.6])
    clip = jax.vmap(jax.value_and_grad(lambda x: _math.clip_symmetric(x, 0.5)))
    want = [-0.5, -0.5, 0.2, 0.5, 0.5], [0, 1, 1, 1, 0]
    np.testing.assert_allclose(jax.jit(clip)(x), want)


def test_a_clip_keeps_nan_and_a_bound_of_zero_gives_zero():
    assert np.isnan(_math.clip_symmetric(jnp.nan, 0.5))
    assert not _math.clip_symmetric(jnp.asarray([-1.0, 0.0, 2.0]), 0.0).any()


def test_a_joined_product_has_the_derivatives_of_a_concatenation():
    values = {"x": draw(2, 3), "h": draw(2, 4, seed=1), "k": draw(7, 5, seed=2)}

    def ours(x, h, kernel):
        return _products.affine({"kernel": kernel}, (x, h), x.dtype)

    def plain(x, h, kernel):
        return jnp.concatenate([x, h], axis=1) @ kernel

    def derivatives(product):
        def loss(given):
            return weighted_sum(jnp.tanh(product(*(values | given).values())))

        some = [{name: values[name] for name in which} for which in ("x", "hk")]
        as_function_of = [jax.grad(loss)(given) for given in some]
        return as_function_of, [of(loss)(values) for of in (jax.hessian, jax.jacfwd)]

    got, want = jax.jit(lambda: (derivatives(ours), derivatives(plain)))()
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint64"])
def test_integers_are_clamped_to_int32(kind):
    ends = np.iinfo(kind).min, np.iinfo(kind).max
    for of in (np, jnp):
        got = _math.clamped_to_int32(of.asarray(ends, kind))
        assert (got.dtype, type(got)) == (np.int32, type(of.asarray([0], "int32")))
        assert got.tolist() == [max(ends[0], -(2**31)), min(ends[1], 2**31 - 1)]


def test_shapes_are_compared_as_those_of_tensorflow():
    assert TensorShape(1) == TensorShape([1]) == (1,)
    assert TensorShape([1, 2]) == [1, 2]
    assert (1, 2) == TensorShape([1, 2]) != (1, 3)
    assert TensorShape([1, 2]) not in ("ab", 5.5, None)
    assert hash(TensorShape([1, 2])) == hash((1, 2))
    assert TensorShape([1, 2]).ndims == 2


FEW, BEYOND_INT32 = [5, 0, 3, 1], np.array([2**32 + 1, -(2**40), 3, 1])
LENGTHS = [FEW, (5, -1, 3, 1), [jnp.int32(5), 0, 3, 1], np.uint8(FEW)]


@pytest.mark.parametrize("given", [*LENGTHS, BEYOND_INT32, jnp.asarray(BEYOND_INT32)])
def test_lengths_of_every_kind(given):
    want = np.int32([min(given[0], 2**31 - 1), 0, 3, 1])
    np.testing.assert_array_equal(as_lengths(given, 4), want, strict=True)


X = np.ones((2, 4, 3), np.float32)


GRU = jaxrnn.GRUCell(3)
FUNCTION = jaxrnn.FunctionCell(lambda p, x, state, key=None: (x, state), 3, 3)


@pytest.mark.parametrize("cell", [GRU, FUNCTION], ids=lambda cell: type(cell).__name__)
@pytest.mark.parametrize("key", [3, np.ones(2, np.float32)])
def test_a_key_that_is_none(key, cell):
    x, state = X[:, 0], cell.zero_state(2, X.dtype)
    for refuse in (
        lambda: cell.init(key, x),
        lambda: cell.bind({}, key),
        lambda: cell.apply({}, x, state, key=key),
    ):
        with pytest.raises(TypeError, match=r"^`key` must be a random key, got "):
            refuse()


@pytest.mark.slow
def test_keys_of_every_kind():
    cell = jaxrnn.DropoutWrapper(jaxrnn.GRUCell(3), 0.5)

    @jax.jit
    def run(key):
        bound = cell.bind(cell.init(key, X[:, 0]), key)
        return jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)[0]

    for key in (jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0)):
        assert np.isfinite(run(key)).all()


def test_keys_that_differ_between_devices_are_kept():
    rows = jax.P("rows")
    keys = jax.random.split(jax.random.key(0), 4)
    of_device = lambda keys, x: key_of_device(keys[0], x)[None]
    mesh = jax.sharding.Mesh(jax.devices()[:4], "rows")
    run = jax.shard_map(of_device, mesh=mesh, in_specs=rows, out_specs=rows)
    assert (run(keys, X[:1, :, 0].T) == keys).all()
