"""Random keys: the accepted kinds and the rejected ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRUCell
from jaxrnn._base.sharding import key_of_device

X = np.ones((2, 4, 3), np.float32)
F32 = jnp.float32


@pytest.mark.parametrize("key", [3, 3.0, "key", np.ones(2, np.float32)])
def test_a_key_that_is_none(key):
    cell = GRUCell(3)
    with pytest.raises(TypeError, match="`key` must be a random key"):
        cell.init(key, X[:, 0])
    with pytest.raises(TypeError, match="`key` must be a random key"):
        cell.bind({}, key)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_every_kind(impl):
    cell = jaxrnn.DropoutWrapper(GRUCell(3), 0.5)
    params = cell.init(jax.random.PRNGKey(0), X[:, 0])
    for key in (jax.random.key(0, impl=impl), jax.random.PRNGKey(0)):
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params, key), X, dtype=F32)
        assert np.isfinite(outputs).all()


def test_keys_that_differ_between_devices_are_kept():
    rows = jax.P("rows")
    keys = jax.random.split(jax.random.key(0), 4)
    of_device = lambda keys, x: key_of_device(keys[0], x)[None]
    run = jax.shard_map(
        of_device,
        mesh=jax.sharding.Mesh(jax.devices(), "rows"),
        in_specs=rows,
        out_specs=rows,
    )
    assert (run(keys, X[:1, :, 0].T) == keys).all()
