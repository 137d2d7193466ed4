"""Pronounce words with the trained net, and draw its attention weights.

The script loads the committed model. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m g2p.pronounce photograph knight zyzzyva
"""

import functools
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from . import data, decoding, model

LONGEST = data.BUCKETS[-1]
MOST_PANELS = 8


def read_word(word):
    """The word in lowercase; exits with the reason if it is invalid."""
    word = word.lower()
    if not 1 <= len(word) <= LONGEST or set(word) - set(data.LETTERS):
        must = f"be 1 to {LONGEST} characters from a to z, or apostrophes"
        raise SystemExit(f"each word must {must}, got {word!r}")
    return word


def draw(path, net, params, found):
    """Draws a panel for each word: letters from left to right, phonemes downwards."""
    batch = data.make_batch(list(found.items()), LONGEST + 1, len(found))
    weights = np.asarray(decoding.alignments(net, params, batch))
    sizes = [len(word) for word in found]
    width = max(3, 1 + 0.4 * sum(sizes))
    height = max(4, 1 + 0.2 * max(map(len, found.values())))
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, width_ratios=sizes)[0]
    for i, (axes, (word, phonemes)) in enumerate(
        zip(panels, found.items(), strict=True)
    ):
        draw_panel(axes, word, phonemes, weights[: len(phonemes) + 1, i, : len(word)])
    image = panels[0].images[0]  # All panels share a scale.
    figure.colorbar(
        image, ax=panels, label="weight", aspect=40, fraction=0.02, pad=0.01
    )
    figure.suptitle("letters that are read", fontsize="large")
    figure.supylabel("phonemes that are written")
    figure.savefig(path)


def draw_panel(axes, word, phonemes, weights):
    """Draws the weights `[phonemes, letters]`."""
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(word)), list(word), family="monospace", fontsize=11)
    written = [*phonemes, "end"]
    axes.set_yticks(range(len(written)), written, family="monospace", fontsize=11)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)


def main(
    words: tyro.conf.Positional[tuple[str, ...]],
    path: Path = model.COMMITTED,
    beams: int = 8,
    figure: Path = Path("g2p_attention.png"),
):
    """Prints the pronunciation of each word, and draws the attention weights.

    Args:
        words: The words to pronounce.
        path: The file of the net.
        beams: The width of the beam search.
        figure: The file for the picture.
    """
    words = tuple(map(read_word, words))
    if not words:
        raise SystemExit("pass one or more words")
    if not figure.parent.is_dir():
        raise SystemExit(f"there is no folder {figure.parent} for the figure")
    net, params = model.load(path)
    search = functools.partial(decoding.beam_search, beams=beams)
    found = decoding.pronounce((net,), (params,), words, search, rows=len(words))
    for word, phonemes in found.items():
        print(f"{word}: {' '.join(phonemes)}")
    drawn = dict(list(found.items())[:MOST_PANELS])
    draw(figure, net, params, drawn)
    print(f"Wrote {figure}: the attention of the net for {', '.join(drawn)}.")
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
