"""`short_conv`: a causal convolution of each channel over the last few steps."""

import jax

from .._base.arguments import check_shape, has_shape
from .._base.errors import expect
from .._base.inputs import as_array, as_like
from .._base.typing import Array, ArrayLike, AxisName, Implementation, Lengths
from .._cells.short_conv import ShortConvCell
from .dynamic_rnn import dynamic_rnn


def short_conv(
    inputs: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    sequence_length: Lengths | None = None,
    initial_state: ArrayLike | None = None,
    time_major: bool = False,
    *,
    resets: ArrayLike | None = None,
    reset_state: ArrayLike | None = None,
    implementation: Implementation | None = None,
    mask: ArrayLike | None = None,
    axis_name: AxisName | None = None,
) -> tuple[Array, Array]:
    """A causal convolution of each channel over the last few inputs of a row.

    Each step computes::

        y_t = bias + sum over j < width of kernel[width - 1 - j] * x_{t - j}

    `initial_state` holds the inputs before the first step, by default zeros. The sum
    does not reach across a reset, and skips padding and masked steps, which output
    zeros. The sum is computed in at least float32. `ShortConvCell` computes one step.

    For the token shift of RWKV, which outputs the previous input, pass the kernel
    `[[1], [0]]`, broadcast to the channels.

    Args:
        inputs: `[batch, time, channels]`, or `[time, batch, channels]` if `time_major`.
        kernel: `[width, channels]`, in the dtype of the inputs; the last row multiplies
            the current inputs. For the weights `[channels, 1, width]` of PyTorch's
            `Conv1d`, pass `weights[:, 0].T`.
        bias: `[channels]`, or None for no bias.
        sequence_length: The length of each row, `[batch]`, integers. Default: all
            steps. See `dynamic_rnn`.
        initial_state: The last inputs before the first step, oldest first,
            `[batch, width - 1, channels]`, such as the state that another call
            returned. Default: zeros.
        time_major: Whether time is the first axis of inputs and outputs.
        resets: Bool `[batch, time]`, or `[time, batch]` if `time_major`; true where a
            row begins a new sequence. Default: no resets.
        reset_state: The inputs that take the place of the last inputs at a reset, with
            the shape of `initial_state`. Default: zeros.
        implementation: If "scan", the steps run one after another; see `dynamic_rnn`.
        mask: Bool, with the shape of `resets`, true at valid steps. Default: no mask.
            See `dynamic_rnn`.
        axis_name: In `jax.shard_map`, the mesh axis that divides time; see
            `dynamic_rnn`.

    Returns:
        `(outputs, state)`. `outputs` has the shape and dtype of the inputs. `state`
        holds the last inputs of each row; pass it to the next call to continue.

    Raises:
        ValueError: If the shapes of two arguments do not fit, `width` is less than 2,
            or both `mask` and `sequence_length` are given.
        TypeError: If the dtype of `kernel` or `bias` is not the dtype of the inputs.

    Example:
        >>> import jax.numpy as jnp, jaxrnn
        >>> x = jnp.arange(5.0)[None, :, None]
        >>> y, state = jaxrnn.short_conv(x, jnp.ones((2, 1)))
        >>> print(y[0, :, 0], state[0, 0])
        [0. 1. 3. 5. 7.] [4.]

    Source: `ShortConvolution` of the package `flash-linear-attention`.
    """
    inputs, kernel = as_array("inputs", inputs), as_array("kernel", kernel)
    axes = "[time, batch, channels]" if time_major else "[batch, time, channels]"
    expect(inputs.ndim == 3, "inputs", f"have shape {axes}", inputs)
    channels = inputs.shape[2]
    must = f"have shape [width, {channels}], with a width of at least 2"
    is_kernel = has_shape(kernel, (None, channels)) and kernel.shape[0] >= 2
    fix = "Transpose the weight of a PyTorch Conv1d, [channels, 1, width]."
    fix = "" if has_shape(kernel, (None, channels)) else fix
    expect(is_kernel, "kernel", must, kernel, fix)
    params = {"kernel": kernel}
    if bias is not None:
        params["bias"] = as_array("bias", bias)
        fix = "For no bias, pass None. Pass lengths as `sequence_length`."
        check_shape("bias", params["bias"], (channels,), fix=fix)
    for name, x in params.items():
        must = f"have the dtype of the inputs, {inputs.dtype}"
        fix = "Cast the inputs or the parameters."
        expect(x.dtype == inputs.dtype, name, must, x, fix, error=TypeError)
    cell = ShortConvCell(channels, kernel.shape[0], use_bias=bias is not None)
    if initial_state is not None:
        rows = inputs.shape[1] if time_major else inputs.shape[0]
        shape = rows, kernel.shape[0] - 1, channels
        fix = "Pass the state that another call returned, or None for zeros."
        types = jax.ShapeDtypeStruct(shape, inputs.dtype)
        initial_state = as_like(
            "initial_state", initial_state, types, wider=True, fix=fix
        )
    return dynamic_rnn(
        cell.bind(params),
        inputs,
        sequence_length,
        initial_state,
        dtype=inputs.dtype,
        time_major=time_major,
        resets=resets,
        reset_state=reset_state,
        implementation=implementation,
        mask=mask,
        axis_name=axis_name,
    )
