"""The settings of the Japanese Vowels example, and its flags."""

import argparse
import inspect
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jaxrnn

OUTPUT = Path("japanese_vowels_output")


def number(
    kind: type[int] | type[float], wanted: str, accepts: Callable[[float], bool]
) -> Callable[[str], Any]:
    """The type of a flag whose value must be `wanted`; NaN never is."""

    def convert(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    return convert


count = number(int, "an integer, at least 1", lambda n: n >= 1)
seed = number(int, "an integer from 0 to 2147483647", lambda n: 0 <= n < 2**31)
positive = number(float, "a finite number above 0", lambda x: 0 < x < math.inf)
non_negative = number(float, "a finite number, at least 0", lambda x: 0 <= x < math.inf)
probability = number(float, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def cells() -> dict[str, Callable[[int], jaxrnn.RNNCell]]:
    """The cells of jaxrnn that need to be told their size and nothing else."""

    def is_sized(value: Any) -> bool:
        if not (inspect.isclass(value) and issubclass(value, jaxrnn.RNNCell)):
            return False
        arguments = inspect.signature(value).parameters.values()
        needed = [item.name for item in arguments if item.default is item.empty]
        return needed == ["num_units"]

    return {name: value for name, value in vars(jaxrnn).items() if is_sized(value)}


@dataclass(frozen=True)
class Config:
    """The net and its training; each field is a flag."""

    cell: str = field(
        default="LSTMCell",
        metadata={"choices": sorted(cells()), "help": "the kind of cell"},
    )
    direction: str = field(
        default="bidirectional",
        metadata={
            "choices": ["bidirectional", "forward"],
            "help": "read an utterance both ways, or from its start alone",
        },
    )
    layers: int = field(default=1, metadata={"type": count, "help": "layers of cells"})
    units: int = field(
        default=64, metadata={"type": count, "help": "the size of each cell"}
    )
    epochs: int = field(
        default=60, metadata={"type": count, "help": "passes over the training set"}
    )
    batch_size: int = field(
        default=27, metadata={"type": count, "help": "utterances in a step of training"}
    )
    learning_rate: float = field(
        default=2e-3, metadata={"type": positive, "help": "Adam's rate at the start"}
    )
    dropout: float = field(
        default=0.3,
        metadata={"type": probability, "help": "share of the cells' outputs to drop"},
    )
    smoothing: float = field(
        default=0.05,
        metadata={
            "type": probability,
            "help": "share of a label spread over all speakers",
        },
    )
    shift: float = field(
        default=0.3,
        metadata={
            "type": non_negative,
            "help": "deviation of the constant added to a coefficient of an utterance",
        },
    )
    noise: float = field(
        default=0.2,
        metadata={
            "type": non_negative,
            "help": "deviation of the noise added to each number of a frame",
        },
    )


def make_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Makes the folder, and sees that files can be made in it, before the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --output: cannot write to {folder}: {error.strerror}")


def parse(
    description: str | None, argv: Sequence[str] | None
) -> tuple[Config, argparse.Namespace]:
    """The flags: one for each field of `Config`, and those of the run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_argument_group("the net and its training")
    for item in fields(Config):
        say = dict(item.metadata)
        say["help"] += "; default: %(default)s"
        if "choices" not in say:
            say["metavar"] = "N" if item.type is int else "X"
        model.add_argument(
            f"--{item.name.replace('_', '-')}", default=item.default, **say
        )
    run = parser.add_argument_group("the run")
    nets = run.add_mutually_exclusive_group()
    nets.add_argument(
        "--seeds",
        type=count,
        default="5",  # Text, for argparse takes the very default as not given.
        metavar="N",
        help="train N nets, each with its own seed; default: %(default)s",
    )
    nets.add_argument(
        "--ensemble",
        type=count,
        nargs="?",
        const=11,
        metavar="N",
        help="train N nets (11) and average their probabilities as well",
    )
    nets.add_argument(
        "--cross-validate",
        type=count,
        nargs="?",
        const=3,
        metavar="N",
        help="train on four fifths of the training set and ask for the rest, fold by "
        "fold, N times (3); write nothing",
    )
    run.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="the first net's seed; default: 0",
    )
    run.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"for the figure, the results and the weights; default: {OUTPUT}",
    )
    flags = parser.parse_args(argv)
    if not flags.cross_validate:
        flags.output = flags.output or OUTPUT
        make_folder(parser, flags.output)
    elif flags.output:
        parser.error("argument --output: not allowed with argument --cross-validate")
    values = {item.name: getattr(flags, item.name) for item in fields(Config)}
    return Config(**values), flags
