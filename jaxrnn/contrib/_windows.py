"""Windows of the inputs, over which cells of time and frequency run."""

import collections
import functools
from typing import Any

from .._base.serialization import serializable
from ._fields import set_counts, set_numbers


def check_window(cell: Any) -> None:
    """Checks and normalizes the fields of windows, the clip, and the number of shards.

    Raises:
        ValueError: If one is not given, or out of its range.
        TypeError: If one is not a number.
    """
    for field in ("feature_size", "frequency_skip", "num_unit_shards"):
        if getattr(cell, field) is None:
            raise ValueError(
                f"{type(cell).__name__}: `{field}` must be given, got None. The cell "
                "runs over windows of `feature_size` inputs, `frequency_skip` apart."
            )
        set_counts(cell, field)
    set_numbers(cell, "cell_clip", low=0)


def count_windows(size: int, cell: Any) -> int:
    """The number of windows of a cell that fit into `size` inputs."""
    return max(0, (size - cell.feature_size) // cell.frequency_skip + 1)


@functools.cache
def state_type(name: str, prefixes: tuple[str, ...], blocks: tuple[int, ...]) -> type:
    """The class of the state, the same for equal arguments.

    Args:
        name: Its name.
        prefixes: That of the fields of each direction.
        blocks: The number of windows of each block.

    Returns:
        A named tuple with the fields `<prefix>_f<window>_b<block>_c` and `..._m`.
    """
    fields = [
        f"{prefix}_f{window:02}_b{block:02}_{leaf}"
        for prefix in prefixes
        for block, count in enumerate(blocks)
        for window in range(count)
        for leaf in "cm"
    ]
    made: Any = collections.namedtuple(name, fields)
    # Pickle would look for a class of that name in this module.
    arguments = name, prefixes, blocks
    made.__reduce__ = lambda self: (_remake, (arguments, tuple(self)))
    serialized_name = f"{name}_{'_'.join(prefixes)}_{'_'.join(map(str, blocks))}"
    return serializable(made, serialized_name)


def _remake(arguments: tuple, leaves: tuple) -> Any:
    return state_type(*arguments)(*leaves)
