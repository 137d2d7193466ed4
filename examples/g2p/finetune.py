"""Fine-tune the trained network of g2p_en with optax, and compare it before and after.

The same training also starts from random parameters. Run it from the folder `examples`:

    pip install -e '..[examples]' && pip install --no-deps g2p_en==2.1.0
    python -m g2p.finetune                     # writes g2p.npz and g2p.png

"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxrnn
from jaxrnn import contrib

from . import data, model, scores

ROWS, POINTS = 128, 24
"""The number of words in a batch, and of points of a learning curve."""
PICTURE = "g2p.png"


def loss_of(network, batch):
    """The mean cross-entropy of a phoneme, given the right phonemes before it."""
    before = jnp.roll(batch.phonemes, 1, axis=1).at[:, 0].set(data.START)
    outputs, _ = jaxrnn.dynamic_rnn(
        network["decoder"],
        network["written"][before],
        batch.phoneme_count,
        initial_state=model.encode(network, batch.letters, batch.letter_count),
    )
    is_valid = jnp.arange(outputs.shape[1]) < batch.phoneme_count[:, None]
    weights = is_valid.astype(outputs.dtype)
    logits = model.project(network, outputs)
    return contrib.sequence_loss(logits, batch.phonemes, weights)


def without_stress(phonemes):
    """The phonemes of g2p_en with the digits of stress removed."""
    return tuple(re.sub("[0-2]", "", phoneme) for phoneme in phonemes)


def wrong(network, words):
    """The share of words whose pronunciation is wrong."""
    return scores.words_wrong(model.pronounce(network, words), words).mean()


def measure(network, words):
    """The error rates, each with its interval."""
    found = model.pronounce(network, words)
    plain = {w: list(map(without_stress, each)) for w, each in words.items()}
    found_plain = {word: without_stress(each) for word, each in found.items()}
    ones = np.ones(len(words))
    return {
        "words wrong": scores.bootstrap(scores.words_wrong(found, words), ones),
        "without stress": scores.bootstrap(
            scores.words_wrong(found_plain, plain), ones
        ),
        "phonemes wrong": scores.bootstrap(*scores.phonemes_wrong(found, words)),
    }


def train(network, words, dev, rate, epochs, name):
    """Trains with Adam, whose rate decays to zero.

    Returns:
        The network, and the shares of dev words that are wrong, by step.
    """
    batches = data.Training(words, ROWS, seed=0)
    steps = epochs * batches.per_epoch
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.linear_schedule(rate, 0.0, steps)),
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(network, opt_state, batch):
        loss, gradient = jax.value_and_grad(loss_of)(network, batch)
        changes, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(network, changes), opt_state, loss

    network = jax.tree.map(jnp.array, network)  # Copies, because they are donated.
    opt_state, curve = optimizer.init(network), {0: wrong(network, dev)}
    bar = tqdm(range(1, steps + 1), desc=name, unit="step")
    for n in bar:  # The first batches of each size take longer, to compile.
        network, opt_state, loss = update(network, opt_state, batches[n - 1])
        if n % max(1, steps // POINTS) == 0 or n == steps:
            curve[n] = wrong(network, dev)
            bar.set_postfix(loss=f"{loss:.3f}", dev=f"{curve[n]:.1%}")
    return network, curve


def draw(curves):
    """Draws the shares of dev words that are wrong."""
    figure = Figure(figsize=(7, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(list(curve), [100 * share for share in curve.values()], label=name)
    axes.set(xlabel="steps", ylabel="dev words wrong (%)", yscale="log")
    ticks = (25, 30, 40, 50, 60, 80, 100)
    axes.set_yticks(ticks, list(map(str, ticks)), minor=False)
    axes.set_yticks([], minor=True)
    axes.set_ylim(24, 105)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE)


def main(
    words: tyro.conf.Positional[tuple[str, ...]] = ("photograph", "knight", "zyzzyva"),
    epochs: int = 1,
    rate: float = 2e-4,
    random_rate: float = 3e-3,
    output: Path = Path("g2p.npz"),
):
    """Prints error rates on test words before and after the training, and draws curves.

    Args:
        words: Words to pronounce with each network.
        epochs: The number of times that each training word is read.
        rate: Adam's initial learning rate for the parameters of g2p_en.
        random_rate: The same for random parameters.
        output: The file for the fine-tuned network, in the format of g2p_en.
    """
    words = tuple(map(data.read_word, words))
    training, dev, test = data.split(data.load())
    networks, curves = {"g2p_en": model.load(model.package_file())}, {}
    starts = {
        "fine-tuned": (networks["g2p_en"], rate),
        "random start": (model.init(jax.random.key(0)), random_rate),
    }
    for name, (start, own) in starts.items():
        networks[name], curves[name] = train(start, training, dev, own, epochs, name)
    model.save(output, networks["fine-tuned"])
    draw(curves)
    print(f"Wrote {output} and {PICTURE}. The {len(test)} test words:")
    scores.print_rates({name: measure(each, test) for name, each in networks.items()})
    for name, each in networks.items():
        for word, phonemes in model.pronounce(each, words).items():
            print(f"{name}: {word} {' '.join(phonemes)}")
    return networks


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
