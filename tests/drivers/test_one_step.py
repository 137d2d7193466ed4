"""Runs of a single step, which is the step of the cell, without a loop."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, eqns

import jaxrnn
from jaxrnn import GRUCell, LSTMCell
from jaxrnn._run.masking import is_of_rows
from jaxrnn.testing import _oracle as oracle

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


FAST = "whole-lstm_*", "lengths-multi", "mask-lru", "resets-gated_*", "states-min_gru"


@pytest.mark.fast(*FAST, "lengths-function_*")
@pytest.mark.parametrize("name", cases.KINDS.values())
@pytest.mark.parametrize("given", OPTIONS)
def test_same_as_a_step_by_hand(given, name):
    case, options = cases.CASES[name], dict(OPTIONS[given])
    setup = oracle.make_setup(case.cell, case.inputs, jnp.float64, case.key, case.state)
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
STACK = jaxrnn.MultiRNNCell([LSTMCell(4), jaxrnn.ResidualWrapper(GRUCell(4))])


@pytest.mark.parametrize("given", ["resets", "states"])
@pytest.mark.parametrize("cell", [GRUCell(4), STACK, jaxrnn.MLSTMCell(4, 2)], ids=repr)
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


def test_results_are_arrays_of_jax():
    """Also outside of jit, of a cell that returns NumPy's."""

    class Constant:
        state_size = output_size = 3
        zero_state = staticmethod(lambda rows, dtype: np.ones((rows, 3), dtype))
        __call__ = staticmethod(lambda x, state: (x * 2, np.zeros(x.shape, x.dtype)))

    results = jaxrnn.dynamic_rnn(Constant(), X, dtype=X.dtype, return_states=True)
    assert all(isinstance(leaf, jax.Array) for leaf in results)


def test_implementation_is_respected():
    """XLA's loop gives its way to the step; the others are what was asked for."""
    cell = bound(LSTMCell(4), 3, np.float32)
    explain = functools.partial(jaxrnn.explain, cell, X, dtype=X.dtype)
    assert explain().loop == explain(implementation="xla").loop == "step"
    gelu = bound(LSTMCell(4, activation="gelu"), 3, np.float32)
    with pytest.raises(ValueError, match="`implementation` 'native' cannot run"):
        jaxrnn.explain(gelu, X, dtype=X.dtype, implementation="native")
