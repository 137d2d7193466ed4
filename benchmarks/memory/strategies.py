"""The strategies by name, and a training step with each of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn.memory import Keep, Nested, Offload, Recompute, Strategy

from . import by_hand
from .cases import Case

Tree = Any

KEEP = "keep"

OURS: dict[str, bool | Strategy] = {
    KEEP: Keep(),
    "every step": Recompute(1),
    "sqrt": Recompute(),
    "nested": Nested(),
    "offload keep": Offload(Keep()),
    "offload 64": Offload(Recompute(64)),
    "True": True,
}
BY_HAND = {
    "by hand, keep": by_hand.keep,
    "by hand, every step": by_hand.every_step,
    "by hand, chunks": by_hand.segments,
}
NAMES = (*OURS, *BY_HAND)


def describe(name: str) -> str:
    """What a name means."""
    if name in OURS:
        return f"swap_memory={OURS[name]}"
    return (BY_HAND[name].__doc__ or "").partition("\n")[0]


def make_arguments(case: Case) -> tuple[Tree, jax.Array]:
    """Parameters and time-major inputs, the same for all strategies."""
    dtype = jnp.dtype(case.dtype)
    to_params, to_inputs = jax.random.split(jax.random.key(0))
    row = jnp.zeros((case.batch, case.depth), dtype)
    params = jaxrnn.LSTMCell(case.units).init(to_params, row)
    shape = case.steps, case.batch, case.depth
    return params, jax.random.normal(to_inputs, shape, dtype)


def planned_bytes(name: str, case: Case) -> int | None:
    """What `memory_plan` expects, device and host together; None for plain JAX."""
    if name not in OURS:
        return None
    plan = jaxrnn.memory_plan(
        jaxrnn.LSTMCell(case.units),
        (case.steps, case.batch, case.depth),
        [OURS[name]],
        dtype=jnp.dtype(case.dtype),
        time_major=True,
    )
    return sum(plan.rows[0].peak)


def training_step(name: str, case: Case) -> Callable[[Tree, jax.Array], tuple]:
    """`(params, inputs) -> (loss, gradients by params)`."""

    def run(params, inputs):
        if name in BY_HAND:
            zeros = jnp.zeros((case.batch, case.units), inputs.dtype)
            return BY_HAND[name](params, inputs, (zeros, zeros))
        return jaxrnn.dynamic_rnn(
            jaxrnn.LSTMCell(case.units).bind(params),
            inputs,
            dtype=inputs.dtype,
            time_major=True,
            swap_memory=OURS[name],
        )

    def loss(params, inputs):
        outputs, state = run(params, inputs)
        leaves = jax.tree.leaves(outputs if case.loss == "outputs" else state)
        return sum(map(_mean_of_squares, leaves), jnp.float32(0))

    return jax.value_and_grad(loss)


def _mean_of_squares(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(x.astype(jnp.float32)))
