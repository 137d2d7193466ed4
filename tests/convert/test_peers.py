"""Weights of libraries for JAX give the cells that those libraries run.

The gradients are with respect to the weights in the layout of the library. Final states
do not depend on the converters.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_same,
    bound,
    differentiated,
    outputs_of,
    usual_promotion,
)

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, convert

hk = pytest.importorskip("haiku")
eqx = pytest.importorskip("equinox")
nn = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")

DEPTH = 3


def random_like(shapes, dtype=np.float64):
    """Random numbers for each leaf, so no bias is zero."""
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda s: (0.7 * draw(size=s.shape)).astype(dtype), shapes)


def inputs(*shape):
    return random_like(jax.ShapeDtypeStruct(shape, np.float64))


X = inputs(2, 4, DEPTH)


class Peer(NamedTuple):
    """A model of another library."""

    theirs: Callable  # The outputs as a function of weights and inputs.
    weights: Any  # Random.
    load: Callable  # Makes a bound cell, or the cells of both directions.
    save: Callable  # The inverse of `load`.
    other: Any = None  # The same weights as the library also stores them.
    x: Any = X


def haiku(*make, names=None, x=X, **options):
    def run(x):
        core = hk.DeepRNN([each() for each in make])
        zeros = jax.tree.map(lambda s: s.astype(x.dtype), core.initial_state(len(x)))
        return hk.dynamic_unroll(core, x, zeros, time_major=False)[0]

    functions = hk.without_apply_rng(hk.transform(run))
    return Peer(
        functions.apply,
        random_like(jax.eval_shape(functions.init, jax.random.key(0), x)),
        lambda params: convert.from_haiku(params, at=names, **options),
        lambda cell: convert.to_haiku(cell, at=names),
        x=x,
    )


def haiku_conv():
    """Two stacked convolutional LSTMs; an even size of a window has uneven padding."""
    cores = [lambda n=n: hk.Conv2DLSTM((4, 3), n, (2, 3)) for n in (2, 3)]
    return haiku(*cores, x=inputs(2, 2, 4, 3, 1), input_shape=(4, 3))


def equinox(*kinds):
    """Each kind is a class of cells, the sizes, and whether it has a bias."""
    options = {"dtype": np.float64, "key": jax.random.key(0)}
    # Of a module only the arrays are leaves.
    modules = [random_like(getattr(eqx.nn, n)(*a, **options)) for n, *a in kinds]

    def run_one(cell, row):
        """The outputs of one sequence, `[time, depth]`."""
        zeros = jnp.zeros(cell.hidden_size, row.dtype)
        zeros = (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros
        step = lambda state, x: (state := cell(x, state), jax.tree.leaves(state)[0])
        return jax.lax.scan(step, zeros, row)[1]

    def theirs(cells, x):
        for cell in cells:
            x = jax.vmap(functools.partial(run_one, cell))(x)
        return x

    def put(cell, arrays):
        """As `to_equinox` describes it; also a bias that was missing."""
        get = lambda cell: [getattr(cell, name) for name in arrays]
        is_leaf = lambda leaf: leaf is None
        return eqx.tree_at(get, cell, list(arrays.values()), is_leaf=is_leaf)

    def save(cell):
        saved = convert.to_equinox(cell)
        return list(map(put, modules, saved if len(kinds) > 1 else [saved]))

    return Peer(theirs, modules, convert.from_equinox, save)


# Of each layer the class, or the classes of both directions.
FLAX = {
    "lstm_relu": ["LSTMCell"],
    "stack": ["GRUCell", "OptimizedLSTMCell", "SimpleCell"],
    "both": [("GRUCell", "OptimizedLSTMCell"), ("SimpleCell", "SimpleCell")],
}


def flax(case, make_layer, make_two, sequential):
    """A module, the options of `from_flax`, and where it has a cell's weights."""
    if case == "lstm_relu":
        own = make_layer(*FLAX[case], DEPTH, 4, activation_fn=jax.nn.relu)
        return own, {"activation": "relu"}, lambda tree: {"cell": tree}
    layers, depth = [], DEPTH
    for kinds in FLAX[case]:
        if case == "both":
            both = [make_layer(k, depth, 2 + i) for i, k in enumerate(kinds)]
            layers, depth = [*layers, make_two(*both)], 5
        else:
            layers, depth = [*layers, make_layer(kinds, depth, 4)], 4
    options = {"activation": "tanh", "bidirectional": case == "both"}
    return sequential(layers), options, lambda tree: tree


def linen(case):
    def layer(kind, depth, units, **options):
        return nn.RNN(getattr(nn, kind)(units, param_dtype=np.float64, **options))

    model, options, wrap = flax(case, layer, nn.Bidirectional, nn.Sequential)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), X)["params"])
    # As in a module whose kernels have names for the axes of a mesh.
    boxed = jax.tree.map(lambda x: nn.Partitioned(x, (None,) * x.ndim), params)
    return Peer(
        lambda params, x: model.apply({"params": params}, x),
        params,
        lambda params: convert.from_flax(params, **options),
        lambda cells: wrap(convert.to_linen(cells)),
        {"params": boxed},
    )


