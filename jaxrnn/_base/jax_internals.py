"""What the package uses of JAX beyond its documented API.

No other file may import these names from JAX (ruff's `banned-api`): where an upgrade of
JAX breaks the package, it breaks here.
"""

# Runs a jaxpr whose constants are arguments: `raw_rnn` is differentiated with respect
# to all that a user's function closes over, and so is a loop over a cell that is no
# pytree. (`jax.closure_convert` finds only what may be differentiated, and its cache
# keeps the arrays alive.)
from jax.core import eval_jaxpr as eval_jaxpr

# Defines the keys of steps, which hold that of the run as well.
from jax.extend.random import define_prng_impl as define_prng_impl

# The operation of the native loops and of `raw_rnn`'s gradient, which has a program for
# CPUs, one for other platforms, and a transpose of its own. Without one of these XLA's
# program runs instead.
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
    """Writes a program for readers of StableHLO that are older than this JAX."""
    from jax.extend.mlir.dialects import stablehlo

    return stablehlo.serialize_portable_artifact_str(module, version)
