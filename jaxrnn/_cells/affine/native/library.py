"""The library of the native loops, which pip builds."""

import ctypes
import functools
import logging
import pathlib

import jax

from ...._base import jax_internals

_log = logging.getLogger("jaxrnn")

LIBRARY = pathlib.Path(__file__).with_name("libjaxrnn_native.so")
_CALLS = "forward", "backward", "weights", "inputs"


def native_status() -> str:
    """Reports, in one line, which loops are used on a single CPU device.

    Returns:
        A text such as "native loops, for avx512", with the instruction set in use
        (`avx512`, `avx2` or `baseline`); or "XLA's loops: " and the reason why native
        loops are unavailable.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.native_status().startswith(("native loops, for ", "XLA's loops: "))
        True
    """
    if reason := why_unusable():
        return f"XLA's loops: {reason}"
    return f"native loops, for {_text('JaxrnnNativeTarget')}"


@functools.cache
def why_unusable() -> str | None:
    """The reason why the native loops cannot run, which is also logged; or None."""
    reason = _why_not_loaded() or _why_incompatible()
    if reason:
        _log.info("XLA's loops run, because %s.", reason)
    return reason


def _why_not_loaded() -> str | None:
    if not LIBRARY.exists():
        return (
            "the native loops were not built. Install a C++17 compiler, then reinstall "
            "the package"
        )
    try:
        return _text("JaxrnnNativeError") or None
    except (AttributeError, OSError) as error:
        return f"the native loops cannot be loaded: {error}"


def _why_incompatible() -> str | None:
    reason = jax_internals.MISSING or register()
    return reason and f"the native loops are incompatible with this JAX: {reason}"


@functools.cache
def register() -> str | None:
    """Registers the library's calls with JAX; returns why it failed, or None.

    `import jaxrnn` calls this function. A process can then load and run an executable
    that another process serialized, although it has traced no native loop itself. The
    function takes less than a millisecond, and chooses no instruction set.
    """
    try:
        for name in _CALLS:
            symbol = getattr(_load(), f"JaxrnnNative{name.title()}")
            capsule = jax.ffi.pycapsule(symbol)
            target = f"jaxrnn_native_{name}"
            jax.ffi.register_ffi_target(target, capsule, platform="cpu")
    except (AttributeError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _text(symbol: str) -> str:
    """Calls a function of the library that returns text."""
    function = getattr(_load(), symbol)
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def _load() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


register()
