"""Modules and functions that the layers share, with the authors' initial values."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.math import at_least_float32, cast, widest_dtype
from ..._base.modules import import_optional
from ..._base.typing import Array, ArrayLike, DType, Initializer, Params, PyTree
from ..._base.unit_axes import unit
from ..._cells.base import BoundCell
from ..._cells.short_conv import ShortConvCell
from ..._cells.step_checks import check_state
from ..._drivers.dynamic_rnn import dynamic_rnn

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")


def uniform(scale: float) -> Initializer:
    """Draws uniform numbers up to `scale / sqrt(inputs)` in magnitude."""
    initializers = jax.nn.initializers
    return initializers.variance_scaling(scale**2 / 3, "fan_in", "uniform")


# Create this initializer once. Layers store their initializers, and `nnx.jit` compiles
# only once for layers of equal sizes if the initializers are equal.
PYTORCH_UNIFORM = uniform(1.0)  # Like PyTorch's linear layers.


@dataclasses.dataclass(frozen=True)
class ModuleFactory:
    """Creates the modules and the parameters of one layer.

    Attributes:
        dtype: The dtype of the computation. None: see `LinearAttentionLayer`.
        param_dtype: The dtype of the parameters.
        rngs: The stream for the parameters.
    """

    dtype: DType | None
    param_dtype: DType
    rngs: nnx.Rngs

    def linear(
        self,
        inputs: int,
        outputs: int,
        init: Initializer = PYTORCH_UNIFORM,
        *,
        bias: bool = False,
    ) -> nnx.Linear:
        """Creates a linear layer. The bias, if there is one, starts at zero."""
        options = {"use_bias": bias, "kernel_init": init, **vars(self)}
        return nnx.Linear(inputs, outputs, **options)

    def norm(self, size: int, epsilon: float, scale: bool = True) -> nnx.RMSNorm:
        """Creates an RMS norm over the last axis."""
        options = {"epsilon": epsilon, "use_scale": scale, **vars(self)}
        return nnx.RMSNorm(size, **options)

    def full(self, shape: Sequence[int], start: ArrayLike = 1) -> nnx.Param:
        """Creates a parameter with the initial value `start`, by default ones."""
        return nnx.Param(jnp.broadcast_to(start, shape).astype(self.param_dtype))

    def draw(self, shape: Sequence[int], least: float, largest: float) -> Array:
        """Draws uniform numbers between `least` and `largest`."""
        key = self.rngs.params()
        return jax.random.uniform(key, shape, self.param_dtype, least, largest)

    def a_log(self, heads: int, least: float = 1) -> nnx.Param:
        """Creates a parameter with logarithms of uniform numbers from `least` to 16."""
        return nnx.Param(jnp.log(self.draw((heads,), least, 16)))

    def dt_bias(self, size: int) -> nnx.Param:
        """Draws biases whose softplus (a step size) is log-uniform in [0.001, 0.1]."""
        steps = jnp.exp(self.draw((size,), math.log(0.001), math.log(0.1)))
        return nnx.Param(steps + jnp.log(-jnp.expm1(-steps)))


class ShortConv(nnx.Module):
    """A causal convolution of each channel over the last few steps."""

    def __init__(
        self, new: ModuleFactory, channels: int, width: int, bias: bool = False
    ) -> None:
        largest = width**-0.5
        draw = lambda *shape: nnx.Param(new.draw(shape, -largest, largest))
        self.kernel = draw(width, channels)
        self.bias = draw(channels) if bias else None

    def __call__(
        self, x: Array, past: Any, steps: object, implementation: str | None
    ) -> tuple[Array, Array]:
        """Returns the outputs and the last inputs; see `run_conv`."""
        kernel = self.kernel[...].astype(x.dtype)
        bias = None if self.bias is None else self.bias[...].astype(x.dtype)
        return run_conv(x, kernel, bias, past, steps, implementation)


class LowRank(nnx.Module):
    """A low-rank projection: `activation(x @ down) @ up + bias`."""

    def __init__(
        self,
        down: nnx.Linear,
        up: nnx.Linear,
        activation: Callable[[Array], Array] | None = None,
        bias: nnx.Param | None = None,
    ) -> None:
        self.down, self.up, self.activation, self.bias = down, up, activation, bias

    def __call__(self, x: Array) -> Array:
        """Returns the outputs."""
        x = self.down(x)
        x = self.up(x if self.activation is None else self.activation(x))
        return x if self.bias is None else x + broadcast_param(self.bias, x)


def broadcast_param(param: nnx.Param, x: Array) -> Array:
    """Converts a parameter to the dtype of x, and adds axes of size 1 in front."""
    array = param[...].astype(x.dtype)
    return array.reshape((1,) * (x.ndim - array.ndim) + array.shape)


def _run(
    name: str, cell: BoundCell, inputs: Any, state: PyTree, **options: Any
) -> tuple[Array, PyTree]:
    """Runs a cell from the field `name` of a layer's state; None starts from zeros."""
    dtype = widest_dtype(inputs)
    if state is not None:
        fix = "Pass the state that another call returned, a state of `zero_state`, or "
        fix += "None. Pass lengths as `sequence_length`."
        rows = jax.tree.leaves(inputs)[0].shape[:1]
        step = jax.ShapeDtypeStruct(rows, dtype)
        size = cell.state_size
        state = check_state(state, size, step, name=f"state.{name}", fix=fix)
    return dynamic_rnn(cell, inputs, initial_state=state, dtype=dtype, **options)


