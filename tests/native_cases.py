"""Cells, data and runs for the tests of the native loops."""

import functools
import pathlib
from types import SimpleNamespace

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, drawn, drawn_like, eqns

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, contrib
from jaxrnn.testing._oracle import weighted_sum

# Not imported, because there may be no loops (`without_loops.py`).
FOLDER = pathlib.Path(jaxrnn.__file__).parent / "_loops/affine/native"
LIBRARY = FOLDER / "libjaxrnn_native.so"
needs_library = pytest.mark.skipif(
    not LIBRARY.exists(), reason="the native loops were not built"
)
assert_near = functools.partial(helpers.assert_near, tolerance=2e-5)
F32 = jnp.dtype(jnp.float32)
TIME, DEPTH = 6, 3
# Zero steps, one step, some, all, and more than all.
LENGTHS = jnp.asarray([0, 1, 4, 6, 60], jnp.int32)
LENGTHS_OF_8 = jnp.asarray([0, 1, 2, 3, 4, 5, 6, 9], jnp.int32)
CELLS = {
    "lstm": LSTMCell(4, forget_bias=0.3),
    "joined": jaxrnn.BasicLSTMCell(5, state_is_tuple=False),
    "gru": GRUCell(4),
    "rnn": jaxrnn.BasicRNNCell(3),
    "lstm_block": contrib.LSTMBlockCell(4),
    "gru_block": contrib.GRUBlockCellV2(4),
    "cudnn_gru": jaxrnn.CudnnCompatibleGRUCell(4),
    "relu": GRUCell(4, activation="relu"),
    "peepholes": LSTMCell(4, use_peepholes=True),
    "clip": contrib.LSTMBlockCell(4, cell_clip=0.4, use_peephole=True),
    "normed": contrib.LayerNormBasicLSTMCell(7, forget_bias=0.3),
    "unnormed": contrib.LayerNormLSTMCell(4, use_peepholes=True, num_proj=3),
    "projected": LSTMCell(5, num_proj=3, proj_clip=0.2, use_peepholes=True),
    "projected_up": LSTMCell(3, num_proj=18, cell_clip=0.4, state_is_tuple=False),
}


draw = functools.partial(drawn_like, scale=0.7)


def data(cell, batch=5, dtype=F32, time=TIME, depth=DEPTH):
    """Random `(params, x, state)`."""
    x = draw(jax.ShapeDtypeStruct((batch, time, depth), dtype), 1)
    params = drawn(cell, jax.ShapeDtypeStruct((batch, depth), dtype), scale=0.7)
    return params, x, draw(cell.zero_state(batch, dtype), 2)


def run(cell, name, params, x, state, lengths=LENGTHS, **kwargs):
    return jaxrnn.dynamic_rnn(
        cell.bind(params), x, lengths, state, implementation=name, **kwargs
    )


def everything(
    cell, name, params, x, state, lengths=LENGTHS, reset_state=None, **kwargs
):
    """Outputs and final state; gradients of parameters, inputs, state, reset state."""

    def run_all(*given):
        *given, reset_state = given
        return run(cell, name, *given, lengths, reset_state=reset_state, **kwargs)

    return differentiated(run_all, params, x, state, reset_state)


def with_bad_padding(x, state, kept):
    """Put NaN in the steps that are not kept, and in the state of row 0."""
    bad_state = jax.tree.map(lambda s: s.at[0].set(jnp.nan), state)
    return jnp.where(kept[..., None], x, jnp.nan), bad_state


def over_devices(cell, name, lengths=LENGTHS_OF_8, kind="Auto"):
    """A loss of rows on four devices and its gradient, and parameters."""
    params, x, state = data(cell, 8)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType[kind],))
    given = jax.device_put((x, state, lengths), jax.NamedSharding(mesh, jax.P("rows")))

    def total(params, *rows):
        return jax.lax.psum(weighted_sum(run(cell, name, params, *rows)), "rows")

    specs = jax.P(), *[jax.P("rows")] * 3
    summed = jax.shard_map(total, mesh=mesh, in_specs=specs, out_specs=jax.P())
    return jax.value_and_grad(lambda params: summed(params, *given)), params


def with_resets(cell, time_major):
    """A run as a function of parameters, inputs and states, and these arguments.

    Rows have NaN after their ends. One row is empty.
    """
    params, x, state = data(cell)
    dead = np.arange(TIME) >= np.asarray(LENGTHS)[:, None]
    resets = np.random.default_rng(0).random(size=dead.shape) < 0.4
    x = jnp.where(dead[..., None], jnp.nan, x)
    turn = lambda x: jnp.swapaxes(x, 0, 1) if time_major else x

    def call(params, inputs, states):
        return jaxrnn.dynamic_rnn(
            cell.bind(params),
            inputs,
            LENGTHS,
            states[0],
            time_major=time_major,
            resets=turn(resets),
            reset_state=states[1],
        )

    return call, (params, turn(x), (state, draw(state, 3)))


def calls(fn, *args):
    """The calls of native loops in the program of `fn`."""
    params = [e.params for e in on_cpus(fn, *args) if e.primitive.name == "ffi_call"]
    return [
        SimpleNamespace(
            backward=p["target_name"] == "jaxrnn_native_backward",
            shape=p["result_avals"][0].shape,
        )
        for p in params
        if p["target_name"].endswith("ward")
    ]


def on_cpus(fn, *args):
    """The equations in the program of `fn`, including those that run only on CPUs."""
    for eqn in eqns(jax.make_jaxpr(fn)(*args).jaxpr):
        yield eqn
        if eqn.primitive.name == "native":
            types = [
                jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars
            ]
            yield from on_cpus(eqn.params["programs"].native, *types)
