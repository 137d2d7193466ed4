"""Learns to add two numbers that stand thousands of steps apart.

Of 10,000 random numbers two are marked, one in each half; a GRU reads them one by one
and says the sum of the two. For the gradient the steps between have to be gone back,
and `swap_memory=True` bounds the memory that it takes. The table tells what a step of
training would take with other strategies, without running it.

    pip install -e '.[examples]'
    python examples/long_memory.py                     # writes long_memory.png
    python examples/long_memory.py --strategy keep     # what it is like without
    python examples/long_memory.py --strategy keep --steps 100000      # is refused
    python examples/long_memory.py --updates 5 --steps 100000          # runs

The first takes some 2 minutes on 2 cores, the last 15 seconds. All sequences have the
full length, and no batch is seen twice, so that the loss is that of data never seen.
It stays at that of a constant guess for some hundred updates, then falls. When is up
to chance: seeds 0 and 1 fall within 600 updates, seed 2 wants `--updates 1000`. With
the usual bias of the update gate, see `init`, seed 0 did not fall within 600 even over
5,000 steps.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from long_memory_data import CONSTANT_GUESS, FEATURES, adding_problem
    from long_memory_figure import draw, size
    from long_memory_flags import STRATEGIES, Config, parse
    from tqdm import tqdm

    import jaxrnn
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples]'") from None

COMPARED = ("keep", "recompute", "nested")
LENGTHS = (100, 1_000, 10_000, 100_000)
AVERAGED = 20  # Updates; one batch's loss is noisy.
PyTree = Any


class Training(NamedTuple):
    """What an update changes."""

    params: PyTree
    optimiser: PyTree


# The net


def init(config: Config, key: jax.Array) -> PyTree:
    """Fresh parameters of the cell and of the sum that is read off its last state.

    The update gate starts such that the units forget over 1 to T steps. From the usual
    bias they all forget within a few, and no gradient comes back from further.

    Source: the chrono initialisation of Tallec and Ollivier, arXiv:1804.11188.
    """
    cell_key, span_key, head_key = jax.random.split(key, 3)
    units = config.units
    one_step = jax.ShapeDtypeStruct((1, FEATURES), jnp.float32)
    cell = jaxrnn.GRUCell(units).init(cell_key, one_step, jnp.float32)
    spans = jax.random.uniform(span_key, (units,), minval=1, maxval=config.steps - 1)
    cell["gates"]["bias"] = jnp.concatenate([jnp.zeros(units), jnp.log(spans)])
    head = jax.random.normal(head_key, (units,)) / units**0.5
    return {"cell": cell, "head": {"kernel": head, "bias": jnp.ones(())}}


def loss(
    params: PyTree, config: Config, inputs: jax.Array, sums: jax.Array
) -> jax.Array:
    """The mean squared error of the sums."""
    _, state = jaxrnn.dynamic_rnn(
        jaxrnn.GRUCell(config.units).bind(params["cell"]),
        inputs,
        dtype=jnp.float32,
        swap_memory=STRATEGIES[config.strategy],
        time_major=True,
    )
    guesses = state @ params["head"]["kernel"] + params["head"]["bias"]
    return jnp.mean((guesses - sums) ** 2)


# Training


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """Adam with a clipped gradient and a rate that falls to zero along a cosine."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.updates)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def start(config: Config) -> Training:
    """What the first update changes."""
    params = init(config, jax.random.key(config.seed))
    return Training(params, make_optimiser(config).init(params))


def batch_of(config: Config, n: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The batch of update n."""
    key = jax.random.fold_in(jax.random.key(config.seed), n)
    return adding_problem(key, config.batch, config.steps)


def compile_update(config: Config) -> jax.stages.Compiled:
    """An update `(training, inputs, sums) -> (training, loss)`; nothing is run yet."""

    def update(training, inputs, sums):
        value, gradient = jax.value_and_grad(loss)(
            training.params, config, inputs, sums
        )
        updates, state = make_optimiser(config).update(gradient, training.optimiser)
        return Training(optax.apply_updates(training.params, updates), state), value

    training = jax.eval_shape(lambda: start(config))
    batch = jax.eval_shape(lambda: batch_of(config, 0))
    return jax.jit(update).lower(training, *batch).compile()


def fit(config: Config, update: jax.stages.Compiled) -> tuple[Training, np.ndarray]:
    """Trains; also the loss of every update."""
    training, losses = start(config), []
    next_batch = jax.jit(lambda n: batch_of(config, n))
    with tqdm(range(config.updates), unit="update") as bar:
        for n in bar:
            training, value = update(training, *next_batch(n))
            losses.append(value.item())
            bar.set_postfix(loss=f"{np.mean(losses[-AVERAGED:]):.4f}")
    return training, np.array(losses)


# Memory


def temporary_bytes(update: jax.stages.Compiled) -> int:
    """What an update needs while it runs, beside its arguments and results."""
    analysis = update.memory_analysis()
    if analysis is None:
        raise SystemExit(f"{jax.default_backend()} does not tell the memory it needs.")
    return analysis.temp_size_in_bytes


def compare(config: Config, lengths: Sequence[int]) -> dict[str, list[int]]:
    """The bytes of an update with each strategy, for each number of steps."""
    needed = {name: [] for name in COMPARED}
    pairs = [(name, steps) for steps in lengths for name in COMPARED]
    for name, steps in tqdm(pairs, desc="memory", unit="program"):
        other = dataclasses.replace(config, strategy=name, steps=steps)
        needed[name].append(temporary_bytes(compile_update(other)))
    return needed


def check_limit(config: Config, needed: int, limit: float) -> None:
    """Refuses to start what would not fit."""
    if needed > limit:
        keeps = config.strategy == "keep"
        other = "--strategy offload" if keeps else "a smaller --batch"
        raise SystemExit(
            f"{config.strategy} would take {size(needed)} for {config.steps:,} steps, "
            f"--limit-gb allows {size(limit)}. Try {other}."
        )


# The program


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Tells the memory, trains, draws."""
    config, limit, path = parse(__doc__, argv)
    update = compile_update(config)
    check_limit(config, temporary_bytes(update), limit)
    # The figure shows other lengths too; they are compiled and not run.
    lengths = sorted({*LENGTHS, config.steps}) if path else [config.steps]
    needed = compare(config, lengths)
    print(f"Temporary memory of an update over {config.steps:,} steps:")
    for name in COMPARED:
        print(f"  {name:10}{size(needed[name][lengths.index(config.steps)]):>8}")

    training, losses = fit(config, update)
    final = losses[-AVERAGED:].mean()
    print(f"Mean squared error {final:.4f}; always saying 1: {CONSTANT_GUESS:.4f}.")
    if path:
        draw(path, config.steps, (lengths, needed), losses, AVERAGED)
        print(f"Wrote {path}.")
    return {"losses": losses, "needed": needed, "params": training.params}


if __name__ == "__main__":
    main()
