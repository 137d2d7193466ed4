"""Train recurrent policies by PPO, on a task that needs memory.

Several seeds train at once under `jax.vmap`: with a GRU of jaxrnn, and for comparison
with Flax's GRU in a `ScannedRNN`. Run it from the folder `examples`:

    pip install -e '..[examples,flax]'
    python -m rl.ppo                           # writes ppo.png

README.md shows the results.
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from counts import check_counts
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn.linen

from .repeat_previous import LENGTH, SUITS, begin, observe, step

CLIP, ENTROPY, TRACE = 0.2, 0.01, 0.95
DISCOUNT = 0.5  # Small, because an action changes only its own reward.
PICTURE = "ppo.png"


@dataclasses.dataclass(frozen=True)
class Config:
    """The policies and their training; each field is a flag."""

    seeds: int = 5
    """The number of policies that train at once."""
    rows: int = 64
    """The number of parallel environments of a policy."""
    steps: int = 128
    """The number of steps in a rollout, after which the policy is updated."""
    updates: int = 100
    """The number of updates, each on a new rollout."""
    epochs: int = 4
    """The number of gradient steps per update."""
    units: int = 64
    """The size of the layers."""
    learning_rate: float = 0.003
    """Adam's initial learning rate, with linear decay to zero."""

    def __post_init__(self):
        check_counts(self, "seeds", "rows", "steps", "updates", "epochs", "units")

    @property
    def optimizer(self):
        """Adam with clipped gradients."""
        count = self.updates * self.epochs
        rate = optax.linear_schedule(self.learning_rate, 0.0, count)
        return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate))


# The policy, with one of two recurrent layers


class ResetRNN(nn.Module):
    """A GRU of jaxrnn, with resets."""

    units: int

    @nn.compact
    def __call__(self, state, x, first):
        """`(state, outputs)` for inputs `[time, rows, depth]`."""
        cell = jaxrnn.CudnnCompatibleGRUCell(
            self.units,  # Initialized as Flax's GRU.
            kernel_initializer=jaxrnn.initializers.lecun_orthogonal(),
            bias_initializer=nn.initializers.zeros,
        )
        rnn = jaxrnn.linen.RNN(cell, time_major=True, return_carry=True)
        return rnn(x, initial_state=state, resets=first)


class ScannedRNN(nn.Module):
    """The same with Flax's GRU, in the form that PureJaxRL made common."""

    units: int

    @functools.partial(
        nn.scan, variable_broadcast="params", split_rngs={"params": False}
    )
    @nn.compact
    def __call__(self, state, x, first):
        """`(state, outputs)` for inputs `[time, rows, depth]`."""
        state = jnp.where(first[:, None], 0.0, state)
        return nn.GRUCell(self.units)(state, x)


class ActorCritic(nn.Module):
    """Logits of the suits, and the value."""

    layer: type[nn.Module]
    units: int

    @nn.compact
    def __call__(self, state, observation, first):
        """`(state, logits, value)` for observations `[time, rows, 4]`."""
        x = nn.relu(nn.Dense(self.units)(observation))
        state, x = self.layer(self.units, name="rnn")(state, x, first)
        x = nn.relu(nn.Dense(self.units)(x))
        logits = nn.Dense(SUITS, kernel_init=nn.initializers.orthogonal(0.01))(x)
        return state, logits, nn.Dense(1)(x)[..., 0]


# PPO


class Training(NamedTuple):
    """What an update reads and returns."""

    params: Any
    opt_state: Any
    env: Any
    first: Any  # Whether the next step is the first of an episode, `[rows]`.
    state: Any


class Part(NamedTuple):
    """A rollout, each field `[steps, rows, ...]`."""

    observation: Any
    first: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


def start(config, policy, key):
    """The training before its first update."""
    of_params, of_env = jax.random.split(key)
    env, first = begin(config.rows, of_env), jnp.ones(config.rows, bool)
    state = jnp.zeros((config.rows, config.units))
    params = policy.init(of_params, state, observe(env)[None], first[None])
    return Training(params, config.optimizer.init(params), env, first, state)


def act(policy, params, env, first, state):
    """`(state, logits, value)` for one step."""
    inputs = state, observe(env)[None], first[None]
    state, logits, value = policy.apply(params, *inputs)
    return state, logits[0], value[0]


