"""What users write around a recurrent layer: a rollout, a replay, sampling, a map.

A pattern takes `run(params, inputs, state, resets) -> (outputs, final state)`, which
runs a contestant's layer over inputs `[T, B, D]`, and returns such a function. In
"mapped", the inputs of both are `[B, T, D]`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..cases import Case

PyTree = Any
Run = Callable[..., tuple[PyTree, PyTree]]

CHARACTERS = 64


def around(case: Case, run: Run) -> Run:
    """The case's pattern around `run`; `run` itself if nothing surrounds the layer."""
    return _PATTERNS[case.pattern](case, run) if case.pattern in _PATTERNS else run


def _rollout(_: Case, run: Run) -> Run:
    """Run one step for each observation, which depends on the last action."""

    def apply(params, inputs, state, resets):
        def step(carry, now):
            state, action = carry
            x, first = now
            outputs, state = run(params, (x + action)[None], state, first[None])
            return (state, outputs[0, :, :1]), outputs[0]

        start = state, jnp.zeros_like(inputs[0, :, :1])
        (state, _), outputs = jax.lax.scan(step, start, (inputs, resets))
        return outputs, state

    return apply


def _replay(case: Case, run: Run) -> Run:
    """Train from the state after a burn-in without gradient."""
    start = case.burn_in

    def apply(params, inputs, state, resets):
        _, state = run(params, inputs[:start], state, resets[:start])
        state = jax.lax.stop_gradient(state)
        return run(params, inputs[start:], state, resets[start:])

    return apply


def _sampling(case: Case, run: Run) -> Run:
    """Draw each character from the output for the last one; ignore the inputs."""
    rng = np.random.default_rng(2)
    embedding = rng.standard_normal((CHARACTERS, case.depth), np.float32)
    head = rng.standard_normal((case.units, CHARACTERS), np.float32)

    def apply(params, inputs, state, _):
        def step(carry, key):
            state, ids = carry
            outputs, state = run(params, jnp.asarray(embedding)[ids][None], state, None)
            ids = jax.random.categorical(key, outputs[0] @ head)
            return (state, ids), ids

        time, batch, _ = inputs.shape
        start = state, jnp.zeros(batch, jnp.int32)
        keys = jax.random.split(jax.random.key(0), time)
        (state, _), ids = jax.lax.scan(step, start, keys)
        return ids, state

    return apply


def _mapped(_: Case, run: Run) -> Run:
    """Map a model for one sequence, which is a batch of one row, over the rows."""

    def one(params, inputs, state, _):
        state = jax.tree.map(lambda leaf: leaf[None], state)
        results = run(params, inputs[None], state, None)
        return jax.tree.map(lambda leaf: leaf[0], results)

    return over_rows(one)


def over_rows(run: Run) -> Run:
    """`run` for one sequence `[T, D]`, mapped over the rows of `[B, T, D]`."""
    return jax.vmap(run, in_axes=(None, 0, 0, None))


_PATTERNS = {
    "rollout": _rollout,
    "replay": _replay,
    "sampling": _sampling,
    "mapped": _mapped,
}
