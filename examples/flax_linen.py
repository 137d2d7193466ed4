"""Who is speaking? The net of `japanese_vowels.py`, as a module of Flax's linen.

`jaxrnn.linen.Bidirectional` is used as any layer of linen is: its parameters are in
`variables["params"]`, its dropout draws from the stream "dropout".

    pip install -e '.[examples,flax]'
    python examples/flax_linen.py        # five seeds
"""

try:
    import flax.linen as nn
    import jax
    import numpy as np
    from flax.training.train_state import TrainState
    from japanese_vowels import make_cell, make_optimiser, perturb
    from japanese_vowels_data import SPEAKERS, Utterances
    from japanese_vowels_flags import Config
    from japanese_vowels_shared import batches, cross_entropy, hits, load_scaled, report
    from loop_training import flags
    from tqdm import tqdm

    import jaxrnn.linen
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples,flax]'") from None


class Speaker(nn.Module):
    """Logits `[batch, speakers]` of utterances."""

    config: Config

    @nn.compact
    def __call__(
        self, frames: jax.Array, lengths: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Drops outputs of the cells if it is to train."""
        cell = make_cell(self.config)  # Holds no parameters: it serves both directions.
        rnn = jaxrnn.linen.Bidirectional(cell_fw=cell, cell_bw=cell, name="rnn")
        outputs = rnn(frames, lengths, deterministic=not train)
        # Outputs past the length are zeros, so this is the mean over the valid frames.
        return nn.Dense(SPEAKERS, name="head")(outputs.sum(axis=1) / lengths[:, None])


@jax.jit(static_argnames="config")
def train_step(
    state: TrainState, config: Config, batch: Utterances, key: jax.Array
) -> tuple[TrainState, jax.Array]:
    """The state after a batch, and its loss."""
    noise_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    frames = perturb(config, noise_key, batch.frames)

    def loss(params):
        variables, rngs = {"params": params}, {"dropout": dropout_key}
        logits = state.apply_fn(variables, frames, batch.lengths, train=True, rngs=rngs)
        return cross_entropy(config, logits, batch.labels)

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def fit(
    config: Config, state: TrainState, data: Utterances, seed: int
) -> tuple[TrainState, list[float]]:
    """Trains; also the loss of each batch."""
    key, losses = jax.random.key(seed), []
    with tqdm(batches(config, len(data.labels), seed), unit="batch") as bar:
        for rows in bar:
            state, value = train_step(state, config, data.take(rows), key)
            losses.append(value.item())
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}", refresh=False)
    return state, losses


def main(epochs: int = 60, seeds: int = 5, units: int = 64) -> dict[str, list]:
    """Trains, tests, reports.

    Args:
        epochs: Passes over the training set.
        seeds: Nets to train, one after the other.
        units: The size of each cell.
    """
    config, (train, test) = Config(epochs=epochs, units=units), load_scaled()
    # One of each for all seeds, so that all is compiled once.
    model, tx = Speaker(config), make_optimiser(config, len(train.labels))
    init = jax.jit(model.init)
    found, losses = [], []
    for seed in range(seeds):
        variables = init(jax.random.key(seed), train.frames, train.lengths)
        state = TrainState.create(apply_fn=model.apply, tx=tx, **variables)
        state, history = fit(config, state, train, seed)
        logits = state.apply_fn({"params": state.params}, test.frames, test.lengths)
        found.append(hits(logits, test.labels))
        losses.append(history)
    return {"accuracies": report(found), "losses": losses}


if __name__ == "__main__":
    main(**flags(main, __doc__))
