"""The learning curves of a training run: the loss and the percentage of wrong words."""

from matplotlib.figure import Figure


def draw(path, entries):
    """Saves a figure of both curves over the epochs.

    Args:
        path: The file for the figure.
        entries: The entries of the log, one for each epoch.
    """
    epochs = range(1, 1 + len(entries))
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [entry["loss"] for entry in entries], color="tab:blue")
    left.set(xlabel="epoch", ylabel="loss of a phoneme", title="Training, with dropout")
    right.plot(epochs, [100 * entry["dev"] for entry in entries], color="tab:orange")
    right.set(xlabel="epoch", ylabel="words wrong, %", title="Words it never saw")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
