"""Native loops of recurrent cells for CPUs, as targets of JAX's FFI.

`jaxrnn` calls them; this package only registers them.
"""

import ctypes
import functools
import pathlib

import jax

INTERFACE = 1
"""The version of the calls: their arguments, results and attributes."""

_SYMBOLS = {
    "jaxrnn_native_forward": "JaxrnnNativeForward",
    "jaxrnn_native_backward": "JaxrnnNativeBackward",
    "jaxrnn_native_weights": "JaxrnnNativeWeights",
    "jaxrnn_native_inputs": "JaxrnnNativeInputs",
}


@functools.cache
def register() -> None:
    """Registers the calls for CPUs.

    It may be called more than once.

    Raises:
        OSError: If the library cannot be loaded.
    """
    library = ctypes.CDLL(str(pathlib.Path(__file__).with_name("libjaxrnn_native.so")))
    for target, symbol in _SYMBOLS.items():
        capsule = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(target, capsule, platform="cpu")
