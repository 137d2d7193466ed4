"""Writes `tests/golden/recurrentgemma.npz` from recurrentgemma's own modules for JAX.

It needs recurrentgemma 1.0.1 with JAX and Flax, for the CPU:

    python tests/golden/generate/make_recurrentgemma.py

Two runs on one machine write the same arrays, in float64. The keys are a module's name
and then

- `params/...`: its parameters;
- `x`: what it is given, `[batch, time, size]`;
- `outputs`, `cache`: what it gives; the cache is what it reads of the past;
- `next_x`, `next_outputs`, `next_cache`: one more step, from that cache;
- `packed_outputs`: outputs for rows that hold two sequences, of 2 and 3 steps;
- `grads/...`, `grads/x`: gradients of the sum of the squares of `outputs`.
"""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from recurrentgemma.jax import layers

BATCH, TIME, SIZE = 2, 5, 3
MODULES = {"conv1d": layers.Conv1D(SIZE, 4, dtype=jnp.float64)}


def run(name: str) -> dict[str, np.ndarray]:
    """The arrays of one module, without its name."""
    module, rng = MODULES[name], np.random.default_rng(zlib.crc32(name.encode()))
    draw = lambda *shape: jnp.asarray(0.7 * rng.normal(size=shape))
    positions = jnp.tile(jnp.arange(TIME), (BATCH, 1))
    packed = jnp.tile(jnp.asarray([0, 1, 0, 1, 2]), (BATCH, 1))
    x, next_x = draw(BATCH, TIME, SIZE), draw(BATCH, 1, SIZE)
    params = module.init(jax.random.key(0), x, positions)["params"]
    params = jax.tree.map(lambda p: draw(*p.shape), params)

    def loss(params, x):
        outputs, cache = module.apply({"params": params}, x, positions)
        return jnp.sum(outputs**2), (outputs, cache)

    gradient = jax.grad(loss, (0, 1), has_aux=True)
    (d_params, d_x), (outputs, cache) = gradient(params, x)
    next_outputs, next_cache = module.apply(
        {"params": params}, next_x, positions[:, -1:] + 1, cache
    )
    arrays = {
        **{f"params/{k}": v for k, v in params.items()},
        "x": x,
        "outputs": outputs,
        "cache": cache,
        "next_x": next_x,
        "next_outputs": next_outputs,
        "next_cache": next_cache,
        "packed_outputs": module.apply({"params": params}, x, packed)[0],
        **{f"grads/{k}": v for k, v in d_params.items()},
        "grads/x": d_x,
    }
    return {k: np.asarray(v) for k, v in arrays.items()}


def main() -> None:
    """Write the file."""
    jax.config.update("jax_enable_x64", True)
    arrays = {f"{name}/{k}": v for name in MODULES for k, v in run(name).items()}
    path = pathlib.Path(__file__).resolve().parents[1] / "recurrentgemma.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
