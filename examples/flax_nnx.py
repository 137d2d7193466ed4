"""Who is speaking? The net of `japanese_vowels.py`, as a module of Flax's nnx.

`jaxrnn.nnx.Bidirectional` is used as any layer of nnx is: it holds its parameters and
its stream of dropout; `train()` and `eval()` switch that on and off.

    pip install -e '.[examples,flax]'
    python examples/flax_nnx.py        # five seeds
"""

try:
    import jax
    import numpy as np
    from flax import nnx
    from japanese_vowels import make_cell, make_optimiser, perturb
    from japanese_vowels_data import FEATURES, SPEAKERS, Utterances
    from japanese_vowels_flags import Config
    from japanese_vowels_shared import batches, cross_entropy, hits, load_scaled, report
    from loop_training import flags
    from tqdm import tqdm

    import jaxrnn.nnx
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples,flax]'") from None


class Speaker(nnx.Module):
    """Logits `[batch, speakers]` of utterances."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        cell = make_cell(config)  # Holds no parameters: it serves both directions.
        self.rnn = jaxrnn.nnx.Bidirectional(cell, cell, FEATURES, rngs=rngs)
        self.head = nnx.Linear(2 * config.units, SPEAKERS, rngs=rngs)

    def __call__(self, frames: jax.Array, lengths: jax.Array) -> jax.Array:
        """Drops outputs of the cells after `train()`, none after `eval()`."""
        outputs = self.rnn(frames, lengths)
        # Outputs past the length are zeros, so this is the mean over the valid frames.
        return self.head(outputs.sum(axis=1) / lengths[:, None])


@nnx.jit(static_argnames="config")
def train_step(
    model: Speaker,
    optimizer: nnx.Optimizer,
    rngs: nnx.Rngs,
    config: Config,
    batch: Utterances,
) -> jax.Array:
    """Learns from a batch; returns its loss."""
    frames = perturb(config, rngs.noise(), batch.frames)

    def loss(model):
        return cross_entropy(config, model(frames, batch.lengths), batch.labels)

    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def fit(config: Config, tx, data: Utterances, seed: int) -> tuple[Speaker, list[float]]:
    """A trained net, and the loss of each batch."""
    model = Speaker(config, rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rngs, losses = nnx.Rngs(noise=seed), []
    model.train()
    with tqdm(batches(config, len(data.labels), seed), unit="batch") as bar:
        for rows in bar:
            value = train_step(model, optimizer, rngs, config, data.take(rows))
            losses.append(value.item())
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}", refresh=False)
    return model, losses


def main(epochs: int = 60, seeds: int = 5, units: int = 64) -> dict[str, list]:
    """Trains, tests, reports.

    Args:
        epochs: Passes over the training set.
        seeds: Nets to train, one after the other.
        units: The size of each cell.
    """
    config, (train, test) = Config(epochs=epochs, units=units), load_scaled()
    # One for all seeds, so that the training is compiled once.
    tx = make_optimiser(config, len(train.labels))
    found, losses = [], []
    for seed in range(seeds):
        model, history = fit(config, tx, train, seed)
        model.eval()
        found.append(hits(model(test.frames, test.lengths), test.labels))
        losses.append(history)
    return {"accuracies": report(found), "losses": losses}


if __name__ == "__main__":
    main(**flags(main, __doc__))
