"""Cells, data and runs for the tests of the native loops."""

import functools
import pathlib
from types import SimpleNamespace

import helpers
import jax
import jax.numpy as jnp
import pytest
from helpers import differentiated, drawn, drawn_like, eqns

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, contrib

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
    """Random `(params, x, state)`; `x` is `[batch, time, depth]`."""
    x = draw(jax.ShapeDtypeStruct((batch, time, depth), dtype), 1)
    params = drawn(cell, jax.ShapeDtypeStruct((batch, depth), dtype), scale=0.7)
    return params, x, draw(cell.zero_state(batch, dtype), 2)


def run(cell, name, params, x, state, lengths=LENGTHS, **kwargs):
    """`(outputs, final state)` of the implementation `name`; None is the default."""
    return jaxrnn.dynamic_rnn(
        cell.bind(params), x, lengths, state, implementation=name, **kwargs
    )


def everything(
    cell, name, params, x, state, lengths=LENGTHS, reset_state=None, **kwargs
):
    """`((outputs, final state), gradients)`, with all states if `kwargs` ask for them.

    The gradients are those of parameters, inputs, state and reset state.
    """

    def run_all(*given):
        *given, reset_state = given
        return run(cell, name, *given, lengths, reset_state=reset_state, **kwargs)

    return differentiated(run_all, params, x, state, reset_state)


def calls(fn, *args):
    """A list of the calls of native loops in the program of `fn`.

    Each says whether it is of the `backward` pass, and the `shape` of its first result,
    `(nets, rows, time, units)`.
    """
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