def log_prob_of(logits, action):
    """The log-probability of an action."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def collect(config, policy, training, key):
    """Runs the steps of a rollout; returns `(training, part)`."""

    def next_step(training, key):
        of_action, of_env = jax.random.split(key)
        params, _, env, first, state = training
        state, logits, value = act(policy, params, env, first, state)
        action = jax.random.categorical(of_action, logits)
        saw = observe(env), first, action, log_prob_of(logits, action), value
        env, reward, done = step(env, action, of_env)
        training = training._replace(env=env, first=done, state=state)
        return training, Part(*saw, reward, done)

    return jax.lax.scan(next_step, training, jax.random.split(key, config.steps))


def advantages(part, last_value):
    """Generalized advantage estimates, arXiv:1506.02438, within each episode."""

    def backward(carry, at):
        advantage, next_value = carry
        reward, value, done = at
        goes_on = jnp.where(done, 0, DISCOUNT)
        delta = reward + goes_on * next_value - value
        advantage = delta + goes_on * TRACE * advantage
        return (advantage, value), advantage

    start, at = jnp.zeros_like(last_value), (part.reward, part.value, part.done)
    _, found = jax.lax.scan(backward, (start, last_value), at, reverse=True)
    return found


def loss_of(logits, value, part, advantage):
    """PPO's loss, arXiv:1707.06347, for the policy's results on a rollout."""
    target = advantage + part.value
    advantage = jax.nn.standardize(advantage, axis=None)
    ratio = jnp.exp(log_prob_of(logits, part.action) - part.log_prob)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    gain = jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))
    return 0.5 * jnp.mean((value - target) ** 2) - gain - ENTROPY * entropy


def update(config, policy, before, key):
    """Collects a rollout and learns from it; returns `(training, mean return)`."""
    after, part = collect(config, policy, before, key)
    _, _, last_value = act(policy, before.params, *after[2:])
    advantage = advantages(part, last_value)

    def loss(params):
        inputs = before.state, part.observation, part.first
        _, logits, value = policy.apply(params, *inputs)
        return loss_of(logits, value, part, advantage)

    def epoch(carry, _):
        params, opt_state = carry
        changes, opt_state = config.optimizer.update(jax.grad(loss)(params), opt_state)
        return (optax.apply_updates(params, changes), opt_state), None

    learned, _ = jax.lax.scan(epoch, before[:2], length=config.epochs)
    return Training(*learned, *after[2:]), LENGTH * jnp.mean(part.reward)


# The program


def compiled(config, layer, keys):
    """The update of all seeds, and their training before it."""
    args = config, ActorCritic(layer, config.units)
    training = jax.vmap(functools.partial(start, *args))(keys)
    run = jax.jit(jax.vmap(functools.partial(update, *args)))
    return run.lower(training, keys).compile(), training


def train(config):
    """Trains with both layers, in turns, so that other programs slow both down.

    Returns:
        The returns, `[updates, seeds]`, and the seconds of the updates, both by layer.
    """
    keys = jax.random.split(jax.random.key(0), config.seeds)
    layers = {"jaxrnn": ResetRNN, "ScannedRNN": ScannedRNN}
    runs = {name: compiled(config, layer, keys) for name, layer in layers.items()}
    returns, seconds = {name: [] for name in runs}, {name: [] for name in runs}
    bar = tqdm(range(config.updates), unit="update")
    for n in bar:
        of_part = jax.vmap(jax.random.fold_in, (0, None))(keys, n)
        for name, (run, training) in runs.items():
            began = time.perf_counter()
            training, found = jax.block_until_ready(run(training, of_part))
            seconds[name].append(time.perf_counter() - began)
            returns[name].append(np.asarray(found))
            runs[name] = run, training
        bar.set_postfix(
            {name: f"{all[-1].mean():.2f}" for name, all in returns.items()}
        )
    return {name: np.stack(each) for name, each in returns.items()}, seconds


def draw(config, returns):
    """Draws the mean of the seeds, and the range from the worst to the best seed."""
    figure = Figure(figsize=(7, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, config.updates + 1) * config.rows * config.steps
    for name, each in returns.items():
        [line] = axes.plot(steps, each.mean(axis=1), label=name)
        limits = each.min(axis=1), each.max(axis=1)
        axes.fill_between(steps, *limits, color=line.get_color(), alpha=0.2)
    axes.set(xlabel="steps of a policy", ylabel="return of an episode", ylim=(-1, 1.03))
    axes.set_title(f"RepeatPreviousEasy, {config.seeds} seeds: mean and range")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(config: Config):
    """Trains the policies, and draws their learning curves.

    Args:
        config: The policies and their training.
    """
    returns, seconds = train(config)
    for name, each in returns.items():
        last = each[-10:].mean(axis=0)
        ms = 1000 * np.median(seconds[name])
        print(
            f"{name + ':':11} return {last.mean():.3f} ({last.min():.3f} to "
            f"{last.max():.3f}), {ms:.0f} ms an update of {config.seeds} seeds"
        )
    draw(config, returns)
    print(f"Wrote {PICTURE}.")
    return returns


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
