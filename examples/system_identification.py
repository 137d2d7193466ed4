"""Identify a physical system: a GRU learns two water tanks, by L-BFGS.

A pump moves water into the upper of two tanks at a rate u. The flow out of each tank is
proportional to the square root of its level. If the upper tank overflows, half of the
overflow falls into the lower tank. Only the level of the lower tank is measured, with
noise. The net reads only the rate, so it always runs in free simulation. The data set
is small, so each gradient is computed from all of it; L-BFGS requires such gradients,
but has no learning rate to tune.

    pip install -e '.[examples]'
    python examples/system_identification.py            # float32, then float64
    python examples/system_identification.py --seeds 1 --updates 100
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import jaxrnn

CELL = jaxrnn.GRUCell(8)
NOISE = 0.03  # The standard deviation of the noise.
WARM_UP = 60  # Steps in which the state still depends on the initial state, zeros.
DT, HEIGHT = 0.2, 6.0


def simulate_tanks(rng, steps):
    """Draws rates `[steps]`; returns them with the measured levels `[steps]`."""
    parts = [np.full(rng.integers(15, 50), rng.uniform(0.2, 2.2)) for _ in range(steps)]
    rates = np.convolve(np.concatenate(parts)[: steps + 4], np.ones(5) / 5, "valid")
    upper, lower, levels = 2.0, 2.0, []
    for rate in rates:
        for _ in range(4):  # Euler's method needs small steps.
            out, spilled = 0.6 * np.sqrt(upper), 0.0
            upper = upper + DT * (rate - out)
            if upper > HEIGHT:
                spilled, upper = 0.5 * (upper - HEIGHT), HEIGHT
            lower = max(lower + DT * (out - 0.6 * np.sqrt(lower)) + spilled, 0.0)
        levels.append(lower)
    return rates, np.array(levels) + NOISE * rng.normal(size=steps)


def init_params(seed):
    """The parameters of the cell and of the linear layer after the cell."""
    cell = CELL.init(jax.random.key(seed), jnp.zeros((1, 1)))
    return {"cell": cell, "head": jnp.zeros(8), "bias": jnp.zeros(())}


def predict(params, rates):
    """The scaled levels `[steps]` for scaled rates `[steps]`."""
    x = jnp.asarray(rates)[None, :, None]
    outputs, _ = jaxrnn.dynamic_rnn(CELL.bind(params["cell"]), x, dtype=x.dtype)
    return outputs[0] @ params["head"] + params["bias"]


@functools.partial(jax.jit, static_argnames="updates")
def fit(params, rates, levels, updates):
    """Fits the parameters to one experiment, all of whose steps are one batch."""

    def loss(params):
        return jnp.mean((predict(params, rates) - levels)[WARM_UP:] ** 2)

    optimizer = optax.lbfgs(memory_size=30)
    # Reuses the loss and the gradient of the last step of the line search.
    value_and_grad = optax.value_and_grad_from_state(loss)

    def update(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, state=state)
        step, state = optimizer.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )
        return (optax.apply_updates(params, step), state), None

    carry = params, optimizer.init(params)
    return jax.lax.scan(update, carry, length=updates)[0][0]


def main(seeds: int = 3, updates: int = 400):
    """Prints and returns the errors on new data, by dtype.

    Args:
        seeds: The number of nets.
        updates: The number of updates of L-BFGS.
    """
    if min(seeds, updates) < 1:
        raise SystemExit("--seeds and --updates must be at least 1.")
    rng = np.random.default_rng(0)
    train, test = np.array([simulate_tanks(rng, 1000) for _ in range(2)])
    mean, size = train.mean(axis=1), train.std(axis=1)
    scaled = [(data - mean[:, None]) / size[:, None] for data in (train, test)]
    errors = {}
    for dtype in "float32", "float64":
        # Arrays that are created here have the dtype, and the net computes in it.
        with jax.enable_x64(dtype == "float64"):
            (rates, levels), (new_rates, new_levels) = np.array(scaled, dtype)
            errors[dtype] = []
            for seed in range(seeds):
                params = fit(init_params(seed), rates, levels, updates)
                error = np.array(predict(params, new_rates)) - new_levels
                rms = size[1] * np.sqrt(np.mean(error[WARM_UP:] ** 2))
                errors[dtype].append(float(rms))
        print(f"{dtype} errors:", " ".join(f"{error:.3f}" for error in errors[dtype]))
    print(f"noise: {NOISE}, deviation of the level: {test[1][WARM_UP:].std():.3f}")
    return errors


if __name__ == "__main__":
    tyro.cli(main)
