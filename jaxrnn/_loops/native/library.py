"""The native library, which pip builds when it installs the package."""

import ctypes
import functools
import logging
import pathlib

import jax

from ..._base import jax_internals

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
    if reason := why_not_loaded():
        return f"XLA's loops: {reason}"
    return f"native loops, for {_text('JaxrnnNativeTarget')}"


@functools.cache
def why_not_loaded() -> str | None:
    """The reason why the library is unusable, or None; does not register calls."""
    if not LIBRARY.exists():
        return (
            "the library of native loops was not built: installing the package from "
            "its source needs a C++17 compiler"
        )
    try:
        if reason := _text("JaxrnnNativeError"):
            return reason
    except (AttributeError, OSError) as error:
        return f"the library of native loops cannot be loaded: {error}"
    if jax_internals.MISSING is not None:
        return f"the native loops do not fit this JAX: {jax_internals.MISSING}"
    return None


@functools.cache
def register() -> str | None:
    """Registers the library's calls with JAX, unless they are already registered.

    Returns:
        The reason for a failure, which is also logged; None after a success.
    """
    reason = why_not_loaded()
    if reason is None:
        try:
            for name in _CALLS:
                symbol = getattr(_load(), f"JaxrnnNative{name.title()}")
                capsule, target = jax.ffi.pycapsule(symbol), f"jaxrnn_native_{name}"
                jax.ffi.register_ffi_target(target, capsule, platform="cpu")
            return None
        except (AttributeError, RuntimeError) as error:
            reason = f"the native loops do not fit this JAX: {error}"
    _log.info("XLA's loops run: %s.", reason)
    return reason


def _text(symbol: str) -> str:
    """Calls a function of the library that returns text."""
    function = getattr(_load(), symbol)
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def _load() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))
