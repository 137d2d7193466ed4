"""Train a recurrent policy by PPO to recall the first observation of an episode.

The first step of an episode shows a cue. After a random delay, the environment asks for
the cue. Episodes can begin at any step of any row, and the state must be reset there,
with `jaxrnn.dynamic_rnn(..., resets=)`. Environment, acting and training are one
compiled program, a `lax.scan` over updates. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m rl.recall                        # writes recall.png
    python -m rl.recall --longest-delay 10

README.md shows the results.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flag_types import Count, Picture, Positive, Seed
from matplotlib.figure import Figure

import jaxrnn

DISCOUNT, TRACE, CLIP, ENTROPY = 0.99, 0.95, 0.2, 0.01
DRAWN_ROWS = 12


@dataclasses.dataclass(frozen=True)
class Config:
    """The task, the policy and its training; each field is a flag."""

    cues: Count = 4
    """The number of cues, and of possible answers."""
    shortest_delay: Count = 5
    """The smallest number of steps from the cue to the question."""
    longest_delay: Count = 40
    """The largest number of steps from the cue to the question."""
    rows: Count = 64
    """The number of parallel environments."""
    steps: Count = 64
    """The number of steps in a rollout segment, after which the policy is updated."""
    updates: Count = 150
    """The number of updates, each on a new segment."""
    epochs: Count = 4
    """The number of gradient steps per update."""
    units: Count = 64
    """The size of the cell."""
    learning_rate: Positive = 0.003
    """Adam's initial learning rate, with linear decay to zero."""
    seed: Seed = 0
    """The seed of parameters, environments and actions."""

    @property
    def cell(self):
        """The recurrent cell of the policy."""
        return jaxrnn.GRUCell(self.units)


# The environment, for all rows at once


class Env(NamedTuple):
    """The state of the environment, with one episode in each row.

    Attributes:
        cue: int32 `[rows]`, the cue of the episode.
        left: int32 `[rows]`, the number of steps until the question.
        first: Bool `[rows]`, whether this is the first step of an episode.
    """

    cue: Any
    left: Any
    first: Any


def begin(config, key):
    """Starts new episodes in all rows."""
    of_cue, of_delay = jax.random.split(key)
    delays = config.shortest_delay, config.longest_delay + 1
    return Env(
        jax.random.randint(of_cue, (config.rows,), 0, config.cues),
        jax.random.randint(of_delay, (config.rows,), *delays),
        jnp.ones(config.rows, bool),
    )


def observe(config, env):
    """`[rows, cues + 1]`: the cue at the first step, and whether to answer now."""
    cue = jax.nn.one_hot(env.cue, config.cues) * env.first[:, None]
    return jnp.concatenate([cue, (env.left == 0)[:, None]], axis=1, dtype=jnp.float32)


def step(config, env, action, key):
    """Returns `(env, reward, done)`; after the question, a row starts a new episode."""
    done = env.left == 0
    reward = jnp.where(done & (action == env.cue), 1.0, 0.0)
    same = Env(env.cue, env.left - 1, jnp.zeros_like(env.first))
    new = begin(config, key)
    env = jax.tree.map(lambda n, s: jnp.where(done, n, s), new, same)
    return env, reward, done


# The policy


def init(config, key):
    """Initial parameters of the cell and of a layer for logits and value."""
    of_cell, of_head = jax.random.split(key)
    observation = jax.ShapeDtypeStruct((1, config.cues + 1), jnp.float32)
    kernel = 0.01 * jax.random.normal(of_head, (config.units, config.cues + 1))
    head = {"kernel": kernel, "bias": jnp.zeros(config.cues + 1)}
    return {"cell": config.cell.init(of_cell, observation), "head": head}


def read(params, outputs):
    """`(logits, value)` from outputs of the cell, for one step or many steps."""
    both = outputs @ params["head"]["kernel"] + params["head"]["bias"]
    return both[..., :-1], both[..., -1]


def act(config, params, observation, first, state):
    """Runs one step of the policy; returns `(logits, value, new state)`."""
    state = jnp.where(first[:, None], 0, state)
    output, state = config.cell.apply(params["cell"], observation, state)
    return *read(params, output), state


def unroll(config, params, observations, first, state):
    """`(logits, values)` for a rollout segment, `[steps, rows, ...]`.

    The results are the same as from `act`. Rows are reset to zeros where episodes
    begin; `state` is the state after the previous segment.
    """
    cell = config.cell.bind(params["cell"])
    options = {"time_major": True, "resets": first}
    outputs, _ = jaxrnn.dynamic_rnn(cell, observations, None, state, **options)
    return read(params, outputs)


# PPO


class Part(NamedTuple):
    """A segment of a rollout, each field `[steps, rows, ...]`.

    Attributes:
        observation: The input of the policy.
        first: Whether an episode began at this step.
        action: The policy's answer.
        log_prob: The log-probability of the answer.
        value: The return that the policy predicted.
        reward: 1 for a right answer to a question, otherwise 0.
        done: Whether there was a question.
        cue: The cue of the episode, for the picture.
    """

    observation: Any
    first: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any
    cue: Any


