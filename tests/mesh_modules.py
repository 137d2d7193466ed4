"""The rows of the sweep over meshes: modules of Flax, and cells of other libraries."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mesh_rows import CELL, INPUTS, LOOP, PLAIN, over_array
from mesh_sweep import Row, parameters
from mesh_values import BATCH, DEPTH, SECOND, Arrays, copies

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn.convert import equinox, haiku

STEP = jax.ShapeDtypeStruct((BATCH, DEPTH), np.float64)
CONSTRUCTORS = {
    "RNN": lambda context: [context.cell],
    "Bidirectional": lambda context: [context.cell, SECOND],
    "StackBidirectional": lambda context: [[context.cell, SECOND]] * 2,
    "RawRNN": lambda context: [context.cell],
    "Cell": lambda context: [context.cell],
}
ONE = Arrays(lambda c: c.state(c.cell, 1))
TWO = Arrays(lambda c: (c.state(c.cell, 1), c.state(SECOND, 2)))
DEEP = Arrays(lambda c: tuple([c.state(c.cell, i), c.state(SECOND, i)] for i in (1, 3)))
INITIAL_STATES = {"RNN": ONE, "Bidirectional": TWO, "StackBidirectional": DEEP}
OF_MODULES = CELL | {
    "axis_names": "names of axes, which change no value",
    "deterministic": "the cells draw no random numbers",
    "in_features": "fixed",
    "merge": "a function of the user",
    "param_dtype": "every case passes the dtype of the inputs",
    "parent": "Flax",
    "rng_collection": "the cells draw no random numbers",
    "rngs": "the cells draw no random numbers",
}
WITHOUT_RESET_STATE = {"reset_state": "two directions are reset to zeros"}


def draw(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape) / 2, tree)


def make_linen(name, context, **options):
    options["param_dtype"] = jnp.float64
    return getattr(jaxrnn.linen, name)(*CONSTRUCTORS[name](context), **options)


def make_nnx(name, context, **options):
    options["param_dtype"] = jnp.float64
    cls, cells = getattr(jaxrnn.nnx, name), CONSTRUCTORS[name](context)
    make = lambda: cls(*cells, DEPTH, rngs=nnx.Rngs(0), **options)
    return nnx.split(nnx.eval_shape(make), nnx.Param, ...)


def call_linen(name, context, params, *args, constructor=None, **arguments):
    module = make_linen(name, context, **(constructor or {}))
    return module.apply({"params": params}, *args, **arguments)


def call_nnx(name, context, params, *args, constructor=None, **arguments):
    graph, _, others = make_nnx(name, context, **(constructor or {}))
    return nnx.merge(graph, params, others)(*args, **arguments)


def params_of_linen(name, args, **constructor):
    def make(context):
        module = make_linen(name, context, **constructor)
        init = lambda: module.init(jax.random.key(0), *args(context))
        return draw(jax.eval_shape(init)["params"])

    return copies(make)


def params_of_nnx(name, args, **constructor):
    del args, constructor
    return copies(lambda context: draw(make_nnx(name, context)[1]))


LIBRARIES = {
    "linen": (jaxrnn.linen, call_linen, params_of_linen),
    "nnx": (jaxrnn.nnx, call_nnx, params_of_nnx),
}


def over_sequences(library, name):
    module, call, params_of = LIBRARIES[library]
    cls = getattr(module, name)
    of_call = parameters(cls.__call__)

    def run(context, params, inputs, **arguments):
        made = {n: arguments.pop(n) for n in arguments.keys() - of_call}
        return call(name, context, params, inputs, constructor=made, **arguments)

    inputs = lambda context: [np.zeros((BATCH, 1, DEPTH))]
    initial_state = INITIAL_STATES[name]
    flags = {n: [True] for n in ("keep_order", "return_carry", "reverse")}
    return Row(
        run,
        (cls.__init__, cls.__call__),
        given={"params": params_of(name, inputs), "inputs": INPUTS},
        values={"initial_state": [initial_state], **flags},
        left_out=OF_MODULES | ({} if name == "RNN" else WITHOUT_RESET_STATE),
        factors=PLAIN,
    )


def raw(library):
    module, call, params_of = LIBRARIES[library]
    cls = module.RawRNN

    def run(context, params, x, lengths, **arguments):
        made = {"max_time": context.time, **arguments}
        raw_rnn = functools.partial(call, "RawRNN", context, params, constructor=made)
        return over_array(context, x, lengths, raw_rnn)

    def start(context):
        state = context.cell.zero_state(BATCH, np.float64)
        finished, x = np.zeros(BATCH, bool), np.zeros((BATCH, DEPTH))

        def loop_fn(t, output, old, total):
            return finished, x, state if output is None else old, output, None

        return [loop_fn]

    return Row(
        run,
        (cls.__init__, cls.__call__),
        given={
            "params": params_of("RawRNN", start, max_time=1),
            "x": Arrays(lambda c: c.draw(c.time, BATCH, DEPTH), "time"),
            "lengths": Arrays(lambda c: np.array([c.time, 0, 2, 1], np.int32)),
        },
        left_out=OF_MODULES | LOOP,
        factors=PLAIN,
    )


def stepwise(library):
    """The cell of a module, in the library's own loop."""
    module, call, params_of = LIBRARIES[library]
    cls = module.Cell

    def run(context, params, carry, inputs):
        return call("Cell", context, params, carry, inputs)

    args = lambda context: [context.state(context.cell), np.zeros((BATCH, DEPTH))]
    return Row(
        run,
        (cls.__init__, cls.__call__),
        given={
            "params": params_of("Cell", args),
            "carry": ONE,
            "inputs": Arrays(lambda c: c.draw(BATCH, DEPTH)),
        },
        left_out=OF_MODULES,
        factors=PLAIN,
    )


