"""Draws what `sequence_length` means: padding that nothing sees.

    pip install -e '.[examples]'
    python examples/draw_lengths.py                # writes lengths.png

Four real utterances of different lengths, padded with NaN, go through a bidirectional
LSTM. The outputs past a row's end are zeros, the backward cell starts at each row's
true end, and the gradient is finite, and exactly zero in the padding.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from japanese_vowels_data import load, measure
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import jaxrnn

ROWS = (230, 0, 31, 100)
PADDING = "#d8d4cc"
NOTE = "Stripe: a feature or unit. Black line: row's end. Grey: NaN. Hatched: exact 0."


def utterances() -> tuple[np.ndarray, np.ndarray]:
    """Four utterances `[4, time, depth]` with NaN where they are padded."""
    train, _ = load()
    chosen = measure(train)(train).take(np.asarray(ROWS))
    chosen = chosen.take(np.argsort(-chosen.lengths))
    frames = chosen.frames[:, : chosen.lengths.max() + 2].copy()
    for row, length in zip(frames, chosen.lengths, strict=True):
        row[length:] = np.nan
    return frames, chosen.lengths


def run(x: np.ndarray, lengths: np.ndarray) -> tuple[jax.Array, ...]:
    """The outputs of both directions, and the gradient with respect to `x`."""
    cell = jaxrnn.LSTMCell(12)
    cell_fw, cell_bw = (
        cell.bind(cell.init(jax.random.key(seed), x[:, 0])) for seed in (0, 1)
    )

    def loss(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
            cell_fw, cell_bw, x, lengths, dtype=jnp.float32
        )
        return jnp.sum(jnp.stack(outputs) ** 2), outputs

    gradient, outputs = jax.grad(loss, has_aux=True)(jnp.asarray(x))
    return *outputs, gradient


def draw(columns: dict[str, np.ndarray], lengths: np.ndarray, file: str) -> None:
    """A strip `[depth, time]` for each row and column; exact zeros are hatched."""
    figure = Figure(figsize=(11, 5.4), dpi=130, layout="constrained")
    axes = figure.subplots(len(lengths), len(columns), sharex=True)
    figure.suptitle(NOTE)
    for (title, values), column in zip(columns.items(), axes.T, strict=True):
        limit = np.nanmax(np.abs(values)) * 0.8
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto"}
        for strip, length, axis in zip(values, lengths, column, strict=True):
            shown = np.ma.masked_where((strip == 0) | np.isnan(strip), strip)
            axis.imshow(shown.T, **style)
            face = PADDING if np.isnan(strip).any() else "white"
            axis.patch.set(facecolor=face, edgecolor=PADDING, hatch="////")
            axis.axvline(length - 0.5, color="black", linewidth=1.5)
            axis.set_yticks([])
        column[0].set_title(title, fontsize=10)
        column[-1].set_xlabel("time step")
        image = column[0].images[0]  # All rows share a scale.
        bar = figure.colorbar(image, ax=column, location="bottom", extend="both")
        bar.locator = MaxNLocator(4)
    for axis, length in zip(axes[:, 0], lengths, strict=True):
        axis.set_ylabel(f"length {length}")
    figure.savefig(file)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cells and write the picture."""
    parser = argparse.ArgumentParser(description="Draws what `sequence_length` means.")
    parser.add_argument("--output", default="lengths.png", help="where to draw")
    file = parser.parse_args(argv).output
    x, lengths = utterances()
    forward, backward, gradient = (np.asarray(a) for a in run(x, lengths))
    columns = {
        "inputs: 12 coefficients, 12 slopes": x,
        "output_fw: 12 units": forward,
        "output_bw: 12 units": backward,
        "gradient of the 24 inputs": gradient,
    }
    draw(columns, lengths, file)
    print(f"Wrote {file}.")


if __name__ == "__main__":
    main()