def log_prob_of(logits, action):
    """The log-probability of an action."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def collect(config, params, env, state, key):
    """Runs the steps of a segment; returns `(part, env, state)`."""

    def next_step(carry, key):
        env, state = carry
        of_action, of_env = jax.random.split(key)
        observation = observe(config, env)
        logits, value, state = act(config, params, observation, env.first, state)
        action = jax.random.categorical(of_action, logits)
        new, reward, done = step(config, env, action, of_env)
        saw = observation, env.first, action, log_prob_of(logits, action), value
        return (new, state), Part(*saw, reward, done, env.cue)

    keys = jax.random.split(key, config.steps)
    (env, state), part = jax.lax.scan(next_step, (env, state), keys)
    return part, env, state


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
    """PPO's loss, arXiv:1707.06347, for the policy's results on a segment."""
    target = advantage + part.value
    advantage = jax.nn.standardize(advantage, axis=None)
    ratio = jnp.exp(log_prob_of(logits, part.action) - part.log_prob)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    gain = jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
    entropy = -jnp.mean(
        jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), -1)
    )
    return 0.5 * jnp.mean((value - target) ** 2) - gain - ENTROPY * entropy


def make_optimizer(config):
    """Adam with clipped gradients and a learning rate with linear decay to zero."""
    count = config.updates * config.epochs
    rate = optax.linear_schedule(config.learning_rate, 0.0, count)
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate))


@functools.partial(jax.jit, static_argnums=0)
def train(config):
    """Trains a policy; returns `(params, recalled, part)`.

    `recalled` is the fraction of right answers in each segment, and `part` is one more
    segment after training.
    """
    of_params, of_env, of_parts = jax.random.split(jax.random.key(config.seed), 3)
    params, optimizer = init(config, of_params), make_optimizer(config)
    state = config.cell.zero_state(config.rows, jnp.float32)

    def update(carry, key):
        params, of_optimizer, env, before = carry
        part, env, state = collect(config, params, env, before, key)
        args = config, params, observe(config, env), env.first, state
        _, last_value, _ = act(*args)
        advantage = advantages(part, last_value)

        def loss(params):
            args = part.observation, part.first, before
            return loss_of(*unroll(config, params, *args), part, advantage)

        def epoch(carry, _):
            params, of_optimizer = carry
            updates, of_optimizer = optimizer.update(
                jax.grad(loss)(params), of_optimizer
            )
            return (optax.apply_updates(params, updates), of_optimizer), None

        both, _ = jax.lax.scan(epoch, (params, of_optimizer), length=config.epochs)
        recalled = jnp.sum(part.reward) / jnp.maximum(jnp.sum(part.done), 1)
        return (*both, env, state), recalled

    env, keys = begin(config, of_env), jax.random.split(of_parts, config.updates)
    carry = params, optimizer.init(params), env, state
    (params, _, env, state), recalled = jax.lax.scan(update, carry, keys)
    part, _, _ = collect(config, params, env, state, of_env)
    return params, recalled, part


# The picture


def draw_rows(axes, config, part):
    """Draws rows of a segment: answers, and episodes in the colors of their cues."""
    colors = [f"C{k % 10}" for k in range(config.cues)]
    rows = range(min(DRAWN_ROWS, config.rows))
    for row in rows:
        ends = np.flatnonzero(part.done[:, row])
        starts = [0, *(end + 1 for end in ends)]
        for start, stop in zip(starts, [*(ends + 1), config.steps], strict=True):
            if start < stop:
                color = colors[part.cue[start, row]]
                axes.barh(row, stop - start, 0.72, start, color=color, alpha=0.35)
        for t in np.flatnonzero(part.first[:, row]):
            color = colors[part.cue[t, row]]
            axes.plot([t, t], [row - 0.36, row + 0.36], color=color, linewidth=2.5)
        for t in ends:
            marker = "o" if part.reward[t, row] else "x"
            axes.plot(t + 0.5, row, marker, color="0.15", markersize=4)
    labels = {"xlabel": "step of a part of the rollout", "ylabel": "row"}
    axes.set(**labels, yticks=rows, xlim=(-0.5, config.steps + 0.5))
    axes.set_title("Lines: the state is reset. Dots: right answers")


def draw_curve(axes, config, recalled):
    """Draws the percentage of right answers over the updates."""
    axes.plot(100 * recalled, color="tab:blue")
    chance = 100 / config.cues
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1)
    place = config.updates, chance + 1.5
    axes.annotate("by chance", place, color="0.3", horizontalalignment="right")
    axes.set(xlabel="update", ylabel="right answers, %", ylim=(0, 102))
    axes.set_title(f"The cue is recalled after up to {config.longest_delay} steps")
    axes.grid(alpha=0.25)


def draw(path, config, recalled, part):
    """Saves a figure with some rows of the last segment, and the curve."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_rows(left, config, part)
    draw_curve(right, config, recalled)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


# The program


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    config: Annotated[Config, tyro.conf.arg(name="")] = Config(),
    figure: Picture = Path("recall.png"),
):
    """Trains the policy, and draws its answers.

    Args:
        config: The task, the policy and its training.
        figure: The file for the picture.
    """
    if config.longest_delay < config.shortest_delay:
        least = f"--shortest-delay, {config.shortest_delay}"
        longest = config.longest_delay
        raise SystemExit(f"--longest-delay must be at least {least}, got {longest}.")
    start = time.perf_counter()
    _, recalled, part = jax.device_get(train(config))
    seconds = time.perf_counter() - start
    print(
        f"{config.updates} updates in {seconds:.0f} s, including compilation; right "
        f"answers: {recalled[:5].mean():.0%} at first, {recalled[-20:].mean():.1%} at "
        "the end."
    )
    draw(figure, config, recalled, part)
    print(f"Wrote {figure}.")
    return recalled


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
