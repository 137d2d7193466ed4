"""Draw how padding has no effect if `sequence_length` is passed.

    pip install -e '.[examples]'
    python examples/draw_lengths.py                # writes lengths.png

A bidirectional LSTM reads four real utterances of different lengths, padded with NaN.
The outputs past a row's end are zeros, and the backward cell starts at each row's true
end. The gradient is finite everywhere, and exactly zero in the padding.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flag_types import Picture
from japanese_vowels_data import load_scaled
from matplotlib.figure import Figure

import jaxrnn

ROWS = (230, 0, 31, 100)
PADDING = "#d8d4cc"


def load_utterances():
    """Four utterances `[4, time, depth]` with NaN as padding, and their lengths."""
    train, _ = load_scaled()
    chosen = train.take(np.asarray(ROWS))
    chosen = chosen.take(np.argsort(-chosen.lengths))
    frames = chosen.frames[:, : chosen.lengths.max() + 4].copy()
    frames[np.arange(frames.shape[1]) >= chosen.lengths[:, None]] = np.nan
    return frames, chosen.lengths


def run(x, lengths):
    """The outputs of both directions, and a loss's gradient with respect to `x`."""
    cell = jaxrnn.LSTMCell(12)
    keys = jax.random.key(0), jax.random.key(1)
    cell_fw, cell_bw = (cell.bind(cell.init(key, x[:, 0])) for key in keys)

    def loss(x):
        outputs, _ = jaxrnn.bidirectional_dynamic_rnn(
            cell_fw, cell_bw, x, lengths, dtype=jnp.float32
        )
        return jnp.sum(jnp.stack(outputs) ** 2), outputs

    gradient, outputs = jax.grad(loss, has_aux=True)(jnp.asarray(x))
    return jax.device_get((*outputs, gradient))


def draw(columns, lengths, file):
    """Draws a strip `[depth, time]` for each row and column, and labels its padding."""
    figure = Figure(figsize=(11, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots(len(lengths), len(columns), sharex=True)
    for (title, values), column in zip(columns.items(), axes.T, strict=True):
        limit = np.nanmax(np.abs(values)) * 0.8
        for strip, length, axis in zip(values, lengths, column, strict=True):
            label = "NaN" if np.isnan(strip[length:]).all() else "0"
            visible = np.ma.masked_where((strip == 0) | np.isnan(strip), strip)
            axis.imshow(visible.T, "RdBu_r", aspect="auto", vmin=-limit, vmax=limit)
            axis.patch.set(facecolor=PADDING if label == "NaN" else "white")
            axis.axvline(length - 0.5, color="black", linewidth=1.5)
            middle = (length + len(strip)) / 2 - 0.5, strip.shape[1] / 2 - 0.5
            axis.text(*middle, label, ha="center", va="center", color="dimgray")
            axis.set_yticks([])
        column[0].set_title(title, fontsize=11)
        column[-1].set_xlabel("time step")
    for axis, length in zip(axes[:, 0], lengths, strict=True):
        axis.set_ylabel(f"length {length}")
    figure.savefig(file)


def main(output: Picture = Path("lengths.png")):
    """Runs the cells, and draws their inputs, outputs and gradient.

    Args:
        output: The file for the picture.
    """
    x, lengths = load_utterances()
    output_fw, output_bw, gradient = run(x, lengths)
    columns = {
        "inputs, 24 features": x,
        "outputs, forward cell": output_fw,
        "outputs, backward cell": output_bw,
        "gradient of the inputs": gradient,
    }
    draw(columns, lengths, output)
    print(f"Wrote {output}.")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
