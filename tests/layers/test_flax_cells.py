"""Cells of Flax in the drivers, and ours in Flax's RNN and in a decoder."""

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
    InLinen,
    X,
    both,
    in_nnx,
    in_rnn_of_flax,
    same,
    with_params,
)
from helpers import differentiated, draw, in_raw_rnn, usual_promotion

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, dynamic_rnn

LENGTHS = jnp.asarray([5, 1, 3], jnp.int32)


@pytest.fixture(autouse=True)
def usual_jax():
    """The promotion that Flax's own modules rely on."""
    with usual_promotion():
        yield


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


COMPLEX = nn.SimpleCell(UNITS, param_dtype=jnp.complex64)
OF_FLAX = {
    "linen": (of_linen, nn.OptimizedLSTMCell(UNITS), X.dtype),
    "complex": (of_linen, COMPLEX, jnp.complex64),
    "nnx": (of_nnx, nnx.GRUCell(DEPTH, UNITS, rngs=nnx.Rngs(0)), X.dtype),
}


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


def test_a_cell_of_linen_made_within_a_module():
    class Tagger(nn.Module):
        @nn.compact
        def __call__(self, x):
            cell = jaxrnn.linen.as_cell(nn.GRUCell(UNITS))
            return jaxrnn.linen.RNN(cell, param_dtype=jnp.bfloat16, name="rnn")(x)

    with jax.numpy_dtype_promotion("strict"):
        outputs, variables = Tagger().init_with_output(jax.random.key(0), X)
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


class SummingNnx(nnx.Module):
    """The same as a module of nnx that is not derived from its class of cells."""

    def __init__(self):
        self.lstm = nnx.Rngs(lstm=0).lstm

    def __call__(self, carry, inputs):
        noise = jax.random.normal(self.lstm(), inputs.shape, inputs.dtype)
        return carry + noise, noise

    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(input_shape, jnp.float32)


@pytest.mark.fast("InNnx-broadcast2")
@pytest.mark.parametrize("broadcast", [(), "lstm", ["lstm", "dropout"]])
@both
def test_streams_of_any_name_and_those_that_all_steps_share(make, broadcast):
    if make is InLinen:
        cell, params = jaxrnn.linen.as_cell(Summing(), DEPTH, broadcast), {}
    else:
        bound = jaxrnn.nnx.as_cell(SummingNnx(), DEPTH, broadcast)
        cell, params = bound.cell, bound.params

    @jax.jit
    def run(key):
        bound = MultiRNNCell([cell]).bind({"cell_0": params}, key)
        return dynamic_rnn(bound, X, dtype=X.dtype)[0]

    with pytest.raises((ValueError, InvalidRngError), match=r"`key`|PRNG"):
        run(None)
    outputs, other = (np.asarray(run(jax.random.key(seed))) for seed in (0, 1))
    assert (other != outputs).all()
    assert (outputs[1:] != outputs[:-1]).all()
    assert (outputs[:, 1:] == outputs[:, :-1]).all() == bool(broadcast)


def test_a_stream_of_linen_of_another_name():
    cell = jaxrnn.linen.as_cell(Summing(), DEPTH)
    rnn = jaxrnn.linen.RNN(cell, rng_collection="lstm")
    variables = rnn.init(jax.random.key(0), X)
    run = lambda seed: rnn.apply(variables, X, rngs={"lstm": jax.random.key(seed)})
    assert (run(0) != run(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "features", "batch"),
    [
        *[(nn.OptimizedLSTMCell(UNITS), (DEPTH,), batch) for batch in ((2, ROWS), ())],
        (nn.ConvLSTMCell(2, (3, 3)), (4, 5, 1), (ROWS,)),
    ],
)
def test_any_axes_of_rows_and_features(module, features, batch):
    x = draw(*batch, TIME, *features, dtype=X.dtype)
    cell = jaxrnn.linen.as_cell(module, features)
    rnn = jaxrnn.linen.RNN(cell, return_carry=True)
    got, variables = rnn.init_with_output(jax.random.key(0), x)
    (params,) = variables["params"].values()
    theirs = nn.RNN(module, return_carry=True)
    same(got, theirs.apply({"params": {"cell": params}}, x))


@pytest.mark.parametrize("rngs", [nnx.Rngs(0), nnx.Rngs(0).carry, jax.random.key(0)])
def test_another_first_state(rngs):
    cell, normal = in_nnx("Cell", LSTMCell(UNITS), DEPTH), nn.initializers.normal()
    state = cell.initialize_carry((5, 2, DEPTH), rngs, carry_init=normal)
    assert state.c.shape == state.h.shape == (5, 2, UNITS)
    assert (state.c != state.h).all()
    assert not jnp.any(cell.initialize_carry((2, DEPTH)).c)


@pytest.mark.fast("InNnx")
@both
def test_integers_are_cast_to_the_dtype_of_a_cell(make):
    ids = jnp.ones((ROWS, TIME, DEPTH), jnp.int32)
    rnn, params = in_rnn_of_flax(make, GRUCell(UNITS), dtype=X.dtype)
    same(rnn(params, ids), rnn(params, ids.astype(X.dtype)))


STACK = MultiRNNCell([GRUCell(3), LSTMCell(UNITS)])
PROJECTED = LSTMCell(UNITS, num_proj=3)


@pytest.mark.fast("cell1-InNnx")
@both
@pytest.mark.parametrize("cell", [STACK, PROJECTED])
def test_a_cell_of_jaxrnn_in_the_rnn_of_flax(cell, make):
    rnn, params = in_rnn_of_flax(make, cell)
    state, outputs = rnn(params, X, seq_lengths=LENGTHS)
    bound = cell.bind(*params.values())
    want = dynamic_rnn(bound, X, LENGTHS, dtype=X.dtype)
    same((alive(outputs), state), want)
    _, outputs = rnn(params, X[None])
    same(outputs[0], dynamic_rnn(bound, X, dtype=X.dtype)[0])


STATE = draw(ROWS, UNITS, dtype=X.dtype)


def in_raw(cell):
    return in_raw_rnn(cell, jnp.swapaxes(X, 0, 1), STATE, LENGTHS)


class Decoder(nn.Module):
    """A module of linen that runs the cell of another one in `raw_rnn`."""

    @nn.compact
    def __call__(self):
        rnn = jaxrnn.linen.RNN(GRUCell(UNITS), name="rnn")
        if self.is_initializing():
            rnn(X)
        return in_raw(rnn.cells_of(rnn.variables))


@pytest.mark.fast("InNnx")
@both
def test_the_cell_of_a_module_in_raw_rnn(make):
    if make is InLinen:
        params = Decoder().init(jax.random.key(0))["params"]
        run = lambda params: Decoder().apply({"params": params})
    else:
        module = in_nnx("RNN", GRUCell(UNITS), DEPTH)
        params = {"rnn": nnx.to_pure_dict(nnx.state(module.weights))}
        given = lambda params: {"weights": params["rnn"]}
        run = lambda params: in_raw(with_params(module, given(params)).get_cells())
    plain = lambda params: in_raw(GRUCell(UNITS).bind(params["rnn"]["gru_cell"]))
    same(differentiated(run, params), differentiated(plain, params))
