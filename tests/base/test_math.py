"""Arithmetic where libraries differ, integers of all types, and TensorFlow's shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import TensorShape
from jaxrnn._base import math as _math
from jaxrnn._base.arguments import as_lengths


@pytest.mark.parametrize(
    ("x", "value", "slope"),
    [(-0.6, -0.5, 0), (-0.5, -0.5, 1), (0.2, 0.2, 1), (0.5, 0.5, 1), (0.6, 0.5, 0)],
)
def test_a_clip_passes_gradients_at_its_bounds_as_tensorflows_does(x, value, slope):
    got = jax.value_and_grad(lambda x: _math.clip_symmetric(x, 0.5))(x)
    np.testing.assert_allclose(got, (value, slope))


def test_a_clip_keeps_nan_and_a_bound_of_zero_gives_zero():
    assert np.isnan(_math.clip_symmetric(jnp.nan, 0.5))
    np.testing.assert_array_equal(
        _math.clip_symmetric(jnp.asarray([-1.0, 0.0, 2.0]), 0.0), np.zeros(3)
    )


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.parametrize("of", [np, jnp])
def test_integers_are_clamped_to_int32(kind, of):
    ends = np.iinfo(kind).min, np.iinfo(kind).max
    got = _math.clamped_to_int32(of.asarray(ends, kind))
    assert (got.dtype, type(got)) == (np.int32, type(of.asarray(0, "int32")[None]))
    assert got.tolist() == [max(ends[0], -(2**31)), min(ends[1], 2**31 - 1)]


def test_only_big_endian_arrays_are_copied():
    tree = {"a": np.arange(3.0), "b": 1, "c": jnp.zeros(2)}
    assert _math.in_native_order(tree) is tree
    got = _math.in_native_order(tree | {"d": np.arange(3, dtype=">i2")})
    assert all(got[name] is tree[name] for name in tree)
    np.testing.assert_array_equal(got["d"], np.arange(3, dtype=np.int16), strict=True)


def test_shapes_are_compared_as_those_of_tensorflow():
    assert TensorShape(1) == TensorShape([1]) == (1,)
    assert TensorShape([1, 2]) == [1, 2]
    assert (1, 2) == TensorShape([1, 2]) != (1, 3)
    assert TensorShape([1, 2]) not in ("ab", 5.5, None)
    assert hash(TensorShape([1, 2])) == hash((1, 2))
    assert TensorShape([1, 2]).ndims == 2


BEYOND_INT32 = [2**32 + 1, -(2**40), 3, 1]
LENGTHS = {
    "list": [5, 0, 3, 1],
    "tuple": (5, -1, 3, 1),
    "list_of_arrays": [jnp.int32(5), 0, 3, 1],
    "uint8": np.array([5, 0, 3, 1], np.uint8),
    "int64": np.array(BEYOND_INT32, np.int64),
    "jax_int64": jnp.asarray(BEYOND_INT32, jnp.int64),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_of_every_kind(name):
    got = as_lengths(LENGTHS[name], 4)
    longest = 2**31 - 1 if "int64" in name else 5
    np.testing.assert_array_equal(got, np.int32([longest, 0, 3, 1]), strict=True)