def of_nnx(case):
    rngs = nnx.Rngs(0)

    def layer(kind, depth, units, **options):
        options |= dict.fromkeys(("dtype", "param_dtype"), np.float64)
        inits = "kernel_init", "recurrent_kernel_init"  # The usual ones are slow.
        options |= dict.fromkeys(inits, nnx.initializers.zeros)
        cell = getattr(nnx, kind)(depth, units, rngs=rngs, **options)
        return nnx.RNN(cell, rngs=rngs)

    two = functools.partial(nnx.Bidirectional, rngs=rngs)
    model, options, wrap = flax(case, layer, two, lambda all: nnx.Sequential(*all))
    graph, state, rest = nnx.split(model, nnx.Param, ...)
    params = random_like(nnx.to_pure_dict(state))

    def filled(params):
        own, others = jax.tree.map(lambda leaf: leaf, (state, rest))
        nnx.replace_by_pure_dict(own, params)
        return own, others

    return Peer(
        lambda params, x: nnx.merge(graph, *filled(params))(x),
        params,
        lambda params: convert.from_flax(params, **options),
        lambda cells: wrap(convert.to_nnx(cells, optimized=case != "lstm_relu")),
        filled(params)[0],  # The boxes are opened.
    )


MIXED = [lambda: hk.GRU(2), lambda: hk.LSTM(4), lambda: hk.GRU(3, name="top")]
MAKE = {
    "haiku-rnn": lambda: haiku(lambda: hk.VanillaRNN(4)),
    "haiku-rnn_one_bias": lambda: haiku(lambda: hk.VanillaRNN(4, double_bias=False)),
    "haiku-mixed": lambda: haiku(*MIXED, names=["gru", "lstm", "top"]),
    "haiku-conv": haiku_conv,
    "equinox-lstm_no_bias": lambda: equinox(("LSTMCell", DEPTH, 4, False)),
    "equinox-stack": lambda: equinox(("GRUCell", DEPTH, 2), ("LSTMCell", 2, 4)),
}
MAKE |= {f"linen-{case}": functools.partial(linen, case) for case in FLAX}
MAKE |= {f"nnx-{case}": functools.partial(of_nnx, case) for case in FLAX}


@functools.cache
def peer(case):
    with usual_promotion():
        return MAKE[case]()


@pytest.mark.fast("haiku-rnn", "equinox-lstm_no_bias", "nnx-lstm_relu")
@pytest.mark.parametrize("case", MAKE)
def test_there_and_back(case):
    """Outputs, gradients, and the weights that `save` gives.

    Bits return, except that two biases become one; a missing bias is of zeros.
    """
    theirs, weights, load, save, other, x = peer(case)
    given = jax.tree.map(jnp.asarray, (weights, x))
    with usual_promotion():
        want = differentiated(theirs, *given)
    got = differentiated(lambda weights, x: outputs_of(load(weights), x), *given)
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)
    cells = load(weights)
    saved = save(cells)
    assert_same(load(saved), cells)
    if other is not None:
        assert_same(load(other), cells)
    got, want = (
        {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (saved, weights))
    )
    if case == "haiku-rnn":
        first, second = (f"['vanilla_rnn/linear{end}']['b']" for end in ("", "_1"))
        want |= {first: want[first] + want[second], second: np.zeros(4)}
    missing = dict.fromkeys(got.keys() - want.keys(), 0)
    for name, array in (want | missing).items():
        if "conv" not in case or name.endswith("['w']"):
            np.testing.assert_array_equal(got[name], array)


def test_names_are_those_that_haiku_gives():
    """Also when kinds are mixed, and within a module."""

    class Net(hk.Module):
        def __call__(self, x):
            make = hk.LSTM, hk.GRU, hk.LSTM, hk.VanillaRNN, hk.GRU
            core = hk.DeepRNN([each(2) for each in make])
            return hk.dynamic_unroll(core, x, core.initial_state(len(x)), False)

    with usual_promotion():
        init = hk.transform(lambda x: Net()(x)).init
        shapes = jax.eval_shape(init, jax.random.key(0), np.ones((2, 4, 3), "f"))
    layers = LSTMCell(2), GRUCell(2), LSTMCell(2), jaxrnn.BasicRNNCell(2, "relu")
    ours = jaxrnn.MultiRNNCell([*layers, GRUCell(2)])
    assert {f"net/{k}" for k in convert.to_haiku(bound(ours))} == shapes.keys()
    names = ["net/lstm_1", "net/vanilla_rnn"]
    got = convert.from_haiku(random_like(shapes), at=names)
    assert got.cell == jaxrnn.MultiRNNCell(layers[2:])
