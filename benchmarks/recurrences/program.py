"""A way to run a cell in JAX as a compiled program, forward or for gradients."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.built import Variant
from ..core.cases import Case
from ..core.programs import compiled
from .data import Data, named

Run = Callable[[Any, Any, Any], tuple[Any, Any]]


def function(mode: str, run: Run, cotangents: Any) -> Callable[..., Any]:
    """Of `(params, inputs, state)`: the results of `run`, or gradients of the loss."""
    if mode == "forward":
        return run

    def loss(*args: Any) -> jax.Array:
        products = jax.tree.map(lambda x, c: jnp.sum(x * c), run(*args), cotangents)
        return sum(jax.tree.leaves(products))

    return jax.grad(loss, argnums=(0, 1))


def variant(case: Case, data: Data, run: Run, batch_major: bool = False) -> Variant:
    """The program of a case; `run` takes and returns sequences time-major, or not."""
    order = _swap if batch_major else lambda x: x
    outputs, state = data.cotangents
    cotangents = jax.device_put((order(outputs), state))
    args = jax.device_put((data.params, order(data.inputs), data.state))
    call = lambda cotangents, *args: function(case.mode, run, cotangents)(*args)
    ((_, program, facts),) = compiled(call, cotangents, *args)
    which = 0 if case.mode == "forward" else 1

    def read(raw: Any) -> dict[str, np.ndarray]:
        found = list(raw)
        found[which] = order(np.asarray(found[which]))
        return named(case.mode, found)

    run_once = functools.partial(program, cotangents, *args)
    # In the growth numbers are not compared: their sums would take longer than they do.
    compare = read if case.group == "race" else None
    return Variant(lambda: jax.block_until_ready(run_once()), compare, facts)


def _swap(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(x, 0, 1))
