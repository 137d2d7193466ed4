"""The settings of the long-memory example, and its flags."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from japanese_vowels_flags import count, number, positive, seed
from matplotlib.figure import Figure

from jaxrnn import memory

FIGURE = Path("long_memory.png")

STRATEGIES: dict[str, bool | memory.Strategy] = {
    "keep": False,
    "recompute": memory.Recompute(),
    "nested": memory.Nested(),
    "offload": True,  # On the CPU the same as "recompute".
}


@dataclass(frozen=True)
class Config:
    """The task, the net and its training."""

    steps: int = 10_000
    updates: int = 600
    batch: int = 32
    units: int = 16
    learning_rate: float = 0.02
    strategy: str = "offload"
    seed: int = 0


def check_figure(parser: argparse.ArgumentParser, path: Path) -> None:
    """Sees that the figure can be written, before the training."""
    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        parser.error(
            f"argument --figure: must end in one of {', '.join(sorted(kinds))}, got "
            f"{str(path)!r}"
        )
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        parser.error(f"argument --figure: cannot write to {path}: {error.strerror}")
    if path.is_dir():
        parser.error(f"argument --figure: {path} is a folder")


def parse(
    description: str | None, argv: Sequence[str] | None
) -> tuple[Config, float, Path | None]:
    """The settings, the limit in bytes, and where to draw, if at all."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(name: str, kind, say: str) -> None:
        default, say = getattr(Config, name), f"{say}; default: %(default)s"
        flag = f"--{name.replace('_', '-')}"
        letter = "N" if isinstance(default, int) else "X"
        parser.add_argument(flag, type=kind, default=default, metavar=letter, help=say)

    two = number(int, "an integer, at least 2", lambda n: n >= 2)
    add("steps", two, "the length of a sequence")
    add("updates", count, "updates of the parameters, each on a fresh batch")
    add("batch", count, "sequences in a batch")
    add("units", count, "the size of the cell")
    add("learning_rate", positive, "Adam's rate at the start")
    add("seed", seed, "of the parameters and of the data")
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default=Config.strategy,
        help="what is kept for the gradient; offload is swap_memory=True, on the CPU "
        "the same as recompute; default: %(default)s",
    )
    parser.add_argument(
        "--limit-gb",
        type=positive,
        default=0.5,
        metavar="X",
        help="refuse to train if a step would need more memory; default: %(default)s",
    )
    figure = parser.add_mutually_exclusive_group()
    figure.add_argument(
        "--figure",
        type=Path,
        default=str(FIGURE),
        metavar="PATH",
        help="where to draw; default: %(default)s",
    )
    figure.add_argument("--no-figure", action="store_true", help="draw nothing")
    flags = vars(parser.parse_args(argv))
    path, limit = flags.pop("figure"), 1e9 * flags.pop("limit_gb")
    if flags.pop("no_figure"):
        path = None
    else:
        check_figure(parser, path)
    return Config(**flags), limit, path
