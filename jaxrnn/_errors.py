"""How values are described in messages, and the two error classes of our own.

Every message reads `<where>: <what must hold>, got <what came>. <what to do>.`
"""

from typing import Any

import jax
import numpy as np


class KindError(TypeError, AssertionError):
    """A `TypeError` where TensorFlow asserts: scripts that catch either still do."""


class EntryError(ValueError, IndexError):
    """A `ValueError` where TensorFlow runs off the end of a list of entries."""


def describe(value: Any) -> str:
    """`float32[4, 8]` for anything with a shape and dtype, else what it is."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{dtype}{list(shape)}"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    return type(value).__name__


def describe_structure(tree: Any) -> str:
    """The nest without its leaves: `LSTMStateTuple(c=*, h=*)`."""
    return repr(jax.tree.map(lambda _: _Leaf(), tree))


class _Leaf:
    def __repr__(self) -> str:
        return "*"


def leaf_name(name: str, path: tuple) -> str:
    """`state.c`, `inputs['a'][0]`: an argument's leaf as one would write it."""
    return name + jax.tree_util.keystr(path)


def is_array(value: Any) -> bool:
    """Whether `value` is a concrete or traced array."""
    return isinstance(value, jax.Array | np.ndarray | np.generic)
