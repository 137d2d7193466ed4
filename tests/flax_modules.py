"""Modules of linen and of nnx under one interface, and their runs with drivers."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import draw

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx

ROWS, TIME, DEPTH, UNITS = 3, 5, 2, 4
X = draw(ROWS, TIME, DEPTH, dtype=np.float32)


class InLinen:
    """A module of linen with its variables."""

    def __init__(self, kind, *args, inputs=X, **kwargs):
        self.module = getattr(jaxrnn.linen, kind)(*args, **kwargs)
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        self.params = self.module.init(keys, inputs)["params"]

    def __call__(self, *args, key=None, params=None, **kwargs):
        rngs = None if key is None else {"dropout": key}
        variables = {"params": self.params if params is None else params}
        return self.module.apply(variables, *args, rngs=rngs, **kwargs)


class InNnx:
    """A module of nnx."""

    def __init__(self, kind, *args, inputs=X, **kwargs):
        axis = 0 if kwargs.get("time_major") else 1
        step = jax.tree.map(lambda x: jnp.take(x, 0, axis), inputs)
        self.module = in_nnx(kind, *args, step, **kwargs)
        self.params = nnx.to_pure_dict(nnx.state(self.module.weights))

    def __call__(self, *args, key=None, params=None, **kwargs):
        module = self.module
        if params is not None:
            module = with_params(module, {"weights": params})
        return module(*args, rngs=key, **kwargs)


def in_nnx(kind, *args, **kwargs):
    return getattr(jaxrnn.nnx, kind)(*args, rngs=nnx.Rngs(0), **kwargs)


def with_params(module, params):
    """A copy of a module of nnx with other parameters."""
    graph, _, rest = nnx.split(module, nnx.Param, ...)
    return nnx.merge(graph, nnx.State(params), rest)


def in_rnn_of_flax(make, cell, depth=DEPTH, **options):
    """A run of Flax's RNN around a cell of jaxrnn, and parameters of the cell.

    The run takes the parameters, the inputs and options of the RNN.
    """
    key, step = jax.random.key(0), jnp.zeros((1, 1, depth), X.dtype)
    if make is InLinen:
        rnn = nn.RNN(jaxrnn.linen.Cell(cell, **options), return_carry=True)
        variables = lambda params: {"params": {"cell": params}}
        run = lambda params, *args, **kw: rnn.apply(variables(params), *args, **kw)
        return run, rnn.init(key, step)["params"]["cell"]
    module = in_nnx("Cell", cell, depth, **options)
    with_own = lambda params: with_params(module, {"weights": params})
    rnn = lambda params: nnx.RNN(with_own(params), return_carry=True)
    run = lambda params, *args, **kw: rnn(params)(*args, **kw)
    return run, nnx.to_pure_dict(nnx.state(module))["weights"]


both = pytest.mark.parametrize("make", [InLinen, InNnx])


def same(got, want, rtol=1e-5):
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_close(got, want, rtol=rtol, atol=1e-6)


def cells_in(kind, nest):
    """The cells of a nest of parameters, as the arguments of a module."""
    if kind == "RNN":
        return list(nest.values())
    if kind == "Bidirectional":
        return [*nest["fw"].values(), *nest["bw"].values()]
    cells_of = lambda way: [c for layer in nest.values() for c in layer[way].values()]
    return [cells_of("fw"), cells_of("bw")]


def run_driver(kind, nest, params, x, states=None, **options):
    """`(outputs, state)` of a module's drivers, and with `return_states` all states.

    Args:
        kind: The name of the module.
        nest: The cells in the nest of their parameters.
        params: The parameters of the module.
        x: The inputs.
        states: The initial state, as that of the module.
        **options: Options of the drivers.
    """
    cells = cells_in(kind, jax.tree.map(lambda cell, p: cell.bind(p), nest, params))
    options = {"dtype": X.dtype} | options
    if kind == "RNN":
        return jaxrnn.dynamic_rnn(*cells, x, initial_state=states, **options)
    layers, starts = [cells], [states or (None, None)]
    if kind == "StackBidirectional":
        layers = list(zip(*cells, strict=True))
        starts = starts * len(layers) if states is None else zip(*states, strict=True)
    results = []
    for (fw, bw), (start_fw, start_bw) in zip(layers, starts, strict=True):
        options |= {"initial_state_fw": start_fw, "initial_state_bw": start_bw}
        outputs, *states = jaxrnn.bidirectional_dynamic_rnn(fw, bw, x, **options)
        x = jnp.concatenate(outputs, 2)
        results.append(states)
    if kind == "Bidirectional":
        return x, *states
    of_layers = zip(*results, strict=True)
    return x, *(tuple(zip(*pairs, strict=True)) for pairs in of_layers)
