"""Time the gradient of PPO's loss, with `resets=` and with loops that select the state.

All methods read the same rollout segment, in float32, and use a GRU of the same size.
Their runs alternate, so that other load on the machine affects all methods. Run it from
the folder `examples`:

    pip install -e '..[examples,flax]'
    python -m rl.time_update

README.md shows the results.
"""

import functools
import statistics
import time
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro
from flag_types import Count

from . import recall
from .recall import Config

SIZES = Config(rows=16, steps=128, units=128)


class ScannedRNN(nn.Module):
    """A Flax GRU whose step selects the state, as is common in recurrent policies."""

    units: int

    @functools.partial(
        nn.scan, variable_broadcast="params", split_rngs={"params": False}
    )
    @nn.compact
    def __call__(self, state, at):
        """Runs one step; returns `(new state, output)`."""
        observation, first = at
        state = jnp.where(first[:, None], 0, state)
        return nn.GRUCell(self.units)(state, observation)


def make_losses(config):
    """For each method to unroll the policy, a compiled gradient and its argument."""
    of_params, of_env, of_part = jax.random.split(jax.random.key(config.seed), 3)
    params, env = recall.init(config, of_params), recall.begin(config, of_env)
    state = config.cell.zero_state(config.rows, jnp.float32)
    part, _, _ = jax.jit(recall.collect, static_argnums=0)(
        config, params, env, state, of_part
    )
    advantage = recall.advantages(part, part.value[-1])
    read, given = ScannedRNN(config.units), (part.observation, part.first)

    def by_dynamic_rnn(params):
        found = recall.unroll(config, params, *given, state)
        return recall.loss_of(*found, part, advantage)

    def by_scan(params):
        def step(state, at):
            observation, first = at
            args = config, params, observation, first, state
            logits, value, state = recall.act(*args)
            return state, (logits, value)

        _, (logits, values) = jax.lax.scan(step, state, given)
        return recall.loss_of(logits, values, part, advantage)

    def by_scanned_rnn(params):
        _, outputs = read.apply(params["cell"], state, given)
        return recall.loss_of(*recall.read(params, outputs), part, advantage)

    of_flax = {"cell": read.init(of_params, state, given), "head": params["head"]}
    compiled = lambda loss: jax.jit(jax.value_and_grad(loss))
    return {
        "dynamic_rnn(resets=)": (compiled(by_dynamic_rnn), params),
        "a scan of `act`": (compiled(by_scan), params),
        "Flax's ScannedRNN": (compiled(by_scanned_rnn), of_flax),
    }


def main(
    config: Annotated[Config, tyro.conf.arg(name="")] = SIZES,
    rounds: Count = 30,
):
    """Prints the minimum and the median time of each method.

    Args:
        config: The sizes.
        rounds: The number of timed runs of each method.
    """
    losses = make_losses(config)
    times = {name: [] for name in losses}
    for n in range(rounds + 1):
        for name, (gradient, params) in losses.items():
            start = time.perf_counter()
            jax.block_until_ready(gradient(params))
            if n:  # The first run compiles.
                times[name].append(time.perf_counter() - start)
    for name, each in times.items():
        least, median = 1000 * min(each), 1000 * statistics.median(each)
        print(f"{name:20} {least:6.1f} ms, median {median:6.1f} ms")
    return times


if __name__ == "__main__":
    tyro.cli(tyro.conf.configure(tyro.conf.OmitArgPrefixes)(main), description=__doc__)
