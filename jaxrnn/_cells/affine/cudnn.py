"""Runs whole sequences in one call of cuDNN's LSTM, with `jax.experimental.rnn`.

cuDNN requires inputs `[batch, time, depth]`, lengths of at least 1, and all parameters
in one array, with gates i, f, g, o and two biases. This file adds the features of
TensorFlow that cuDNN lacks: rows of length 0, arbitrary values in the padding, and
`forget_bias`.

**This code has not run on a GPU yet.** Only the functions `why_not_here`, `forward` and
`backward` need a GPU. Tests replace these functions with JAX's reference
implementation, and check the arguments that the functions pass to JAX's primitives.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental import rnn
from jax.lax import Precision

from ..._base.errors import name_of
from ..._base.sharding import as_varying_as
from ..._base.typing import Array, Params, PyTree
from ..._loops import masking
from ..._loops.scans import RESIDUALS, named
from ..._loops.steps import Run, Steps
from .supported import (
    activation_of,
    declared_kind,
    lstm_state,
    row_lengths,
    what_lstm_has,
    why_not_arrays,
)
from .xla_loop import in_parts

# cuDNN rejects longer runs: https://github.com/pytorch/pytorch/issues/133751.
MOST_STEPS = 65_535

# The values of `jax.default_matmul_precision` for which cuDNN does not use TF32.
EXACT = {"highest", "float32", "F32_F32_F32", "F64_F64_F64", "TF32_TF32_F32_X3"}
EXACT |= {"BF16_BF16_F32_X6", "BF16_BF16_F32_X9"}

Arrays = tuple[Array, ...]


def cudnn_sequence(cell: Any, params: Params, run: Run) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of a `BasicLSTMCell` or an `LSTMCell` in float32, by cuDNN.

    As in XLA's loop, matrix products are computed in TF32, JAX's default precision on a
    GPU. For float32 precision in both passes, call `dynamic_rnn` under
    `jax.default_matmul_precision("highest")`.

    Only first-order gradients are available, because cuDNN supports neither forward
    mode nor second derivatives. Under `vmap`, each mapped entry is a separate call, so
    add rows to the batch instead of mapping an axis. Rows on several devices need
    `jax.shard_map`, because XLA cannot partition the call and would gather the rows.

    Args:
        cell: The cell.
        params: The cell's parameters.
        run: Inputs `[batch, time, depth]`, or `[time, batch, depth]` if `steps.axis` is
            0, and the initial state, each leaf `[batch, units]`.
    """
    state = run.state
    steps = run.steps
    lengths = row_lengths(run.inputs, steps)
    h, carry = cell.enter(masking.zero_dead(lengths > 0, state))
    args = (
        flat_weights(cell, cell.stage_params(params), run.inputs.shape[-1]),
        _batch_major(steps.zero_dead(run.inputs), steps),
        h,
        carry.c,
        # cuDNN fails if a length is 0: https://github.com/jax-ml/jax/issues/17966.
        jnp.maximum(lengths, 1),
    )
    call: Any = _call
    y, h, c = call(_precision_here(), *as_varying_as(args, args))
    last = lstm_state(state, c, h)
    outputs = steps.zero_dead(_batch_major(y, steps))
    return outputs, masking.choose(lengths > 0, last, state)


def why_not_here() -> str | None:
    """The reason why a program with cuDNN cannot be traced here, or None."""
    try:
        jax.devices("cuda")
    except RuntimeError:
        return "JAX asks cuDNN for sizes at trace time, but finds no NVIDIA GPU here"
    return None


def forward(
    precision: Precision, weights: Array, x: Array, h: Array, c: Array, lengths: Array
) -> tuple[Arrays, Array]:
    """Runs all steps; returns `((y, h, c), reserve)`.

    `h` and `c` are the states after each row's last step.

    Args:
        precision: HIGHEST, or HIGH for TF32.
        weights: The result of `flat_weights`.
        x: The inputs, `[batch, time, depth]`, float32.
        h: The value of h before the first step, `[batch, units]`, float32.
        c: The value of c before the first step, `[batch, units]`, float32.
        lengths: int32 `[batch]`, from 1 to time.
    """
    args = x, h[None], c[None], weights, lengths
    (y, h, c), saved = rnn.lstm_fwd(*args, **_sizes(x, h), precision=precision)
    return (y, h[0], c[0]), saved[-1]


