"""The calls of cuDNN through `jax.experimental.rnn`, as functions of arrays.

cuDNN takes inputs `[batch, time, depth]`, lengths of at least 1, and the parameters in
one array, gates i, f, g, o, with two biases.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jax.lax import Precision

from .._base.typing import Array, Params

# The values of `jax.default_matmul_precision` that make products exact.
EXACT = (
    "highest",
    "float32",
    "F32_F32_F32",
    "F64_F64_F64",
    "TF32_TF32_F32_X3",
    "BF16_BF16_F32_X6",
    "BF16_BF16_F32_X9",
)


def why_not_here() -> str | None:
    """Why a program that calls cuDNN cannot be traced here, or None."""
    try:
        jax.devices("cuda")
    except RuntimeError:
        return (
            "JAX asks cuDNN for sizes while a program is traced, and finds no NVIDIA "
            "GPU here"
        )
    return None


def forward(
    precision: Precision, weights: Array, x: Array, h: Array, c: Array, lengths: Array
) -> tuple[Array, Array, Array, Array]:
    """Runs all steps: `(y, h, c, reserve)`, with the states after each row's last step.

    Args:
        precision: HIGHEST, or HIGH for TF32.
        weights: As `flat_weights` returns them.
        x: `[batch, time, depth]`, float32.
        h: `[batch, units]`, float32, before the first step.
        c: `[batch, units]`, float32, before the first step.
        lengths: int32 `[batch]`, from 1 to time.
    """
    (y, h, c), residuals = rnn.lstm_fwd(
        *(x, h[None], c[None], weights, lengths),
        **_sizes(x, h),
        precision=precision,
    )
    return y, h[0], c[0], residuals[-1]


def backward(
    precision: Precision,
    weights: Array,
    x: Array,
    h: Array,
    c: Array,
    lengths: Array,
    y: Array,
    reserve: Array,
    ct_y: Array,
    ct_h: Array,
    ct_c: Array,
) -> tuple[Array, Array, Array, Array]:
    """The cotangents of `(weights, x, h, c)`.

    Args:
        precision: The precision of `forward`.
        weights: An argument of `forward`, as are the next four.
        x: `[batch, time, depth]`.
        h: `[batch, units]`.
        c: `[batch, units]`.
        lengths: `[batch]`.
        y: A result of `forward`, `[batch, time, units]`.
        reserve: A result of `forward`, `[floats]`.
        ct_y: The cotangent of `y`, zeros beyond the lengths.
        ct_h: The cotangent of the `h` after the last step, `[batch, units]`.
        ct_c: The cotangent of the `c` after the last step, `[batch, units]`.
    """
    ct_x, ct_h, ct_c, c_weights, _ = rnn.lstm_bwd(
        **_sizes(x, h),
        precision=precision,
        residuals=(x, h[None], c[None], weights, lengths, y, reserve),
        gradients=(ct_y, ct_h[None], ct_c[None]),
    )
    return c_weights, ct_x, ct_h[0], ct_c[0]


def _sizes(x: Array, h: Array) -> dict[str, Any]:
    return {
        "input_size": x.shape[-1],
        "hidden_size": h.shape[-1],
        "num_layers": 1,
        "dropout": 0.0,
        "bidirectional": False,
    }


class Calls(NamedTuple):
    """The functions that call cuDNN; tests replace them.

    Attributes:
        why_not_here: Returns why cuDNN cannot be called here, or None.
        forward: As the function `forward`.
        backward: As the function `backward`.
    """

    why_not_here: Callable[[], str | None]
    forward: Callable[..., tuple[Array, ...]]
    backward: Callable[..., tuple[Array, ...]]


CUDNN = Calls(why_not_here, forward, backward)


def precision_here() -> Precision:
    """HIGHEST for exact products, HIGH for TF32, which is XLA's default.

    JAX's wrapper refuses the other names ("default", "bfloat16"), which mean TF32 to
    XLA on a GPU.
    """
    config: Any = jax.config
    named = config.jax_default_matmul_precision
    return Precision.HIGHEST if named in EXACT else Precision.HIGH


def flat_weights(cell: Any, params: Params, depth: int) -> Array:
    """The parameters of an LSTM in cuDNN's layout, flattened and concatenated.

    They are the matrices `[4H, depth]` of the inputs and `[4H, H]` of the state, and
    two biases `[4H]`, the second all zeros. All have blocks i, f, g, o.

    Args:
        cell: A `BasicLSTMCell` or an `LSTMCell`.
        params: Its parameters, with blocks i, j, f, o.
        depth: The size of the inputs.
    """
    (product,) = cell.product_params(params, depth)

    def blocks(x: Array) -> list[Array]:
        i, j, f, o = jnp.split(x, 4, axis=-1)
        return [i, f, j, o]

    rows = [w for name in ("inputs", "state") for w in blocks(product[name])]
    i, f, j, o = blocks(product["bias"])
    bias = [i, f + cell.forget_bias, j, o]
    zeros = [jnp.zeros_like(product["bias"])]
    return jnp.concatenate([*(w.T.reshape(-1) for w in rows), *bias, *zeros])
