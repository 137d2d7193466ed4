"""Iterators over records, with a position that can be saved where they have one."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._base.arguments import as_count
from .._base.errors import describe


class _Indexed(Iterator[Any]):
    """The records of a sequence; the position is an index."""

    def __init__(self, records: Any) -> None:
        self._records, self._next = records, 0

    def __next__(self) -> Any:
        if self._next >= len(self._records):
            raise StopIteration
        self._next += 1
        return self._records[self._next - 1]

    def get_state(self) -> int:
        return self._next

    def set_state(self, state: int) -> None:
        fix = "Resume over the records that the state was taken from."
        count = len(self._records)
        self._next = as_count(
            "packed_batches", "state['records']", state, 0, fix, most=count
        )


def as_source(where: str, records: Any) -> Iterator[Any]:
    """An iterator over the records, with `get_state` and `set_state` if it can be.

    Raises:
        TypeError: If they are not iterable, or a dict.
    """
    can_index = hasattr(records, "__len__") and hasattr(records, "__getitem__")
    if isinstance(records, Mapping) or not (can_index or isinstance(records, Iterable)):
        raise TypeError(
            f"{where}: `records` must be a sequence or an iterable of records, got "
            f"{describe(records)}. Padded arrays go to `pack_sequences`."
        )
    iterator = iter(records)
    if can_index and not _has_state(iterator):
        return _Indexed(records)
    return iterator


def _has_state(iterator: Any) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")


def get_position(iterator: Any) -> Any:
    """The position of an iterator, to be held by JSON; None if it has none."""
    if not _has_state(iterator):
        return None
    state = iterator.get_state()
    return state.decode() if isinstance(state, bytes) else state


def set_position(iterator: Any, position: Any) -> None:
    """Goes to a position that `get_position` returned for such an iterator."""
    # The state of a Grain `DataLoader` is JSON in bytes.
    is_bytes = isinstance(iterator.get_state(), bytes)
    iterator.set_state(position.encode() if is_bytes else position)
