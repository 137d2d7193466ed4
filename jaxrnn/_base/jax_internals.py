"""What the package uses of JAX beyond its documented API.

No other file may import these names from JAX (ruff's `banned-api`): where an upgrade of
JAX breaks the package, it breaks here.
"""

# Runs a jaxpr whose constants are arguments: `raw_rnn` differentiates with respect to
# all that a user's function closes over, and passes its integers on.
from jax.core import eval_jaxpr as eval_jaxpr
