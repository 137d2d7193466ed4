"""The LSTM of cuDNN, which runs whole sequences, products of the inputs included.

What TensorFlow has and cuDNN lacks is done here: rows of length 0, padding with
arbitrary values, `forget_bias`.

**It has not run on a GPU yet.** `CALLS` holds all functions that call cuDNN: the code
around them is tested with JAX's own reference in their place, and they themselves by
the types of the arguments that they pass to JAX's primitives.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from .._base.sharding import as_varying_as
from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .._time import masking
from .._time.run import DeclinedError
from .._time.steps import Steps
from . import cudnn_calls
from .native import row_lengths, why_not_arrays

CALLS = cudnn_calls.CUDNN

# cuDNN refuses more: https://github.com/pytorch/pytorch/issues/133751.
MOST_STEPS = 65_535


def cudnn_sequence(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of a `BasicLSTMCell` or an `LSTMCell` in float32, by cuDNN.

    Products are rounded to TF32, JAX's default precision on a GPU, as they are in XLA's
    loop; `jax.default_matmul_precision("highest")` around the call of the driver keeps
    them exact, forward and backward.

    It has the derivative that cuDNN computes, the gradient: neither forward mode nor
    second derivatives. Under `vmap` each mapped entry is a call: add rows to the batch
    in place of a mapped axis where you can. Rows on several devices need
    `jax.shard_map`: XLA cannot partition the call, and would gather them.

    Args:
        cell: The cell.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]`, time along `steps.axis`.
        state: The initial state, each leaf `[batch, units]`.
        steps: Which steps there are.

    Raises:
        DeclinedError: If cuDNN cannot run them here, with the reason.
    """
    reason = _why_not_cell(cell) or why_not_arrays(xs, state, steps)
    if reason := reason or _why_not_steps(steps) or CALLS.why_not_here():
        raise DeclinedError(reason)
    lengths = row_lengths(xs, steps)
    h, carry = cell.enter(masking.zero_dead(lengths > 0, state))
    args = (
        cudnn_calls.flat_weights(cell, params, xs.shape[-1]),
        _batch_major(steps.zero_dead(xs), steps),
        h,
        carry.c,
        # cuDNN fails at 0: https://github.com/jax-ml/jax/issues/17966.
        jnp.maximum(lengths, 1),
    )
    # The backward pass, wherever it is traced, has the forward pass's precision.
    run = functools.partial(_run, CALLS, cudnn_calls.precision_here())
    # The call's results do not even have types that vary over devices like these.
    y, h, c = as_varying_as(args, run(*as_varying_as(args, args)))
    last = with_structure(state, cell.leave(c, h)[1])
    outputs = steps.zero_dead(_batch_major(y, steps))
    return outputs, masking.choose(lengths > 0, last, state)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(calls: Any, precision: Any, *args: Array) -> tuple[Array, Array, Array]:
    """`(y, h, c)`; for the arguments see `cudnn_calls.forward`."""
    return _forward(calls, precision, *args)[0]


def _forward(calls: Any, precision: Any, *args: Array) -> tuple[tuple, tuple]:
    y, h, c, reserve = sequential_vmap(functools.partial(calls.forward, precision))(
        *args
    )
    return (y, h, c), (*args, y, reserve)


def _backward(calls: Any, precision: Any, saved: tuple, cts: tuple) -> tuple:
    run = sequential_vmap(functools.partial(calls.backward, precision))
    return *run(*saved, *cts), None


_run.defvjp(_forward, _backward)


def _why_not_cell(cell: Any) -> str | None:
    reason = cell.why_not_plain()
    if cell.declared_kind != "lstm":
        reason = f"{type(cell).__name__} is not one"
    return reason and f"it runs plain LSTMs with tanh: {reason}"


def _why_not_steps(steps: Steps) -> str | None:
    if steps.restarts is not None:
        return "rows of several sequences restart within the loop"
    if steps.time > MOST_STEPS:
        return f"it takes {MOST_STEPS} steps at most, got {steps.time}"
    return None


def _batch_major(x: Array, steps: Steps) -> Array:
    """Sequences `[batch, time, ...]` from the layout of the steps, and back."""
    return jnp.swapaxes(x, 0, 1 - steps.axis)
