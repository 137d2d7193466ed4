"""Train in PyTorch, then continue in JAX: speaker identification with an LSTM.

The data is the same as in `japanese_vowels.py`. After some epochs in PyTorch,
`jaxrnn.convert.from_torch` converts the weights to a bound cell. The cell returns the
same outputs, and is trained further with Optax.

    pip install -e '.[examples]' torch
    python examples/from_torch.py
"""
# pyright: reportMissingImports=false

import jax
import numpy as np
import optax
import tyro
from japanese_vowels_data import FEATURES, SPEAKERS, batches, load
from tqdm import tqdm

import jaxrnn.convert

try:
    import torch
except ImportError as error:
    raise SystemExit(f"{error}. Try: pip install -e '.[examples]' torch") from None

BATCH_SIZE, LEARNING_RATE, SMOOTHING = 27, 2e-3, 0.05


class Speaker(torch.nn.Module):
    """An LSTM and a linear layer that maps the LSTM's last output to logits."""

    def __init__(self, units):
        super().__init__()
        self.rnn = torch.nn.LSTM(FEATURES, units, batch_first=True)
        self.head = torch.nn.Linear(units, SPEAKERS)

    def forward(self, frames, lengths):
        """Logits from the last valid step, which later padding does not affect."""
        outputs, _ = self.rnn(frames)
        return self.head(outputs[torch.arange(len(frames)), lengths - 1])


def fit_torch(model, data, epochs):
    """Trains the model in PyTorch."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    for rows in tqdm(batches(len(data.labels), BATCH_SIZE, epochs, 0), "PyTorch"):
        frames, lengths, labels = map(torch.from_numpy, data.take(rows))
        optimizer.zero_grad()
        loss(model(frames, lengths), labels.long()).backward()
        optimizer.step()


@jax.jit
def compute_logits(params, data):
    """The logits of `Speaker`; `params["rnn"]` is a bound cell with its parameters."""
    _, state = jaxrnn.dynamic_rnn(params["rnn"], *data[:2], dtype=np.float32)
    return state.h @ params["kernel"] + params["bias"]


def compute_loss(params, batch):
    """The mean cross-entropy of a batch, with smoothed labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, SPEAKERS), SMOOTHING)
    return optax.softmax_cross_entropy(compute_logits(params, batch), targets).mean()


def fit_jax(params, data, epochs):
    """Trains the converted model in JAX; returns the new parameters."""
    optimizer = optax.adam(LEARNING_RATE)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(compute_loss)(params, batch), state)
        return optax.apply_updates(params, updates), state

    for rows in tqdm(batches(len(data.labels), BATCH_SIZE, epochs, 1), "JAX"):
        params, state = step(params, state, data.take(rows))
    return params


def main(torch_epochs: int = 5, epochs: int = 30, units: int = 64):
    """Trains in PyTorch, converts the weights, compares logits, and trains in JAX.

    Args:
        torch_epochs: Passes over the training set in PyTorch.
        epochs: Passes over the training set in JAX.
        units: The size of the cell.
    """
    if min(torch_epochs, epochs, units) < 1:
        raise SystemExit("--torch-epochs, --epochs and --units must be at least 1.")
    torch.manual_seed(0)
    model, (train, test) = Speaker(units), load()
    fit_torch(model, train, torch_epochs)
    with torch.no_grad():
        logits = model(*map(torch.from_numpy, test[:2])).numpy()
    before = np.mean(np.argmax(logits, axis=-1) == test.labels)
    print(f"PyTorch: test accuracy {100 * before:.2f} %")
    weights = model.state_dict()
    params = {
        "rnn": jaxrnn.convert.from_torch(weights, at="rnn"),
        "kernel": weights["head.weight"].numpy().T,
        "bias": weights["head.bias"].numpy(),
    }
    difference = np.max(np.abs(compute_logits(params, test) - logits))
    print(f"Same weights in JAX: logits differ by at most {difference:.1e}")
    params = fit_jax(params, train, epochs)
    after = np.mean(np.argmax(compute_logits(params, test), axis=-1) == test.labels)
    print(f"After {epochs} more epochs in JAX: test accuracy {100 * after:.2f} %")
    return {"before": before, "after": after, "difference": difference}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