def run_conv(
    x: Array,
    kernel: Array,
    bias: Array | None,
    past: Any,
    steps: object,
    implementation: str | None,
) -> tuple[Array, Array]:
    """Runs the convolution of a layer; returns its outputs and its last inputs."""
    width, channels = kernel.shape
    cell = ShortConvCell(channels, width, use_bias=bias is not None)
    params = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    # A convolution supports only the implementation "scan" and the default. Other
    # implementations that the user may choose are for the memory.
    only_scan = "scan" if implementation == "scan" else None
    options = {"implementation": only_scan, **vars(steps)}
    return _run("past_inputs", cell.bind(params), x, past, **options)


def run_memory(
    layer: Any, inputs: Any, state: PyTree, steps: object, params: Params | None = None
) -> tuple[Array, PyTree]:
    """Runs the memory of a layer; returns its outputs and its state.

    The memory computes in the widest dtype of its inputs. The outputs have the dtype of
    the first input.
    """
    memory = layer.memory.bind(cast(params or {}, widest_dtype(inputs)))
    options = {"implementation": layer.implementation, **vars(steps)}
    h, last = _run("cell_state", memory, inputs, state, **options)
    return h.astype(inputs[0].dtype), last


def split_heads(x: Array, sizes: Sequence[Sequence[int]]) -> list[Array]:
    """Splits the last axis into one array `[..., heads, size]` per entry of `sizes`."""
    ends = np.cumsum([np.prod(size) for size in sizes])[:-1]
    pairs = zip(jnp.split(x, ends, axis=-1), sizes, strict=True)
    return [in_heads(part, size) for part, size in pairs]


def in_heads(x: Array, size: Sequence[int]) -> Array:
    """Splits the last axis into two, `[heads, size]`."""
    return x.reshape(*x.shape[:-1], *size)


def join_heads(x: Array) -> Array:
    """Merges the last two axes of x, `[..., heads, size]`."""
    *outer, heads, size = x.shape
    return x.reshape(*outer, heads * size)


def l2_normalized(x: Array) -> Array:
    """Scales the vectors along the last axis to length 1, in at least float32."""
    return unit(x.astype(at_least_float32(x.dtype))).astype(x.dtype)


def with_bias(x: Array, bias: nnx.Param) -> Array:
    """Computes `x + bias` in at least float32."""
    x = x.astype(at_least_float32(x.dtype))
    return x + broadcast_param(bias, x)


def softplus(x: Array, bias: nnx.Param) -> Array:
    """Computes `softplus(x + bias)` in at least float32."""
    return jax.nn.softplus(with_bias(x, bias))


def decay_rates(a_log: nnx.Param, dt: Array) -> Array:
    """Computes `exp(A_log)` with the axes of `dt`, `[batch, time, heads, ...]`."""
    rates = jnp.exp(a_log[...].astype(dt.dtype))
    return rates.reshape(1, 1, -1, *(1,) * (dt.ndim - 3))
