"""The states of grid LSTMs: named tuples, with a c and an m for each window."""

import collections
import functools
from typing import Any

from .._base.serialization import serializable


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
