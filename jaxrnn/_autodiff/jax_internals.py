"""What the package uses of JAX beyond its documented API.

No other file may import these names from JAX (ruff's `banned-api`): where an upgrade of
JAX breaks the package, it breaks here.
"""

# Whether a value is known while a program is traced.
from jax.core import Tracer as Tracer

# Runs a jaxpr whose constants are arguments, so that no rule keeps a tracer alive.
from jax.core import eval_jaxpr as eval_jaxpr

# The tangent of what is not perturbed, the cotangent of what is not read: without it
# such values cost arrays of zeros.
from jax.custom_derivatives import SymbolicZero as SymbolicZero

# The tangent of an integer in a rule with symbolic zeros.
from jax.custom_derivatives import zero_from_primal as zero_from_primal

# The program of a cell's updates tells whether its units can be divided among devices.
from jax.extend.core import ClosedJaxpr as ClosedJaxpr
from jax.extend.core import Jaxpr as Jaxpr
from jax.extend.core import JaxprEqn as JaxprEqn
from jax.extend.core import Literal as Literal

# An operation with custom rules: `jax.custom_jvp` loses them where JAX partially
# evaluates a program, and nothing documented reveals for which platform it is compiled.
from jax.extend.core import Primitive as Primitive

# Runs the program that a primitive stands for.
from jax.extend.core import jaxpr_as_fun as jaxpr_as_fun

# Writes a program for readers of StableHLO that are older than this JAX.
from jax.extend.mlir.dialects.stablehlo import (
    serialize_portable_artifact_str as serialize_portable_artifact_str,
)

# Rules of primitives: their tables, and the types that occur in the rules.
from jax.interpreters.ad import Zero as Zero
from jax.interpreters.ad import instantiate_zeros as instantiate_zeros
from jax.interpreters.ad import is_undefined_primal as is_undefined_primal
from jax.interpreters.ad import primitive_jvps as primitive_jvps
from jax.interpreters.ad import primitive_transposes as primitive_transposes
from jax.interpreters.batching import (
    fancy_primitive_batchers as fancy_primitive_batchers,
)
from jax.interpreters.mlir import lower_fun as lower_fun
from jax.interpreters.mlir import register_lowering as register_lowering
from jax.interpreters.partial_eval import dce_rules as dce_rules

# Finds what a program reads: nothing else is recorded or computed.
from jax.interpreters.partial_eval import dce_jaxpr as dce_jaxpr
