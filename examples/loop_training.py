"""What the examples of `raw_rnn` share: gradient descent, and flags."""

import argparse
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

PyTree = Any
Loss = Callable[..., jax.Array]
"""`loss(params, key, progress, *data)`, where progress goes from 0 to 1."""


def make_optimiser(steps: int, learning_rate: float) -> optax.GradientTransformation:
    """Adam with a clipped gradient and a rate that falls to zero along a cosine."""
    rate = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


# Static arguments are compared by value: a second training does not compile again.
@functools.partial(jax.jit, static_argnames=("loss", "steps", "learning_rate"))
def step(
    params: PyTree,
    state: PyTree,
    key: jax.Array,
    n: jax.Array,
    data: PyTree,
    *,
    loss: Loss,
    steps: int,
    learning_rate: float,
) -> tuple[PyTree, PyTree, jax.Array]:
    """Step n of `steps`: new parameters, new state of the optimiser, and the loss."""
    progress = n.astype(np.float32) / np.float32(steps)
    key = jax.random.fold_in(key, n)
    value, gradient = jax.value_and_grad(loss)(params, key, progress, *data)
    optimiser = make_optimiser(steps, learning_rate)
    updates, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


def train(
    name: str,
    loss: Loss,
    params: PyTree,
    key: jax.Array,
    *data: PyTree,
    steps: int,
    learning_rate: float = 0.01,
) -> tuple[PyTree, list[float]]:
    """Trained parameters, and the loss at every 50th step, under a progress bar."""
    state = make_optimiser(steps, learning_rate).init(params)
    static = {"loss": loss, "steps": steps, "learning_rate": learning_rate}
    data, history = jax.device_put(data), []
    with tqdm(range(steps), desc=name, unit="step") as bar:
        for n in bar:
            params, state, value = step(params, state, key, np.int32(n), data, **static)
            if n % 50 == 0 or n == steps - 1:
                history.append(value.item())
                bar.set_postfix(loss=f"{history[-1]:.3f}")
    return params, history


def flags(main: Callable[..., Any], description: str | None) -> dict[str, Any]:
    """The arguments of `main` as flags of the command line."""
    parser = argparse.ArgumentParser(
        description=f"{description}\n{inspect.getdoc(main)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, item in inspect.signature(main).parameters.items():
        flag, say = f"--{name.replace('_', '-')}", f"default: {item.default}"
        parser.add_argument(
            flag, type=type(item.default), default=item.default, help=say
        )
    return vars(parser.parse_args())
