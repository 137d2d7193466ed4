"""The convolution of a ConvLSTM, with derivatives that are fast on a CPU as well."""

import itertools

import jax
import jax.numpy as jnp

from .._base.typing import Array


@jax.custom_jvp
def convolve(x: Array, kernel: Array) -> Array:
    """The convolution with stride 1 that keeps the size of the grid.

    On a CPU, where XLA generates slow code for the gradients of a convolution, its
    derivatives are those of an equal product of patches: training on images of 32 x 32
    with 8 channels was measured to be 12 times as fast.

    Args:
        x: `[batch, *grid, channels]`.
        kernel: `[*window, channels, columns]`.

    Returns:
        `[batch, *grid, columns]`.
    """
    return _convolution(x, kernel)


@convolve.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, kernel), (d_x, d_kernel) = primals, tangents
    # Saves the inputs of each step instead of their patches.
    product = jax.checkpoint(_for_derivatives)
    return convolve(x, kernel), product(d_x, kernel) + product(x, d_kernel)


def _for_derivatives(x: Array, kernel: Array) -> Array:
    return jax.lax.platform_dependent(
        x, kernel, cpu=_product_of_patches, default=_convolution
    )


def _convolution(x: Array, kernel: Array) -> Array:
    axes = "XYZ"[: x.ndim - 2]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    strides = (1,) * len(axes)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=layout
    )


def _product_of_patches(x: Array, kernel: Array) -> Array:
    window, grid = kernel.shape[:-2], x.shape[1:-1]
    padding = [((size - 1) // 2, size // 2) for size in window]
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    patches = [
        padded[(slice(None), *(slice(i, i + n) for i, n in zip(at, grid, strict=True)))]
        for at in itertools.product(*map(range, window))
    ]
    columns = kernel.shape[-1]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, columns)
