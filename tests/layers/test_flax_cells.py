"""What Flax does with our cells and modules, and the drivers with cells of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import InvalidRngError
from flax_modules import (
    DEPTH,
    ROWS,
    TIME,
    UNITS,
    X,
    both,
    in_rnn_of_flax,
    same,
    with_params,
)
from helpers import differentiated, usual_promotion

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import (
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    dynamic_rnn,
)

LENGTHS = jnp.asarray([5, 1, 3], jnp.int32)


@pytest.fixture
def promoting():
    """The promotion that Flax's own cells rely on."""
    with usual_promotion():
        yield


flax_runs = pytest.mark.usefixtures("promoting")


def alive(outputs):
    """Outputs of Flax, zeros past the lengths."""
    return jnp.where((jnp.arange(TIME) < LENGTHS[:, None])[..., None], outputs, 0)


def of_linen(module):
    """A cell with its parameters, and what linen's own RNN makes with them."""
    cell = jaxrnn.linen.as_cell(module)
    params = cell.init(jax.random.key(0), X[:, 0], X.dtype)
    rnn = nn.RNN(module, return_carry=True)
    run = lambda params: rnn.apply({"params": {"cell": params}}, X, seq_lengths=LENGTHS)
    return cell.bind(params), run


def of_nnx(module):
    def run(params):
        rnn = nnx.RNN(with_params(module, params), return_carry=True)
        return rnn(X, seq_lengths=LENGTHS)

    return jaxrnn.nnx.as_cell(module, DEPTH), run


OF_FLAX = {
    "linen": (of_linen, nn.OptimizedLSTMCell(UNITS), X.dtype),
    "nnx": (of_nnx, nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0)), X.dtype),
}


@flax_runs
@pytest.mark.fast("nnx")
@pytest.mark.parametrize(("run", "module", "dtype"), OF_FLAX.values(), ids=OF_FLAX)
def test_a_cell_of_flax_in_a_driver(run, module, dtype):
    cell, run = run(module)

    def theirs(params):
        state, outputs = run(params)
        return alive(outputs), state

    def ours(params):
        return dynamic_rnn(cell.cell.bind(params), X, LENGTHS, dtype=dtype)

    assert {x.dtype for x in jax.tree.leaves(cell.params)} == {jnp.dtype(dtype)}
    same(differentiated(ours, cell.params), differentiated(theirs, cell.params))


@flax_runs
def test_a_cell_of_linen_made_within_a_module():
    class Tagger(nn.Module):
        @nn.compact
        def __call__(self, x):
            cell = jaxrnn.linen.as_cell(nn.GRUCell(UNITS))
            return jaxrnn.linen.RNN(cell, param_dtype=jnp.bfloat16, name="rnn")(x)

    with jax.numpy_dtype_promotion("strict"):
        init = Tagger().init_with_output
        outputs, variables = jax.eval_shape(init, jax.random.key(0), X)
    assert outputs.shape == (ROWS, TIME, UNITS)
    assert list(variables["params"]) == ["rnn"]
    leaves = jax.tree.leaves(variables)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}


class Summing(nn.RNNCellBase):
    """A cell of linen without parameters that draws from a stream of its own name."""

    @nn.compact
    def __call__(self, carry, inputs):
        noise = jax.random.normal(self.make_rng("lstm"), inputs.shape, inputs.dtype)
        return carry + noise, noise

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(input_shape, jnp.float32)


STACK = MultiRNNCell([GRUCell(3), LSTMCell(UNITS)])
PROJECTED = LSTMCell(UNITS, num_proj=3)


@flax_runs
@pytest.mark.fast("cell1-InNnx")
@both
@pytest.mark.parametrize("cell", [STACK, PROJECTED])
def test_a_cell_of_jaxrnn_in_the_rnn_of_flax(cell, make):
    rnn, params = in_rnn_of_flax(make, cell)
    state, outputs = rnn(params, X, seq_lengths=LENGTHS)
    bound = cell.bind(*params.values())
    want = dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    same((alive(outputs), state), want)
    _, outputs = jax.eval_shape(rnn, params, X[None])
    assert outputs.shape == (1, *want[0].shape)


@flax_runs
@pytest.mark.fast("lstm")
@pytest.mark.parametrize("broadcast", [(), "lstm", ["lstm", "dropout"]], ids=str)
def test_streams_of_any_name_and_those_that_all_steps_share(broadcast):
    cell = MultiRNNCell([jaxrnn.linen.as_cell(Summing(), DEPTH, broadcast)])
    run = jax.jit(
        lambda key: dynamic_rnn(cell.bind({"cell_0": {}}, key), X, dtype=X.dtype)[0]
    )
    with pytest.raises(InvalidRngError, match="PRNG"):
        run(None)
    outputs, other = (np.asarray(run(jax.random.key(seed))) for seed in (0, 1))
    assert (other != outputs).all()
    assert (outputs[1:] != outputs[:-1]).all()
    assert (outputs[:, 1:] == outputs[:, :-1]).all() == bool(broadcast)


KEY = jax.random.key(0)
# Bridges between linen and nnx, and tables, for every module.

LSTM, GRU = LSTMCell(UNITS), GRUCell(3)
STATE = LSTM.zero_state(ROWS, X.dtype)
# The cells of each module, and the arguments of a call.
OF_CELLS = {
    "RNN": ([LSTM], [X]),
    "Bidirectional": ([LSTM, GRU], [X]),
    "StackBidirectional": ([[LSTM, GRU], [GRU, LSTM]], [X]),
    "Cell": ([LSTM], [STATE, X[:, 0]]),
}


@pytest.mark.fast("RNN")
@pytest.mark.parametrize("name", OF_CELLS)
def test_every_module_in_the_other_library(name):
    (cells, given), kind = OF_CELLS[name], getattr(jaxrnn.nnx, name)
    own = kind(*cells, DEPTH, rngs=nnx.Rngs(0))
    linen = nnx.bridge.to_linen(kind, *cells, DEPTH)
    want, params = own(*given), nnx.to_pure_dict(nnx.state(own, nnx.Param))
    variables = linen.init(KEY, *given)
    assert list(variables) == ["params"]
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(
        jnp.shape, params
    )
    same(linen.apply({"params": params}, *given), want)
    linen = getattr(jaxrnn.linen, name)(*cells)
    module = nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0))
    nnx.bridge.lazy_init(module, *given)
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    same(module(*given), linen.apply({"params": params}, *given))


@pytest.mark.slow
def test_dropout_in_linen():
    cell = DropoutWrapper(GRU, 0.5)
    linen = nnx.bridge.to_linen(jaxrnn.nnx.RNN, cell, DEPTH)
    variables = linen.init({"params": KEY, "dropout": KEY}, X)
    rnn = jaxrnn.nnx.RNN(cell, DEPTH, rngs=nnx.Rngs(1))
    nnx.update(rnn, nnx.State(variables["params"]))
    quiet = {"deterministic": True, "return_carry": True}
    same(linen.apply(variables, X, [5, 0, 3], **quiet), rnn(X, [5, 0, 3], **quiet))
    run = lambda i: linen.apply(variables, X, rngs={"dropout": jax.random.key(i)})
    same(run(1), run(1))
    assert not np.allclose(run(1), run(2))
