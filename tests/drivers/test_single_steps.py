"""Runs of one step, and `implementation="scan"`, which runs single steps."""

import collections
import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, KINDS
from flax import nnx
from helpers import bound, drawn, eqns

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell, MultiRNNCell, contrib
from jaxrnn._run.first_step import call_start
from jaxrnn._run.masking import is_of_rows
from jaxrnn.testing import _oracle as oracle, make_setup

F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
D = 32  # With fewer units, a scan may be faster than a loop.
IN_LOOPS = {"scan", "while", "dot_general", "ffi_call"}


def counts(jaxpr):
    """How many loops, products and foreign calls a program has."""
    names = (eqn.primitive.name for eqn in eqns(jaxpr))
    return collections.Counter(name for name in names if name in IN_LOOPS)


@pytest.mark.fast("lstm_*", "mlstm", "min_gru", "multi", "dropout")
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


def of_nnx(kind, *args, **options):
    def run(x, **implementation):
        module = getattr(jaxrnn.nnx, kind)
        return module(*args, **options, **implementation, rngs=nnx.Rngs(0))(x)

    return run


def in_linen(x, **implementation):
    module = jaxrnn.linen.RNN(STACK.cell, **implementation)
    variables = module.variables_of(STACK)
    return module.apply(variables, x, rngs={"dropout": jax.random.key(0)})


STACK = bound(wrapped(), D, F32)
BLOCK = contrib.LSTMBlockFusedCell(D)
BLOCK = BLOCK.bind(drawn(BLOCK, np.ones((1, 1, D), F32)))
# `tests/meshes/test_drivers.py` has the other drivers.
ENTRIES = {
    "dynamic_rnn": lambda x, **given: jaxrnn.dynamic_rnn(STACK, x, dtype=F32, **given),
    "short_conv": lambda x, **given: jaxrnn.short_conv(
        x, jnp.ones((2, D), F32), **given
    ),
    "fused": lambda x, **given: BLOCK(x, dtype=F32, **given),
    "nnx_rnn": of_nnx("RNN", wrapped(), D),
    "nnx_bidirectional": of_nnx("Bidirectional", LSTMCell(D), wrapped(), D),
    "linen_rnn": in_linen,
    "gated_deltanet": of_nnx("GatedDeltaNet", D, 2, 4, 4),
    "mamba": of_nnx("Mamba", D),
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
@pytest.mark.fast("dynamic*", "short_conv", "fused", "nnx_rnn", "mamba")
@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_passes_it_on(name, loops_of):
    """Each entry has a number of steps of its own, because programs are cached."""
    x = jax.ShapeDtypeStruct((2, 41 + [*ENTRIES].index(name), D), F32)
    assert loops_of(ENTRIES[name], x, implementation="scan") == {"scan"}
    default = loops_of(ENTRIES[name], x)
    assert default
    assert "scan" not in default


# Runs of one step are the step of the cell, without a loop.

RUNS = np.array([True, False, True, True])  # The rows that are not padding.
STARTS = np.array([[True], [True], [False], [True]])
LENGTHS = RUNS.astype(np.int32)
OPTIONS = {
    "whole": {},
    "lengths": {"lengths": LENGTHS},
    "mask": {"mask": RUNS[:, None]},
    "resets": {"lengths": LENGTHS, "resets": STARTS},
    "states": {"mask": RUNS[:, None], "resets": STARTS, "return_states": True},
}


@pytest.mark.fast("mask-lru")
@pytest.mark.parametrize("name", KINDS.values())
@pytest.mark.parametrize("given", OPTIONS)
def test_same_as_a_step_by_hand(given, name):
    case, options = CASES[name], dict(OPTIONS[given])
    setup = make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)
    if not is_of_rows(setup.state) and {"mask", "resets"} & {*options}:
        pytest.skip("a leaf of the state has no batch axis")
    lengths = options.pop("lengths", None)
    has_states = options.pop("return_states", False)
    if "resets" in options:
        other = functools.partial(jnp.roll, shift=1, axis=0)
        options["reset_state"] = jax.tree.map(other, setup.state)

    def differentiated(run):
        def of_step(setup, params, xs, state, lengths):
            results = run(setup, params, oracle.at_steps(xs, slice(1)), state, lengths)
            return results if has_states else results[:2]

        return oracle.differentiated(setup, of_step, lengths)

    of_driver = functools.partial(oracle.Setup.run, return_states=has_states, **options)
    of_hand = functools.partial(oracle.unrolled_states, **options)
    oracle.close(differentiated(of_driver), differentiated(of_hand), setup.dtype)


X = np.random.default_rng(0).normal(size=(4, 1, 3)).astype(np.float32)
RESIDUAL = MultiRNNCell([LSTMCell(4), jaxrnn.ResidualWrapper(GRUCell(4))])


@pytest.mark.parametrize("given", ["resets", "states"])
@pytest.mark.parametrize("cell", [RESIDUAL, jaxrnn.MLSTMCell(4, 2)], ids=str)
def test_no_loop_and_no_copy_of_a_kernel(cell, given):
    options = OPTIONS[given] | {"swap_memory": True}  # One step has no parts.
    lengths = options.pop("lengths", None)
    cell = bound(cell, 3, np.float32)

    def run(cell, x, lengths):
        return jaxrnn.dynamic_rnn(cell, x, lengths, dtype=x.dtype, **options)

    program = jax.make_jaxpr(run)(cell, X, lengths)
    names = [eqn.primitive.name for eqn in eqns(program)]
    assert not {"scan", "while", "cond", "ffi_call", "gather"} & {*names}
    by_hand = jax.make_jaxpr(lambda cell, x, state: cell(x[:, 0], state))(
        cell, X, cell.zero_state(4, X.dtype)
    )
    wanted = [eqn.primitive.name for eqn in eqns(by_hand)]
    assert names.count("dot_general") == wanted.count("dot_general")


def test_implementation_is_respected():
    """XLA's loop gives its way to the step; the others are what was asked for."""
    cell = bound(LSTMCell(4), 3, np.float32)
    explain = functools.partial(jaxrnn.explain, cell, X, dtype=X.dtype)
    assert explain().loop == explain(implementation="xla").loop == "step"
    gelu = bound(LSTMCell(4, activation="gelu"), 3, np.float32)
    with pytest.raises(ValueError, match="`implementation` 'native' cannot run"):
        jaxrnn.explain(gelu, X, dtype=X.dtype, implementation="native")
