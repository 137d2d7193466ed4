"""Raises errors and warnings, and describes values in their messages.

A message reads `<argument> must be <this>, got <that>. <Fix>.`
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The packages whose frames may be between a user's line and the code that warns: this
# package, the transformations of JAX, and the modules of Flax.
_BETWEEN = (__name__.partition(".")[0], "jax", "flax")


class KindError(TypeError, AssertionError):
    """A `TypeError` that is also an `AssertionError`, which TensorFlow raises."""


class EntryError(ValueError, IndexError):
    """A `ValueError` that is also an `IndexError`, which TensorFlow raises."""


class Verbatim(str):
    """A text that messages show without quotes, also within a nest."""

    __repr__ = str.__str__


def name_of(value: object) -> str:
    """The name of a function or class; the `repr` of any other value."""
    return getattr(value, "__name__", None) or repr(value)


def describe(value: object) -> str:
    """Describes a value in a message.

    * An array is shown as `float32[4, 8]`.
    * None, a number or a string is shown by its `repr`.
    * A short list or tuple is shown with a description of each entry.
    * Any other object is shown by its type.
    """
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{dtype}{list(shape)}"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, tuple | list) and not jax.tree_util.all_leaves([value]):
        parts = describe_leaves(value)
        kind = type(value).__name__
        return parts if len(parts) <= 80 else f"{kind} of length {len(value)}"
    return type(value).__name__


def expect(
    ok: object,
    name: str,
    must: str,
    got: object,
    fix: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raises an error unless `ok`: "`name` must <must>, got <got>. <fix>".

    Args:
        ok: Whether the value is accepted; not a traced array.
        name: The name of the argument.
        must: What the argument must do, such as "be at least 1".
        got: The value, which the message shows as `describe(got)`.
        fix: A sentence that says what the caller can do, or "".
        error: The class of the error.
    """
    if not ok:
        raise error(f"`{name}` must {must}, got {describe(got)}. {fix}".rstrip())


def counted(count: int, noun: str, plural: str = "") -> str:
    """The count with its noun, such as `1 row` or `4 rows`.

    `plural` is the plural of the noun; by default, the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def describe_structure(tree: object) -> str:
    """The structure of a nest, such as `LSTMStateTuple(c=*, h=*)`."""
    return repr(jax.tree.map(lambda _: Verbatim("*"), tree))


def describe_leaves(tree: object) -> str:
    """A nest with a description of each leaf, such as `{'a': float32[4, 8]}`."""
    return repr(jax.tree.map(lambda leaf: Verbatim(describe(leaf)), tree))


def leaf_name(name: str, path: tuple) -> str:
    """The Python expression for a leaf, such as `state.c` or `inputs['a'][0]`."""
    return name + jax.tree_util.keystr(path)


def is_array(value: object) -> bool:
    """Whether `value` is an array of numbers, booleans or keys, traced or not."""
    if isinstance(value, np.ndarray | np.generic):
        # Extended dtypes, such as bfloat16, have the same `kind` as records, but a
        # different type.
        return value.dtype.kind not in "OUS" and value.dtype.type is not np.void
    return isinstance(value, jax.Array)


def is_key(value: Any) -> bool:
    """Whether `value` is an array of typed random keys."""
    return is_array(value) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def check_not_masked(name: str, value: object) -> None:
    """Raises TypeError for a masked NumPy array, whose mask JAX cannot represent."""
    if isinstance(value, np.ma.MaskedArray):
        must = "must be an array without a mask"
        raise TypeError(f"`{name}` {must}. Pass `{name}.filled(0)`.")


@contextlib.contextmanager
def error_note(text: str) -> Iterator[None]:
    """Adds a note to every error that the body of the `with` statement raises."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


def warn(text: str) -> None:
    """Warns at the line of the user's code that called this package.

    Python 3.11 lacks the argument `skip_file_prefixes` of `warnings.warn`, so this
    function counts the frames between the user's line and `warnings.warn`.
    """
    frame = sys._getframe(1)
    level = 2
    while frame.f_back and _package_of(frame) in _BETWEEN:
        frame = frame.f_back
        level += 1
    warnings.warn(text, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    """The package of the frame's module, or "None" for code that `exec` runs."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]