def backward(
    precision: Precision, args: Arrays, y: Array, reserve: Array, cts: Arrays
) -> Arrays:
    """The cotangents of the `(weights, x, h, c)` of `forward`.

    Args:
        precision: The precision of `forward`.
        args: The other arguments of `forward`.
        y: The outputs from `forward`, `[batch, time, units]`.
        reserve: The array `reserve` from `forward`, `[floats]`.
        cts: The cotangents of `(y, h, c)`; zeros for y beyond the lengths.
    """
    weights, x, h, c, lengths = args
    ct_y, ct_h, ct_c = cts
    ct_x, ct_h, ct_c, ct_weights, _ = rnn.lstm_bwd(
        **_sizes(x, h),
        precision=precision,
        residuals=(x, h[None], c[None], weights, lengths, y, reserve),
        gradients=(ct_y, ct_h[None], ct_c[None]),
    )
    return ct_weights, ct_x, ct_h[0], ct_c[0]


def flat_weights(cell: Any, params: Params, depth: int) -> Array:
    """The parameters of an LSTM in cuDNN's layout, flattened and concatenated.

    With H units, the layout is the input matrix `[4H, depth]`, the state matrix
    `[4H, H]`, and two biases `[4H]`, of which the second is zero. Each of these arrays
    has blocks i, f, g, o.

    Args:
        cell: A `BasicLSTMCell` or an `LSTMCell`.
        params: The result of `stage_params`, with blocks i, j, f, o.
        depth: The size of the inputs.
    """
    product = cell.stages[0].product_params(params)
    product, *_ = in_parts(cell, [product], depth)

    def blocks(x: Array) -> list[Array]:
        i, j, f, o = jnp.split(x, 4, axis=-1)
        return [i, f, j, o]

    rows = [w for name in ("inputs", "state") for w in blocks(product[name])]
    i, f, j, o = blocks(product["bias"])
    bias = [i, f + cell.forget_bias, j, o]
    zeros = [jnp.zeros_like(product["bias"])]
    return jnp.concatenate([*(w.T.reshape(-1) for w in rows), *bias, *zeros])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _call(precision: Precision, *args: Array) -> Arrays:
    """Returns `(y, h, c)`; see `forward` for the arguments."""
    return _call_and_save(precision, *args)[0]


def _call_and_save(precision: Precision, *args: Array) -> tuple[Arrays, tuple]:
    run = sequential_vmap(functools.partial(forward, precision))
    # In `shard_map`, the types of the results do not record that the results vary over
    # devices.
    (y, h, c), reserve = as_varying_as(args, run(*args))
    return (y, h, c), (args, *named(RESIDUALS, (y, reserve)))


def _pull_back(precision: Precision, saved: tuple, cts: tuple) -> tuple:
    run = sequential_vmap(functools.partial(backward, precision))
    return *as_varying_as(saved, run(*saved, cts)), None


_call.defvjp(_call_and_save, _pull_back)


def why_not_cudnn(cell: Any, params: Params, run: Run) -> str | None:
    """The reason why cuDNN cannot run the cell, or None."""
    known = "cuDNN's loop supports only plain LSTMs with tanh"
    if declared_kind(cell) != "lstm":
        return f"{known}, not {type(cell).__name__}"
    if (activation := activation_of(cell)) is not jnp.tanh:
        return f"{known}, but this cell uses {name_of(activation)}"
    if has := what_lstm_has(cell):
        return f"{known}, but this cell has {' and '.join(has)}"
    if reason := why_not_arrays(params, run):
        return reason
    steps = run.steps
    if steps.restarts is not None:
        return "cuDNN does not reset rows within the loop"
    if steps.returns_states:
        return "cuDNN does not return the states of all steps"
    if steps.time > MOST_STEPS:
        return f"cuDNN's loop supports at most {MOST_STEPS} steps, got {steps.time}"
    return why_not_here()


def _batch_major(x: Array, steps: Steps) -> Array:
    """Converts from the layout of the steps to `[batch, time, ...]`, or back."""
    return jnp.swapaxes(x, 0, 1 - steps.axis)


def _sizes(x: Array, h: Array) -> dict[str, Any]:
    one_layer = {"num_layers": 1, "dropout": 0.0, "bidirectional": False}
    return {"input_size": x.shape[-1], "hidden_size": h.shape[-1], **one_layer}


def _precision_here() -> Precision:
    """HIGHEST for float32 precision, HIGH for TF32, which is XLA's default.

    JAX's wrapper of cuDNN rejects other precisions ("default", "bfloat16"), which XLA
    treats as TF32 on a GPU. The backward pass uses the precision of the forward pass,
    wherever the backward pass is traced.
    """
    config: Any = jax.config
    name = config.jax_default_matmul_precision
    return Precision.HIGHEST if name in EXACT else Precision.HIGH
