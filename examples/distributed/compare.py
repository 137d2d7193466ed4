"""Train on every layout, and print how far the results differ.

    python -m distributed.compare

Each layout trains in float32 and in float64, and is compared with one device. In
float64, rounding errors are about 1e9 times smaller. The differences must shrink by the
same factor, or they are not rounding errors.
"""

import tempfile
from pathlib import Path

import tyro
from tqdm import tqdm

from . import datasets, launch

PRECISIONS = {"float32": [], "float64": ["--x64"]}


def run_all(folder, flags, names):
    """`{precision: {name: (losses, parameters)}}`: differences from the first name."""
    found = {precision: {} for precision in PRECISIONS}
    pairs = [(precision, name) for precision in PRECISIONS for name in names]
    for precision, name in tqdm(pairs, unit="run"):
        output = folder / precision / name
        launch.run(launch.LAYOUTS[name], output, [*flags, *PRECISIONS[precision]])
        first = folder / precision / names[0]
        found[precision][name] = launch.differences(first, output)
    return found


def print_table(found):
    """Prints the differences of every layout, in both precisions."""
    columns = [f"{p} {what}" for p in found for what in ("losses", "parameters")]
    print(" " * 22 + "".join(f"{column:>20}" for column in columns))
    for name in next(iter(found.values())):
        numbers = [number for precision in found for number in found[precision][name]]
        print(f"{name:22}" + "".join(f"{number:20.1e}" for number in numbers))


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
def main(
    data: datasets.Name = "vowels",
    steps: int = 100,
    batch_size: int = 256,
    units: int = 64,
    layouts: tuple[launch.Name, ...] = tuple(launch.LAYOUTS),
):
    """Runs and compares all layouts; returns differences by precision and layout.

    Args:
        data: The set of records.
        steps: The number of training steps.
        batch_size: The rows per step, over all devices.
        units: The size of the cells.
        layouts: The layouts to run; all others are compared with the first.
    """
    numbers = {"--steps": steps, "--batch-size": batch_size, "--units": units}
    flags = [word for name, n in numbers.items() for word in (name, str(n))]
    with tempfile.TemporaryDirectory() as folder:
        found = run_all(Path(folder), ["--data", data, *flags], layouts)
    print_table(found)
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