# Cells of other libraries.


def imported(as_cell, make, *left_out):
    """A row that runs `make()`, a cell of another library, by `dynamic_rnn`."""

    def run(context, params, inputs, **arguments):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            cell = make()
            cell = getattr(cell, "cell", cell)
            return jaxrnn.dynamic_rnn(
                cell.bind(params), inputs, None, dtype=inputs.dtype, **arguments
            )

    def params(context):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            cell = make()
            if hasattr(cell, "params"):
                return draw(jax.tree.map(jnp.asarray, cell.params))
            return draw(jax.eval_shape(lambda: cell.init(jax.random.key(0), STEP)))

    return Row(
        run,
        (as_cell,),
        given={"params": copies(params), "inputs": INPUTS},
        left_out=dict.fromkeys(left_out, "part of the cell"),
        names=frozenset({"mask", "resets"}),
        factors=PLAIN,
    )


def of_haiku():
    hk = pytest.importorskip("haiku")
    core = hk.transform(lambda x, state: hk.GRU(2)(x, state))
    return haiku.as_cell(core, 2, 2)


def of_equinox():
    eqx = pytest.importorskip("equinox")
    return equinox.as_cell(eqx.nn.GRUCell(DEPTH, 2, key=jax.random.key(0)), 2)


def of_linen():
    return jaxrnn.linen.as_cell(nn.GRUCell(2, param_dtype=jnp.float64), DEPTH)


def of_nnx():
    make = lambda: nnx.GRUCell(DEPTH, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    return jaxrnn.nnx.as_cell(make(), DEPTH)


FLAX = ["module", "in_features", "broadcast_rngs"]
ROWS = {
    **{
        f"{lib}.{n}": over_sequences(lib, n)
        for lib in LIBRARIES
        for n in INITIAL_STATES
    },
    **{f"{lib}.RawRNN": raw(lib) for lib in LIBRARIES},
    **{f"{lib}.Cell": stepwise(lib) for lib in LIBRARIES},
    "linen.as_cell": imported(jaxrnn.linen.as_cell, of_linen, *FLAX),
    "nnx.as_cell": imported(jaxrnn.nnx.as_cell, of_nnx, *FLAX),
    "convert.haiku.as_cell": imported(
        haiku.as_cell, of_haiku, "transformed", "state_size", "output_size"
    ),
    "convert.equinox.as_cell": imported(
        equinox.as_cell, of_equinox, "module", "state_size"
    ),
}
