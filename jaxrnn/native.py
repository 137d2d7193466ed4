"""The native loops: which of them run on this machine."""

from ._sequences.native_library import status

__all__ = ["status"]
