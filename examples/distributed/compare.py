"""Train on every layout, print how far the results differ, and draw the losses.

    python -m distributed.compare                           # writes distributed.png

Each layout trains in float32 and in float64, and is compared with one device. In
float64, rounding errors are about 1e9 times smaller. The differences must shrink by the
same factor, or they are not rounding errors.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import tyro
from flag_types import Count, Picture
from matplotlib.figure import Figure
from tqdm import tqdm

from . import datasets, launch

PRECISIONS = {"float32": [], "float64": ["--x64"]}
WARM_UP = 5  # Steps that are not timed; the first one compiles.


def run_all(folder, flags, names):
    """Runs all layouts: `{precision: {name: (losses, seconds, parameters)}}`."""
    results = {precision: {} for precision in PRECISIONS}
    pairs = [(precision, name) for precision in PRECISIONS for name in names]
    for precision, name in tqdm(pairs, unit="run"):
        output = folder / f"{precision} {name}"
        launch.run(launch.LAYOUTS[name], output, [*flags, *PRECISIONS[precision]])
        results[precision][name] = (
            *launch.read_losses(output),
            launch.read_parameters(output),
        )
    return results


def differences(results):
    """`{name: (losses, parameters)}`, the largest differences from the first layout."""
    losses, _, parameters = next(iter(results.values()))
    return {
        name: (
            np.max(np.abs(other - losses)),
            launch.largest_difference(others, parameters),
        )
        for name, (other, _, others) in results.items()
    }


def print_table(found):
    """Prints the differences of every layout, in both precisions."""
    columns = [f"{p} {what}" for p in found for what in ("losses", "parameters")]
    print(" " * 22 + "".join(f"{column:>20}" for column in columns))
    for name in next(iter(found.values())):
        numbers = [number for precision in found for number in found[precision][name]]
        print(f"{name:22}" + "".join(f"{number:20.1e}" for number in numbers))


def draw_losses(axes, results):
    """Draws a line for each layout, with thinner lines on top of thicker ones."""
    for i, (name, (losses, *_)) in enumerate(results.items()):
        width = 0.8 + 1.2 * (len(results) - 1 - i)
        axes.plot(losses, label=name, linewidth=width, color=f"C{i}")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.set_title("The same losses")
    axes.legend(frameon=False)


def draw_differences(axes, results):
    """Draws the differences between the losses of the first layout and of the others.

    Equal losses are omitted, because the axis is logarithmic.
    """
    for marker, (precision, runs) in zip("ox", results.items(), strict=True):
        (first, *_), *others = runs.values()
        for i, (losses, *_) in enumerate(others, 1):
            apart = np.abs(losses - first)
            steps = np.flatnonzero(apart)
            axes.plot(steps, apart[steps], f"C{i}{marker}", markersize=2.5)
        axes.plot([], [], f"k{marker}", markersize=4, label=precision)
    axes.set(xlabel="step", yscale="log", ylim=(1e-18, 1e-5))
    axes.set_title("Differences to one device")
    axes.legend(frameon=False, loc="center right")


def draw_speed(axes, results, rows):
    """Draws records per second over the number of devices."""
    for kind, label in (("device", "devices of one process"), ("process", "processes")):
        names = [n for n in results if n == "1 device" or ("," not in n and kind in n)]
        devices = [int(name.split()[0]) for name in names]
        seconds = [np.median(results[name][1][WARM_UP:]) for name in names]
        axes.plot(devices, rows / np.array(seconds), marker="o", label=label)
    axes.set(xlabel="devices", ylim=0, xticks=(1, 2, 4))
    axes.set_title(f"Records a second, {os.cpu_count()} cores")
    axes.legend(frameon=False)


def draw(path, results, rows):
    """Saves a figure of the losses, their differences and the throughput."""
    figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained")
    parts = figure.subplots(1, 3)
    draw_losses(parts[0], results["float32"])
    draw_differences(parts[1], results)
    draw_speed(parts[2], results["float32"], rows)
    for axes in parts:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    data: datasets.Name = "vowels",
    steps: Count = 100,
    batch_size: Count = 256,
    units: Count = 64,
    layouts: tuple[launch.Name, ...] = tuple(launch.LAYOUTS),
    figure: Picture = Path("distributed.png"),
):
    """Runs and compares all layouts; returns differences by precision and layout.

    Args:
        data: The set of records.
        steps: The number of training steps.
        batch_size: The rows per step, over all devices.
        units: The size of the cells.
        layouts: The layouts to run; all others are compared with the first.
        figure: The file for the picture.
    """
    numbers = {"--steps": steps, "--batch-size": batch_size, "--units": units}
    flags = [word for name, n in numbers.items() for word in (name, str(n))]
    with tempfile.TemporaryDirectory() as folder:
        results = run_all(Path(folder), ["--data", data, *flags], layouts)
    found = {precision: differences(results[precision]) for precision in results}
    print_table(found)
    draw(figure, results, batch_size)
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
