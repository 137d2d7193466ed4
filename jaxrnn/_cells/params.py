"""Parameters: their specs, TensorFlow's default initializers, and their creation."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones as ones, zeros as zeros

from .._base.arguments import as_axis_size, check_function
from .._base.errors import error_note, expect, is_array, name_of
from .._base.trees import map_named, named_dims
from .._base.typing import Array, DType, Initializer, Key, Params
from . import fields


def glorot_uniform(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Draws from `U(-l, l)` with `l = sqrt(6 / (fan_in + fan_out))`.

    `glorot_uniform(key, shape, dtype)` returns an array. Unlike the initializer in
    `jax.nn.initializers`, this function accepts vectors: the size of a vector counts as
    `fan_in` and as `fan_out`.

    Source: Glorot and Bengio, AISTATS 2010; `tf.compat.v1.glorot_uniform_initializer`.
    """
    limit = math.sqrt(6 / max(1, shape[0] + shape[-1]))
    return jax.random.uniform(key, shape, dtype, -limit, limit)


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """The shape and the initializer of one parameter.

    Attributes:
        shape: The shape.
        initializer: `initializer(key, shape, dtype) -> array`, for example from
            `jax.nn.initializers` or `jaxrnn.initializers`.
        input_rows: The number of leading rows of a kernel that multiply the inputs, or
            None. `jaxrnn.initializers.by_part` requires this number for kernels.
        blocks: The number of equal blocks of columns, such as 4 for the gates of an
            LSTM; see `Stage`.

    Raises:
        TypeError: If `shape` is not a tuple of integers, or `initializer` is not a
            function.
        ValueError: If a size is negative.
    """

    shape: tuple[int, ...]
    initializer: Initializer
    input_rows: int | None = None
    blocks: int | None = None

    def __post_init__(self) -> None:
        sizes = named_dims("shape", self.shape).items()
        shape = tuple(as_axis_size(name, size) for name, size in sizes)
        object.__setattr__(self, "shape", shape)
        check_function("initializer", self.initializer)


Specs: TypeAlias = dict[str, Any]
"""Nested dicts of `ParamSpec`s."""


@fields.dataclass
class PartInitializer(fields.Hyperparameters):
    """An initializer that receives a `ParamSpec`, with the rows and blocks of a kernel.

    Attributes:
        function: `function(key, spec, dtype, *args) -> array`, defined at module level.
        args: The other arguments of `function`.
        bias: If the initializer draws the kernels of a cell, the initializer of the
            cell's biases. If None, the biases are drawn as usual.
    """

    function: Callable[..., Array]
    args: tuple = ()
    bias: Initializer | None = None

    def __repr__(self) -> str:
        args = [*self.args, *([self.bias] if self.bias else [])]
        name = self.function.__name__.removeprefix("_")
        return f"{name}({', '.join(map(name_of, args))})"

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draws the parameter; `shape` may be a `ParamSpec`."""
        spec = shape if isinstance(shape, ParamSpec) else ParamSpec(shape, self)
        return self.function(key, spec, dtype, *self.args)


def draw(initializer: Initializer, key: Key, spec: ParamSpec, dtype: DType) -> Array:
    """Draws an array for `spec` from `initializer`; `spec.initializer` is ignored."""
    is_for_parts = isinstance(initializer, PartInitializer)
    return initializer(key, spec if is_for_parts else spec.shape, dtype)


def bias_initializer(kernel: Initializer, default: Initializer) -> Initializer:
    """Returns `kernel.bias` if `kernel` is a `by_part` with a bias, else `default`."""
    return (kernel.bias if isinstance(kernel, PartInitializer) else None) or default


def kernel_and_bias(
    cell: Any, kernel: Initializer = glorot_uniform, bias: Initializer = zeros
) -> tuple[Initializer, Initializer]:
    """Returns a cell's kernel and bias initializers; a default replaces None."""
    kernel = cell.kernel_initializer or kernel
    return kernel, cell.bias_initializer or bias_initializer(kernel, bias)


def check_is_units(cell: Any, depth: int) -> None:
    """Raises ValueError unless the depth of the inputs is `cell.num_units`."""
    must = f"have depth `num_units` ({cell.num_units})"
    fix = "To project the inputs, use `jaxrnn.contrib.InputProjectionWrapper`."
    expect(depth == cell.num_units, "inputs", must, depth, fix)


def input_specs(
    cell: object,
    depth: int,
    columns: int,
    blocks: int | None = None,
    *,
    kernel: Initializer = glorot_uniform,
    bias: Initializer = zeros,
) -> Specs:
    """Returns specs of a `kernel` `[depth, columns]` of the inputs, and a `bias`."""
    kernel, bias = kernel_and_bias(cell, kernel, bias)
    return {
        "kernel": ParamSpec((depth, columns), kernel, depth, blocks),
        "bias": ParamSpec((columns,), bias, blocks=blocks),
    }


def head_size(cell: Any) -> int:
    """The number of units in each of the `num_heads` heads.

    Raises:
        ValueError: If `num_heads` does not divide `num_units`.
    """
    units = cell.num_units
    heads = cell.num_heads
    expect(units % heads == 0, "num_heads", f"divide `num_units` ({units})", heads)
    return units // heads


def make_params(specs: Specs, key: Key, dtype: DType) -> Params:
    """Creates the parameters of nested `ParamSpec`s, each from a separate key.

    Raises:
        TypeError: If an initializer does not return an array of the requested shape, or
            if a leaf is not a `ParamSpec`.
    """
    keys = iter(jax.random.split(key, max(1, len(jax.tree.leaves(specs)))))
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)

    def make(name: str, spec: ParamSpec) -> Array:
        must = f"return a `ParamSpec` for `{name}`"
        expect(isinstance(spec, ParamSpec), "param_specs", must, spec, error=TypeError)
        called = f"(key, {spec.shape}, {jnp.dtype(dtype).name})"
        with error_note(
            f"Raised by the initializer of `{name}`, called with {called}."
        ):
            leaf = draw(spec.initializer, next(keys), spec, dtype)
            fits = is_array(leaf) and leaf.shape == spec.shape
            must = f"return an array of shape {spec.shape}"
            fix = (
                "Call the function first, as in `orthogonal()`."
                if callable(leaf)
                else ""
            )
            expect(fits, "initializer", must, leaf, fix, error=TypeError)
            is_real = is_complex or not jnp.iscomplexobj(leaf)
            must = "return a real array for a real dtype"
            fix = f"For complex parameters, pass `dtype=jnp.{leaf.dtype}` to `init`."
            expect(is_real, "initializer", must, leaf, fix, error=TypeError)
        return jnp.asarray(leaf, dtype)

    return map_named("params", make, specs)


def affine_specs(rows: int, columns: int, make: Initializer = glorot_uniform) -> Specs:
    """Returns specs of a kernel `[rows, columns]` and of a bias `[columns]`.

    `make` initializes the kernel. The bias is initially zeros.
    """
    bias = ParamSpec((columns,), zeros)
    return {"kernel": ParamSpec((rows, columns), make), "bias": bias}
