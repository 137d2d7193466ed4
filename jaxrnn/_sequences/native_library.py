"""The library of the native loops, which is built when the package is installed."""

import ctypes
import functools
import logging
import pathlib

import jax

from .native_operation import why_not_in_jax

_log = logging.getLogger("jaxrnn")

LIBRARY = pathlib.Path(__file__).with_name("libjaxrnn_native.so")
_SYMBOLS = {
    "jaxrnn_native_forward": "JaxrnnNativeForward",
    "jaxrnn_native_backward": "JaxrnnNativeBackward",
    "jaxrnn_native_weights": "JaxrnnNativeWeights",
    "jaxrnn_native_inputs": "JaxrnnNativeInputs",
}


def native_status() -> str:
    """Which loops run on one CPU device, and why, in one line.

    Returns:
        "native loops, for avx512", with the instruction set that runs: `avx512`, `avx2`
        or `baseline`. Else "XLA's loops: " and why there are no native ones.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.native_status().startswith(("native loops, for ", "XLA's loops: "))
        True
    """
    reason = why_not_loaded()
    if reason:
        return f"XLA's loops: {reason}"
    return f"native loops, for {_text('JaxrnnNativeTarget')}"


@functools.cache
def why_not_loaded() -> str | None:
    """Why the library cannot be used, or None. It is not registered for that."""
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
    reason = why_not_in_jax()
    return reason and f"the native loops do not fit this JAX: {reason}"


@functools.cache
def register() -> str | None:
    """Registers the library's calls with JAX, once.

    Returns:
        Why that failed, which is logged, or None.
    """
    reason = why_not_loaded()
    try:
        if reason is None:
            for target, symbol in _SYMBOLS.items():
                capsule = jax.ffi.pycapsule(getattr(_load(), symbol))
                jax.ffi.register_ffi_target(target, capsule, platform="cpu")
            return None
    except (AttributeError, RuntimeError) as error:
        reason = f"the native loops do not fit this JAX: {error}"
    _log.info("XLA's loops run: %s.", reason)
    return reason


def _text(symbol: str) -> str:
    """What this function of the library returns."""
    function = getattr(_load(), symbol)
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def _load() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))
