"""A handwritten `lax.scan` with one product per step for all gates.

With lengths, `where` keeps the state and zeroes the outputs of finished rows. With
resets, it zeroes a row's state before a step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data, forget_bias
from . import _jax

USES = ("jax", "jaxlib")
HAS_RESETS = True

Tree = dict[str, Any]


def build(case: Case, data: Data) -> Variants:
    """One net."""
    return _jax.build(case, data, {"": make_net(case, data)})


def make_net(case: Case, data: Data) -> _jax.Net:
    """A net with TensorFlow's weights, and with 1 added to the forget bias.

    Without lengths and resets, it also runs one sequence `[T, D]`.
    """
    if case.layer_cell not in _STEPS:
        raise LeftOutError("no handwritten step for this cell")
    step = _STEPS[case.layer_cell]
    layer = lambda _, *args: _layer(step, *args)
    return _jax.layered_net(data, layer, functools.partial(_to_params, case))


def _to_params(case: Case, weights: dict[str, np.ndarray]) -> Tree:
    if case.cell == "gru_after":
        # Split outside of the loop, to avoid a copy of the kernels at each step.
        x, h = jnp.split(weights["kernel"], [case.depth])
        return {"input": x, "recurrent": h, "bias": weights["bias"]}
    if "c" in case.state_names:
        return weights | {"bias": weights["bias"] + forget_bias(case)}
    return weights


def _layer(
    step: Callable[..., Tree],
    params: Tree,
    inputs: jax.Array,
    state: Tree,
    lengths: jax.Array | None,
) -> tuple[jax.Array, Tree]:
    """The outputs `[T, B, H]` and the final state for inputs `[T, B, D]`.

    Booleans `[T, B]` instead of lengths are resets.
    """

    def dense(state, x):
        state = step(params, x, state)
        return state, state["h"]

    def masked(state, tx):
        t, x = tx
        alive = (t < lengths)[:, None]
        new = step(params, x, state)
        state = {name: jnp.where(alive, new[name], state[name]) for name in state}
        return state, jnp.where(alive, new["h"], 0)

    def resetting(state, rx):
        reset, x = rx
        state = jax.tree.map(lambda s: jnp.where(reset[:, None], 0, s), state)
        return dense(state, x)

    if lengths is None:
        state, outputs = jax.lax.scan(dense, state, inputs)
    elif lengths.dtype == bool:
        state, outputs = jax.lax.scan(resetting, state, (lengths, inputs))
    else:
        state, outputs = jax.lax.scan(
            masked, state, (jnp.arange(inputs.shape[0]), inputs)
        )
    return outputs, state


def _affine(params: Tree, x: jax.Array, h: jax.Array, prefix: str = "") -> jax.Array:
    product = jnp.concatenate([x, h], axis=-1) @ params[f"{prefix}kernel"]
    return product + params[f"{prefix}bias"]


def _lstm(params: Tree, x: jax.Array, state: Tree) -> Tree:
    i, g, f, o = jnp.split(_affine(params, x, state["h"]), 4, axis=-1)
    c = jax.nn.sigmoid(f) * state["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"c": c, "h": jax.nn.sigmoid(o) * jnp.tanh(c)}


def _peephole(params: Tree, x: jax.Array, state: Tree) -> Tree:
    c = state["c"]
    i, g, f, o = jnp.split(_affine(params, x, state["h"]), 4, axis=-1)
    i = jax.nn.sigmoid(i + params["w_i_diag"] * c)
    f = jax.nn.sigmoid(f + params["w_f_diag"] * c)
    c = f * c + i * jnp.tanh(g)
    o = jax.nn.sigmoid(o + params["w_o_diag"] * c)
    return {"c": c, "h": o * jnp.tanh(c)}


def _gru(params: Tree, x: jax.Array, state: Tree) -> Tree:
    h = state["h"]
    r, u = jnp.split(jax.nn.sigmoid(_affine(params, x, h, "gates/")), 2, axis=-1)
    c = jnp.tanh(_affine(params, x, r * h, "candidate/"))
    return {"h": u * h + (1 - u) * c}


def _gru_after(params: Tree, x: jax.Array, state: Tree) -> Tree:
    h = state["h"]
    x_r, x_u, x_c = jnp.split(x @ params["input"] + params["bias"], 3, axis=-1)
    h_r, h_u, h_c = jnp.split(h @ params["recurrent"], 3, axis=-1)
    u = jax.nn.sigmoid(x_u + h_u)
    c = jnp.tanh(x_c + jax.nn.sigmoid(x_r + h_r) * h_c)
    return {"h": u * h + (1 - u) * c}


_STEPS = {
    "lstm": _lstm,
    "peephole": _peephole,
    "gru": _gru,
    "gru_after": _gru_after,
}
