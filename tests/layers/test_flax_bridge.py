"""Flax's bridges between linen and nnx, and its tables, for every module."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax_modules import DEPTH, ROWS, UNITS, X, same

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import DropoutWrapper, FunctionCell, GRUCell, LSTMCell, MultiRNNCell

KEY = jax.random.key(0)
LSTM, GRU = LSTMCell(UNITS), GRUCell(3)
SIZES = {"num_heads": 2, "key_size": 3, "value_size": 4}
STATE = LSTM.zero_state(ROWS, X.dtype)
# The cells of each module, its options, and the arguments of a call.
OF_CELLS = {
    "RNN": ([LSTM], {}, [X]),
    "Bidirectional": ([LSTM, GRU], {}, [X]),
    "StackBidirectional": ([[LSTM, GRU], [GRU, LSTM]], {}, [X]),
    "Cell": ([LSTM], {}, [STATE, X[:, 0]]),
}
LAYERS = {
    "GatedDeltaNet": SIZES,
    "KimiDeltaAttention": SIZES,
    "Mamba": {},
    "Mamba2": SIZES,
    "RWKV7TimeMix": {"num_heads": 2},
}
GIVEN = OF_CELLS | {name: ([], options, [X]) for name, options in LAYERS.items()}
EXPORTED = {name: getattr(jaxrnn.nnx, name) for name in jaxrnn.nnx.__all__}
MODULES = [
    name
    for name, value in EXPORTED.items()
    if isinstance(value, type) and issubclass(value, nnx.Module)
]


class Model(nn.Module):
    """A model of linen with a module of nnx."""

    name_of_module: str

    @nn.compact
    def __call__(self, *given):
        cells, options, _ = GIVEN[self.name_of_module]
        kind = EXPORTED[self.name_of_module]
        rnn = nnx.bridge.to_linen(kind, *cells, DEPTH, **options, name="rnn")
        return rnn(*given)


@pytest.mark.fast("RNN", "Mamba")
@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_nnx_in_linen(name):
    """At the top level, where a module's attributes are the names of variables."""
    (cells, options, given), kind = GIVEN[name], EXPORTED[name]
    own = kind(*cells, DEPTH, **options, rngs=nnx.Rngs(0))
    linen = nnx.bridge.to_linen(kind, *cells, DEPTH, **options)
    want, params = own(*given), nnx.to_pure_dict(nnx.state(own, nnx.Param))
    variables = linen.init(KEY, *given)
    assert list(variables) == ["params"]
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(
        jnp.shape, params
    )
    same(linen.apply({"params": params}, *given), want)
    model = Model(name)
    structure = jax.tree.structure(model.init(KEY, *given))
    variables = {"params": {"rnn": params}}
    assert jax.tree.structure(variables) == structure
    same(jax.jit(model.apply)(variables, *given), want)


def of_list(params, inputs, state, key=None):
    return inputs @ params[0] + state, state + params[1]


def init_list(key, inputs, dtype):
    return [jnp.full((DEPTH, UNITS), 0.5, dtype), jnp.ones((UNITS,), dtype)[None]]


OTHERS = {
    "layers": MultiRNNCell([LSTM, GRU]),
    "dropout": DropoutWrapper(GRU, 0.5),
    "lists": FunctionCell(of_list, UNITS, UNITS, init_list),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nests_of_parameters_and_dropout_in_linen(name):
    cell = OTHERS[name]
    linen = nnx.bridge.to_linen(jaxrnn.nnx.RNN, cell, DEPTH)
    variables = linen.init({"params": KEY, "dropout": KEY}, X)
    rnn = jaxrnn.nnx.RNN(cell, DEPTH, rngs=nnx.Rngs(1))
    nnx.update(rnn, nnx.State(variables["params"]))
    quiet = {"deterministic": True, "return_carry": True}
    same(linen.apply(variables, X, [5, 0, 3], **quiet), rnn(X, [5, 0, 3], **quiet))
    run = lambda i: linen.apply(variables, X, rngs={"dropout": jax.random.key(i)})
    same(run(1), run(1))
    assert np.allclose(run(1), run(2)) == (name != "dropout")


def test_names_of_axes_in_linen():
    """Flax needs a mesh with these names also where the names are read."""
    names = "inputs", "hidden"
    mesh = jax.make_mesh((1, 1), names, (jax.sharding.AxisType.Auto,) * 2)
    axes = {"axis_names": {"kernel": names}}
    rnn = nnx.bridge.to_linen(jaxrnn.nnx.RNN, LSTM, DEPTH, **axes)
    with jax.set_mesh(mesh):
        variables = rnn.init(KEY, X)
        specs = nn.get_partition_spec(variables)["params"]["weights"]["lstm_cell"]
        assert specs["kernel"] == jax.P(*names)
        assert rnn.apply(variables, X).shape == (*X.shape[:2], UNITS)


@pytest.mark.parametrize("name", OF_CELLS)
def test_every_module_of_linen_in_nnx(name):
    cells, _, given = OF_CELLS[name]
    linen = getattr(jaxrnn.linen, name)(*cells)
    module = nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0))
    nnx.bridge.lazy_init(module, *given)
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    want = linen.apply({"params": params}, *given)
    same(module(*given), want)
    same(nnx.jit(lambda module, *given: module(*given))(module, *given), want)


def is_printable(row):
    """As in the guide: Flax cannot print a named tuple inside a tuple."""
    return not isinstance(row.outputs, tuple)


@pytest.mark.fast("RNN", "GatedDeltaNet")
@pytest.mark.parametrize("name", [name for name in MODULES if name != "Cell"])
def test_flax_tabulates_every_module(name):
    cells, options, given = GIVEN[name]
    module = EXPORTED[name](*cells, DEPTH, **options, rngs=nnx.Rngs(0))
    if cells:
        module.return_carry = True
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]
    console = {"force_terminal": False, "width": 200}
    table = nnx.tabulate(
        module, *given, row_filter=is_printable, console_kwargs=console
    )
    assert f"Total Parameters: {sum(sizes):,} (" in table
