"""Types for the flags of the examples; tyro rejects invalid values, with the reason.

A script annotates `steps: Count` or `output: Picture`, and needs no further checks.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from matplotlib.figure import Figure
from tyro.constructors import PrimitiveConstructorSpec


def flag(kind: type, read: Callable[[str], Any]) -> PrimitiveConstructorSpec:
    """A flag of one word; `read` converts it, or raises ValueError with the reason."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def number(
    kind: type, accepted: str, accepts: Callable[[float], bool]
) -> PrimitiveConstructorSpec:
    """A number for which `accepts` is true; `accepted` describes such numbers."""

    def read(word: str) -> Any:
        try:
            value = kind(word)
        except ValueError:
            value = math.nan  # Rejected by every `accepts`.
        if not accepts(value):
            raise ValueError(f"must be {accepted}, got {word!r}")
        return value

    return flag(kind, read)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a file system error into the reason why a flag is rejected."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot write to {path}: {error.strerror}") from None


def read_picture(word: str) -> Path:
    """The path of a picture, in a format and a folder that matplotlib can write to."""
    path, kinds = Path(word), sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"must end in one of {', '.join(kinds)}, got {word!r}")
    if path.is_dir():
        raise ValueError(f"must be a file, but {path} is a folder")
    with writing(path):
        tempfile.TemporaryFile(dir=path.parent).close()
    return path


def read_folder(word: str) -> Path:
    """The path of a writable folder, which is created if it does not exist."""
    path = Path(word)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    return path


Count = Annotated[int, number(int, "an integer, at least 1", lambda n: n >= 1)]
NaturalNumber = Annotated[int, number(int, "an integer, at least 0", lambda n: n >= 0)]
Seed = Annotated[
    int, number(int, "an integer from 0 to 2147483647", lambda n: 0 <= n < 2**31)
]
Positive = Annotated[
    float, number(float, "a finite number above 0", lambda x: 0 < x < math.inf)
]
NonNegative = Annotated[
    float, number(float, "a finite number, at least 0", lambda x: 0 <= x < math.inf)
]
Share = Annotated[float, number(float, "a number from 0 to 1", lambda x: 0 <= x <= 1)]
Picture = Annotated[Path, flag(Path, read_picture)]
Folder = Annotated[Path, flag(Path, read_folder)]
