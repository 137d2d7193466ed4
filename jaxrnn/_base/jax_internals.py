"""The names that the package imports from outside JAX's documented API.

No other file may import these names from JAX (ruff's `banned-api` rule). If a new JAX
version moves one of the names, only this file needs a change.
"""

import jax

try:
    # Runs a jaxpr whose constants are passed as arguments. JAX can then differentiate
    # `raw_rnn`, and loops over cells that are not pytrees, with respect to all arrays
    # that the user's function closes over. (`jax.closure_convert` finds only
    # differentiable arrays, and its cache keeps these arrays in memory.)
    from jax.core import eval_jaxpr as eval_jaxpr

    # The smaller of two axis sizes, which may be symbolic. JAX documents this function
    # on its page on shape polymorphism.
    from jax.core import min_dim as min_dim

    # Defines an implementation of random keys. `cell_keys.py` combines the key of the
    # whole run and the key of a step in one key.
    from jax.extend.random import define_prng_impl as define_prng_impl
except ImportError as error:
    raise ImportError(
        f"jaxrnn was tested with JAX 0.10 to 0.12. JAX {jax.__version__} lacks a name "
        f"that jaxrnn needs: {error}. Install a newer jaxrnn or an older JAX, for "
        'example with pip install "jax<0.13"'
    ) from error

# The native loops (in C++) use an operation that has one program for CPUs, another for
# other platforms, and a custom transpose. If JAX lacks one of the names below, cells
# run in XLA's loops instead.
MISSING: str | None = None
try:
    from jax.extend.core import Primitive as Primitive
    from jax.interpreters.ad import primitive_jvps as primitive_jvps
    from jax.interpreters.ad import primitive_transposes as primitive_transposes
    from jax.interpreters.batching import primitive_batchers as primitive_batchers
    from jax.interpreters.mlir import lower_fun as lower_fun
    from jax.interpreters.mlir import register_lowering as register_lowering
except ImportError as error:
    MISSING = str(error)


def serialize_portable_artifact_str(module: str, version: str) -> bytes:
    """Serializes a program for StableHLO readers that are older than this JAX."""
    from jax.extend.mlir.dialects import stablehlo

    return stablehlo.serialize_portable_artifact_str(module, version)
