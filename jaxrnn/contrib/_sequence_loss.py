"""`sequence_loss`, the cross-entropy of a decoder's logits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import extend
from jaxrnn.typing import Array, ArrayLike

_CUT = (
    "If the logits come from `dynamic_decode` outside jit, truncate `targets` and "
    "`weights` to `logits.shape[1]` steps, the length of the longest decoded row."
)


def sequence_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    weights: ArrayLike,
    average_across_timesteps: bool = True,
    average_across_batch: bool = True,
    sum_over_timesteps: bool = False,
    sum_over_batch: bool = False,
    softmax_loss_function: Callable[..., Array] | None = None,
    name: str | None = None,
) -> Array:
    """Computes the weighted cross-entropy of sequences, averaged or summed.

    Let `c = cross-entropy * weights`, `[batch, time]`. The flags select the result:

    - Both `average_across_...` flags (the default): `sum(c) / sum(weights)`.
    - Both `sum_over_...` flags and no `average_across_...` flag: `sum(c) / n`, where n
      is the number of nonzero weights.
    - One `average_across_...` flag: the sum of c over that axis, divided by the sum of
      the weights over that axis. As in TensorFlow, a `sum_over_...` flag of the other
      axis is ignored.
    - One `sum_over_...` flag and no `average_across_...` flag: the sum of c over that
      axis, divided by the number of nonzero weights along that axis.
    - No flag: c itself.

    If a divisor is 0, the result is 0. Where a weight is 0, logits may be NaN or
    infinite, and targets may be out of range, e.g. -1 as padding. TensorFlow raises an
    error or returns NaN in these cases. Where a weight is not 0, targets must be in
    `[0, vocab)`. A target of `vocab` or more makes the loss NaN.

    Args:
        logits: Floating `[batch, time, vocab]`.
        targets: Integers `[batch, time]`.
        weights: Floating `[batch, time]`; 0 for padding.
        average_across_timesteps: Whether to average over time.
        average_across_batch: Whether to average over rows.
        sum_over_timesteps: Whether to sum over time, as described above.
        sum_over_batch: Whether to sum over rows, as described above.
        softmax_loss_function: `softmax_loss_function(labels, logits)`, which returns
            the loss of each target. The function is called with the keyword arguments
            `labels`, which are the targets `[batch * time]`, and `logits`
            `[batch * time, vocab]`. Default: the cross-entropy of the softmax.
        name: The name of the operations in profiles; "sequence_loss" by default.

    Returns:
        A scalar, `[batch]`, `[time]` or `[batch, time]`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the shapes of logits, targets and weights do not match, or one
            axis is both averaged and summed.

    Source: `tf.contrib.seq2seq.sequence_loss`.
    """
    logits, targets, weights = _checked(logits, targets, weights)
    average = _axes(average_across_batch, average_across_timesteps)
    total = _axes(sum_over_batch, sum_over_timesteps)
    must = "be False for an axis over which the loss is averaged"
    fix = "To sum over rows, pass `average_across_batch=False`. To sum over steps, "
    fix += "pass `average_across_timesteps=False`."
    extend.expect(not set(average) & set(total), "sum_over_...", must, True, fix)
    with jax.named_scope(name or "sequence_loss"):
        zero = jnp.zeros((), logits.dtype)
        unused = weights == 0
        hidden = jnp.where(unused[..., None] & ~jnp.isfinite(logits), zero, logits)
        ids = jnp.where(unused, jnp.clip(targets, 0, logits.shape[2] - 1), targets)
        if softmax_loss_function is None:
            log_probs = jax.nn.log_softmax(hidden, axis=-1)
            losses = -jnp.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]
        else:
            flat = hidden.reshape(-1, hidden.shape[-1])
            losses = softmax_loss_function(labels=ids.reshape(-1), logits=flat)
            losses = losses.reshape(ids.shape)
        weights = weights.astype(losses.dtype)
        losses = losses * weights
        if len(total) == 2 or (total and not average):
            return _ratio(losses, (weights != 0).astype(losses.dtype), total)
        return _ratio(losses, weights, average) if average else losses


def _checked(logits: Any, targets: Any, weights: Any) -> tuple[Array, Array, Array]:
    """Checks the shapes and dtypes of the arguments; returns them as arrays.

    Raises:
        ValueError: If an array has the wrong shape.
        TypeError: If `targets` are not integers.
    """
    logits = extend.as_arrays("logits", logits)
    extend.expect(logits.ndim == 3, "logits", "be [batch, time, vocab]", logits)
    targets = extend.as_arrays("targets", targets)
    weights = extend.as_arrays("weights", weights)
    for name, array in (("targets", targets), ("weights", weights)):
        must = f"be [batch, time], to fit `logits` {list(logits.shape)}"
        extend.expect(array.shape == logits.shape[:2], name, must, array, _CUT)
    is_integer = jnp.issubdtype(targets.dtype, jnp.integer)
    extend.expect(is_integer, "targets", "be integers", targets, error=TypeError)
    return logits, targets, weights


def _axes(batch: bool, timesteps: bool) -> list[int]:
    """The axes whose flags are True: 0 for batch, 1 for time."""
    return [axis for axis, flag in enumerate((batch, timesteps)) if flag]


def _ratio(losses: Array, weights: Array, axes: list[int]) -> Array:
    """The quotient of the sums over `axes`; 0 where the divisor is 0."""
    losses = jnp.sum(losses, axes)
    weights = jnp.sum(weights, axes)
    safe = jnp.where(weights == 0, jnp.ones_like(weights), weights)
    return jnp.where(weights == 0, jnp.zeros_like(losses), losses / safe)
