"""Run an LSTM and its gradient with the installed jaxrnn.

    python .ci/check_install.py native    # Or `pure`: the package without native loops.

The release workflow runs this program with every wheel.
"""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn

has_native_loops = jaxrnn.native_status().startswith("native loops")
print(f"jaxrnn {jaxrnn.__version__}, JAX {jax.__version__}: {jaxrnn.native_status()}")
if has_native_loops != {"native": True, "pure": False}[sys.argv[1]]:
    sys.exit(f"expected a {sys.argv[1]} package")

cell = jaxrnn.LSTMCell(4)
x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
lengths = 3, 1


def loss(params: Any) -> jax.Array:
    """A loss of `dynamic_rnn`, in the native loops if the package has them."""
    implementation = "native" if has_native_loops else None
    outputs, state = jaxrnn.dynamic_rnn(
        cell.bind(params), x, lengths, dtype=x.dtype, implementation=implementation
    )
    return jnp.sum(outputs**2) + jnp.sum(state.c)


def loss_of_single_steps(params: Any) -> jax.Array:
    """The same loss, row by row and step by step."""
    total = jnp.zeros(())
    for row, length in zip(x[:, None], lengths, strict=True):
        state = cell.zero_state(1, x.dtype)
        for t in range(length):
            output, state = cell.apply(params, row[:, t], state)
            total += jnp.sum(output**2)
        total += jnp.sum(state.c)
    return total


params = cell.init(jax.random.key(0), x[:, 0])
got = jax.jit(jax.value_and_grad(loss))(params)
want = jax.value_and_grad(loss_of_single_steps)(params)
jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, want)
print("An LSTM and its gradient equal those of single steps.")
