"""A cell with the gated delta rule, as in a layer without its convolution and norm."""

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn.extend import MatrixMemoryCell, affine, affine_specs, fields


@fields.dataclass
class GatedDeltaCell(MatrixMemoryCell):
    """One product of the inputs `[batch, I]` gives all that a step reads and writes."""

    num_units: int = fields.size()
    num_heads: int = fields.count()
    name: str | None = fields.name()

    rule = jaxrnn.DeltaMemoryCell(1, 1, 1).rule
    output_size = property(lambda self: self.num_units)
    state_size = property(lambda self: self.rule.sizes(self.num_heads, *self._head)[1])
    _head = property(lambda self: 2 * [self.num_units // self.num_heads])

    def param_specs(self, depth):
        """One kernel and one bias, with the columns q, k, v, g and beta."""
        return affine_specs(depth, 3 * self.num_units + 2 * self.num_heads)

    def project(self, params, inputs, dtype):
        """Unit keys and queries, decays of 0.5 and more, and rates below 1."""
        units = self.num_units
        columns = [units, 2 * units, 3 * units, 3 * units + self.num_heads]
        *qkv, g, beta = jnp.split(affine(params, [inputs], dtype), columns, axis=-1)
        q, k, v = (x.reshape(-1, self.num_heads, *self._head[:1]) for x in qkv)
        q, k = (x / (1e-6 + jnp.linalg.norm(x, axis=-1, keepdims=True)) for x in (q, k))
        g, beta = -jax.nn.softplus(g), jax.nn.sigmoid(beta)
        return (), jaxrnn.DeltaInputs(q, k, v, g, beta)

    def output(self, params, h, rest):
        """What the step reads, `[batch, num_units]`."""
        return h.reshape(-1, self.num_units)
