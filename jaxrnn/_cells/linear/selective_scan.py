"""The selective scan of Mamba (S6), whose decays depend on the inputs."""

from typing import Generic, NamedTuple, final

import jax.numpy as jnp

from ..._base.math import at_least_float32, widest_dtype
from ..._base.trees import TensorShape
from ..._base.typing import Array, DType, Key, Leaf, Params, PyTree
from ..._base.unit_axes import without_unit_axes
from .. import fields
from ..params import ParamSpec, Specs, ones
from ..step_checks import check_named_inputs
from .cell import Coefficients, LinearRecurrenceCell


class S6Inputs(NamedTuple, Generic[Leaf]):
    """The inputs of one step of a selective scan.

    Attributes:
        x: The inputs, `[batch, channels]`.
        dt: The time steps, positive, `[batch, channels]`.
        b: The weights with which inputs are added to the states, `[batch, states]`.
        c: The weights of the states in the outputs, `[batch, states]`.
    """

    x: Leaf
    dt: Leaf
    b: Leaf
    c: Leaf


@final
@fields.dataclass
class S6MemoryCell(LinearRecurrenceCell[Array]):
    """The selective scan of Mamba (S6), without projections.

    For each channel, with a state h of N numbers::

        h'     = exp(dt A) * h + dt x b,    A = -exp(A_log)
        output = dot(c, h') + D x

    A layer around the cell computes dt, b and c from its inputs.

    Shapes, for `H = num_units` and `N = num_states`: inputs `S6Inputs`, with x and dt
    `[batch, H]`, b and c `[batch, N]`; output `[batch, H]`; state `[batch, H, N]`;
    `A_log` `[H, N]`; `D` `[H]`. Names and shapes match the authors' code. Initially,
    each row of `exp(A_log)` is 1, ..., N, and D is 1.

    Attributes:
        num_units: `H`, the number of channels.
        num_states: `N`, the number of states of each channel.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `dtype` is not floating-point.

    Source: arXiv:2312.00752, section 3; `selective_scan_ref` of the package
    `mamba-ssm`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x, b = jnp.ones((3, 5, 8)), jnp.ones((3, 5, 16))
        >>> inputs = jaxrnn.S6Inputs(x=x, dt=0.1 * x, b=b, c=b)
        >>> cell = jaxrnn.S6MemoryCell(8)
        >>> first = jax.tree.map(lambda values: values[:, 0], inputs)
        >>> bound = cell.bind(cell.init(jax.random.key(0), first))
        >>> outputs, state = jaxrnn.dynamic_rnn(bound, inputs, dtype=x.dtype)
        >>> outputs.shape, state.shape
        ((3, 5, 8), (3, 8, 16))
    """

    num_units: int = fields.size()
    num_states: int = fields.count(default=16)
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    feature_axes = None
    output_size = property(lambda self: self.num_units)

    @property
    def state_size(self) -> TensorShape:
        """The size of the state, `[H, N]`."""
        return TensorShape([self.num_units, self.num_states])

    @property
    def input_sizes(self) -> S6Inputs:
        """The sizes of the inputs of a step."""
        sizes = [self.num_units], [self.num_units], [self.num_states], [self.num_states]
        return S6Inputs(*map(TensorShape, sizes))

    def param_specs(self, depth: int) -> Specs:
        """Specs of `A_log` and `D`."""
        a_log = ParamSpec((self.num_units, self.num_states), _init_a_log)
        return {"A_log": a_log, "D": ParamSpec((self.num_units,), ones)}

    def step_inputs(self, inputs: PyTree) -> S6Inputs[Array]:
        """Checks the inputs of a step, and returns them as `S6Inputs`."""
        return check_named_inputs(self, S6Inputs, inputs)

    def coefficients(self, params: Params, inputs: PyTree) -> Coefficients:
        """Returns the decays `exp(dt A)`, `dt x b`, and `(x, c)` for `output`."""
        dtype = at_least_float32(widest_dtype(inputs))
        x, dt, b, c = (leaf.astype(dtype) for leaf in inputs)
        rates = jnp.exp(params["A_log"].astype(dtype))[None]
        decays = lambda dt, rates: jnp.exp(-dt[..., None] * rates)
        outer = lambda x, b: x[..., :, None] * b[..., None, :]
        a = without_unit_axes(decays, 1, dt, rates)
        return a, without_unit_axes(outer, 1, dt * x, b), (x, c)

    def output(self, params: Params, state: Array, rest: PyTree) -> Array:
        """Returns `dot(c, h') + D x`."""
        x, c = rest
        read = jnp.einsum("bhn,bn->bh", state.astype(c.dtype), c)
        return read + params["D"].astype(x.dtype)[None] * x


def _init_a_log(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Returns log(1), log(2), ... in each row."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)
