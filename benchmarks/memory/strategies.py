"""The strategies by name, and a training step with each of them."""

import functools
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
    "by hand, chunks": by_hand.chunks,
}
NAMES = (*OURS, *BY_HAND)


def describe(name: str) -> str:
    """What a name stands for."""
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
    if name in OURS:
        run = functools.partial(_run_ours, case, OURS[name])
    else:
        run = functools.partial(_run_by_hand, case, BY_HAND[name])

    def loss(params: Tree, inputs: jax.Array) -> jax.Array:
        outputs, state = run(params, inputs)
        seen = outputs if case.loss == "outputs" else state
        return sum(map(_mean_of_squares, jax.tree.leaves(seen)), jnp.float32(0))

    return jax.value_and_grad(loss)


def _run_ours(
    case: Case, strategy: bool | Strategy, params: Tree, inputs: jax.Array
) -> tuple[jax.Array, Tree]:
    return jaxrnn.dynamic_rnn(
        jaxrnn.LSTMCell(case.units).bind(params),
        inputs,
        dtype=inputs.dtype,
        time_major=True,
        swap_memory=strategy,
    )


def _run_by_hand(
    case: Case, run: Callable, params: Tree, inputs: jax.Array
) -> tuple[jax.Array, Tree]:
    zeros = jnp.zeros((case.batch, case.units), inputs.dtype)
    return run(params, inputs, (zeros, zeros))


def _mean_of_squares(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(x.astype(jnp.float32)))
