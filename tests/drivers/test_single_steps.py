"""`implementation="scan"` runs single steps: every cell, driver, module and layer."""

import collections
import inspect
import logging
import re

import jax
import jax.numpy as jnp
import pytest
from cases import CASES
from flax import nnx
from helpers import bound, eqns

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, contrib, lite
from jaxrnn._run.first_step import call_start
from jaxrnn.testing import make_setup

F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
D = 32  # With fewer units, a scan may be faster than a loop.
IN_LOOPS = {"scan", "while", "dot_general", "ffi_call"}


def counts(jaxpr):
    """How many loops, products and foreign calls a program has."""
    names = (eqn.primitive.name for eqn in eqns(jaxpr))
    return collections.Counter(name for name in names if name in IN_LOOPS)


@pytest.mark.fast("lstm_*", "mlstm", "min_gru", "short_conv", "multi", "dropout")
@pytest.mark.parametrize("name", CASES)
def test_the_program_of_a_cell_is_its_step_in_a_scan(name):
    case = CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)

    def run(cell, xs, state):
        return jaxrnn.dynamic_rnn(cell, xs, None, state, F64, implementation="scan")

    def step(cell, xs, state):
        inputs = jax.tree.map(lambda x: x[:, 0], xs)
        return cell.at_step(jnp.int32(0))(inputs, call_start(cell, state))

    given = setup.bind(), setup.xs, setup.state
    of_run = jax.make_jaxpr(run)(*given).jaxpr
    of_step = counts(jax.make_jaxpr(step)(*given).jaxpr)
    before = counts(jax.make_jaxpr(call_start)(setup.bind(), setup.state).jaxpr)
    scan = next(eqn for eqn in eqns(of_run) if eqn.primitive.name == "scan")
    assert counts(scan.params["jaxpr"].jaxpr) == of_step - before
    assert counts(of_run) == of_step + collections.Counter(["scan"])


def wrapped():
    """A cell within wrappers, which all have loops."""
    cell = jaxrnn.ResidualWrapper(GRUCell(D), lambda x, y: jnp.tanh(x + y))
    cell = jaxrnn.DropoutWrapper(cell, 0.5, 0.5)
    cell = contrib.OutputProjectionWrapper(cell, D)
    cell = contrib.InputProjectionWrapper(contrib.HighwayWrapper(cell), D)
    return MultiRNNCell([cell, jnp.tanh, LSTMCell(D)])


def of_driver(function, *cells, as_list=False, **options):
    def run(x, **implementation):
        inputs = list(x.swapaxes(0, 1)) if as_list else x
        return function(*cells, inputs, dtype=F32, **options, **implementation)

    return run


def saving(x, **implementation):
    saver = jaxrnn.StateSaver(dict.fromkeys("ch", jnp.zeros((2, D), F32)))
    steps = list(x.swapaxes(0, 1))
    return jaxrnn.static_state_saving_rnn(
        LSTM, steps, saver, ("c", "h"), **implementation
    )


def of_fused(cell, as_list=False):
    def run(x, **implementation):
        steps = list(x) if as_list else x
        of_cell = cell.bind(cell.init(jax.random.key(0), steps))
        return of_cell(steps, dtype=F32, **implementation)

    return run


def of_nnx(kind, *args, **options):
    def run(x, **implementation):
        module = getattr(jaxrnn.nnx, kind)
        return module(*args, **options, **implementation, rngs=nnx.Rngs(0))(x)

    return run


def of_linen(kind, *cells):
    def run(x, **implementation):
        module = getattr(jaxrnn.linen, kind)(*cells, **implementation)
        variables = module.variables_of(*(bound(cell, D, F32) for cell in cells))
        return module.apply(variables, x, rngs={"dropout": jax.random.key(0)})

    return run


LSTM, STACK = bound(LSTMCell(D), D, F32), bound(wrapped(), D, F32)
PAIRS = [bound(GRUCell(D), D, F32)], [LSTM]
BLOCK = contrib.LSTMBlockFusedCell(D)
ENTRIES = {
    "dynamic_rnn": of_driver(jaxrnn.dynamic_rnn, STACK),
    "bidirectional": of_driver(jaxrnn.bidirectional_dynamic_rnn, LSTM, STACK),
    "layers": of_driver(jaxrnn.stack_bidirectional_dynamic_rnn, *PAIRS),
    "static_rnn": of_driver(jaxrnn.static_rnn, STACK, as_list=True),
    "static_bidirectional": of_driver(
        jaxrnn.static_bidirectional_rnn, LSTM, STACK, as_list=True
    ),
    "static_layers": of_driver(jaxrnn.stack_bidirectional_rnn, *PAIRS, as_list=True),
    "static_saving": saving,
    "lite": of_driver(lite.dynamic_rnn, bound(lite.TFLiteLSTMCell(D), D, F32)),
    "short_conv": lambda x, **given: jaxrnn.short_conv(
        x, jnp.ones((2, D), F32), **given
    ),
    "fused": of_fused(BLOCK),
    "fused_list": of_fused(BLOCK, as_list=True),
    "fused_adaptor": of_fused(contrib.FusedRNNCellAdaptor(wrapped())),
    "fused_reversed": of_fused(contrib.TimeReversedFusedRNN(BLOCK)),
    "nnx_rnn": of_nnx("RNN", wrapped(), D),
    "nnx_reversed": of_nnx("RNN", GRUCell(D), D, reverse=True),
    "nnx_bidirectional": of_nnx("Bidirectional", LSTMCell(D), wrapped(), D),
    "nnx_layers": of_nnx("StackBidirectional", [GRUCell(D)], [LSTMCell(D)], D),
    "linen_rnn": of_linen("RNN", wrapped()),
    "linen_bidirectional": of_linen("Bidirectional", LSTMCell(D), wrapped()),
    "gated_deltanet": of_nnx("GatedDeltaNet", D, 2, 4, 4),
    "kimi": of_nnx("KimiDeltaAttention", D, 2, 4, 4),
    "mamba": of_nnx("Mamba", D),
    "mamba2": of_nnx("Mamba2", D, 2, 4, 4),
    "rwkv7": of_nnx("RWKV7TimeMix", D, 1),
}


@pytest.fixture
def loops_of(caplog):
    """A function that returns the names of the loops in a call's program."""
    caplog.set_level(logging.DEBUG, "jaxrnn")

    def loops_of(run, x, **options):
        caplog.clear()
        jax.eval_shape(lambda x: jax.tree.leaves(run(x, **options)), x)
        return {*re.findall(r"runs in the loop '(.*?)'", caplog.text)}

    return loops_of


@pytest.mark.loops
@pytest.mark.fast("dynamic*", "static_rnn", "short_conv", "fused", "nnx_rnn", "mamba")
@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_passes_it_on(name, loops_of):
    """Each entry has a number of steps of its own, because programs are cached."""
    x = jax.ShapeDtypeStruct((2, 41 + [*ENTRIES].index(name), D), F32)
    assert loops_of(ENTRIES[name], x, implementation="scan") == {"scan"}
    default = loops_of(ENTRIES[name], x)
    assert default
    assert "scan" not in default


def test_every_driver_has_the_argument():
    """`raw_rnn` calls the cell once a step, and has no other loop."""
    drivers = {name for name in jaxrnn.__all__ if name.endswith("_rnn")} - {"raw_rnn"}
    for name in drivers | {"short_conv"}:
        parameters = inspect.signature(getattr(jaxrnn, name)).parameters
        assert "implementation" in parameters, name
