"""Sequence lengths: every integer type is accepted, and values are clamped."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import GRUCell

X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "lengths",
    [
        [5, 0, 3, 1],
        np.array([5, 0, 3, 1], np.uint8),
        np.array([2**32 + 1, -(2**40), 3, 1], np.int64),
        jnp.asarray([2**32 + 1, -(2**40), 3, 1], jnp.int64),
        [jnp.int32(5), 0, 3, 1],
        (5, -1, 3, 1),
    ],
    ids=["list", "uint8", "int64", "jax_int64", "list_of_arrays", "tuple"],
)
def test_lengths_of_every_kind(lengths):
    cell = bound(GRUCell(2), dtype="float32")
    want, _ = jaxrnn.dynamic_rnn(cell, X, [5, 0, 3, 1], dtype="float32")
    got, _ = jaxrnn.dynamic_rnn(cell, X, lengths, dtype="float32")
    np.testing.assert_array_equal(got, want)
