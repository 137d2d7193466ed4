"""Begins in PyTorch and goes on in JAX: who is speaking, as in `japanese_vowels.py`.

An LSTM is trained for some epochs in PyTorch. `jaxrnn.convert.torch.load` makes a cell
of its weights, which gives the same outputs and learns on with Optax.

    pip install -e '.[examples]' torch
    python examples/from_torch.py
"""
# pyright: reportMissingImports=false

try:
    import jax
    import numpy as np
    import optax
    import torch
    from japanese_vowels_data import FEATURES, SPEAKERS, Utterances
    from japanese_vowels_flags import Config
    from japanese_vowels_shared import batches, cross_entropy, hits, load_scaled
    from loop_training import flags
    from tqdm import tqdm

    import jaxrnn.convert.torch
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples]' torch") from None


class Speaker(torch.nn.Module):
    """Logits by the last state of an LSTM."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(FEATURES, units, batch_first=True)
        self.head = torch.nn.Linear(units, SPEAKERS)

    def forward(self, frames, lengths):
        """The padding stands after the last step and is read in vain."""
        outputs, _ = self.rnn(frames)
        return self.head(outputs[torch.arange(len(frames)), lengths - 1])


def fit_torch(config: Config, model: Speaker, data: Utterances) -> None:
    """Trains in PyTorch."""
    optimiser = torch.optim.Adam(model.parameters(), config.learning_rate)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=config.smoothing)
    for rows in tqdm(batches(config, len(data.labels), 0), "PyTorch", unit="batch"):
        frames, lengths, labels = map(torch.from_numpy, data.take(rows))
        optimiser.zero_grad()
        loss(model(frames, lengths), labels.long()).backward()
        optimiser.step()


@jax.jit
def scores(params, data: Utterances) -> jax.Array:
    """The logits of `Speaker`. The cell is bound: it brings its parameters along."""
    _, state = jaxrnn.dynamic_rnn(params["rnn"], *data[:2], dtype=np.float32)
    return state.h @ params["kernel"] + params["bias"]


def fit_jax(config: Config, params, data: Utterances):
    """Trains in JAX; returns the new parameters."""
    optimiser = optax.adam(config.learning_rate)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, batch):
        loss = lambda p: cross_entropy(config, scores(p, batch), batch.labels)
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for rows in tqdm(batches(config, len(data.labels), 1), "JAX", unit="batch"):
        params, state = step(params, state, data.take(rows))
    return params


def main(torch_epochs: int = 5, epochs: int = 30, units: int = 64) -> dict[str, float]:
    """Trains in PyTorch, carries the weights over, compares, trains on in JAX."""
    torch.manual_seed(0)
    model, (train, test) = Speaker(units), load_scaled()
    fit_torch(Config(epochs=torch_epochs), model, train)
    with torch.no_grad():
        logits = model(*map(torch.from_numpy, test[:2])).numpy()
    before = hits(logits, test.labels).mean()
    print(f"PyTorch: test accuracy {100 * before:.2f} %")
    weights = model.state_dict()
    params = {
        "rnn": jaxrnn.convert.torch.load(weights, prefix="rnn."),
        "kernel": weights["head.weight"].numpy().T,
        "bias": weights["head.bias"].numpy(),
    }
    difference = np.max(np.abs(scores(params, test) - logits))
    print(f"The same weights in JAX: logits differ by at most {difference:.1e}")
    params = fit_jax(Config(epochs=epochs), params, train)
    after = hits(scores(params, test), test.labels).mean()
    print(f"After {epochs} more epochs in JAX: test accuracy {100 * after:.2f} %")
    return {"before": before, "after": after, "difference": difference}


if __name__ == "__main__":
    main(**flags(main, __doc__))
