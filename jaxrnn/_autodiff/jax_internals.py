"""What the package uses of JAX beyond its documented API, each name with its reason."""

# Runs a jaxpr on tracers, its constants given apart as arguments.
from jax.core import eval_jaxpr as eval_jaxpr

# In rules of differentiation: the tangent or cotangent of what is not perturbed or read.
from jax.custom_derivatives import SymbolicZero as SymbolicZero
