"""The choice of a loop: by default, by name, what declines, and what `explain` says."""

import dataclasses
import functools
import logging

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Around, Zoneout, assert_near, bound, drawn, refusals
from native_cases import needs_library

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, contrib

F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


def run(cell, implementation, dtype=F32, depth=2, key=None, **kwargs):
    x = jnp.ones((2, 3, depth), dtype)
    cell = cell.bind(drawn(cell, x[:, 0]), key)
    kwargs = {"dtype": dtype, "implementation": implementation} | kwargs
    return jaxrnn.dynamic_rnn(cell, x, **kwargs)


class Derived(LSTMCell):
    """A subclass of `LSTMCell`, whose functions may differ."""


def of_case(name):
    case = cases.CASES[name]
    options = {"depth": jax.tree.leaves(case.inputs)[0].shape[-1], "key": case.key}
    return lambda implementation: run(case.cell, implementation, **options)


def of(cell, dtype=F32):
    return lambda name: run(cell, name, dtype)


REFUSED = {
    **{name: of_case(name) for name in ("dropout", "device", "min_gru", "mlstm")},
    "float64": of(LSTMCell(3), "float64"),
    "no units": of(LSTMCell(0)),
    "subclass": of(Derived(3)),
    "units without a product": of(contrib.IndyLSTMCell(3)),
    "activation": of(GRUCell(3, activation="softsign")),
    "wrapper that does not pass it on": of(Around(LSTMCell(3))),
    "wrapped": of(jaxrnn.ResidualWrapper(Around(LSTMCell(2)))),
    "stack": of(jaxrnn.MultiRNNCell([LSTMCell(3), Around(LSTMCell(3))])),
    "function": of(jaxrnn.FunctionCell(lambda p, x, h, key=None: (h, h), 3, 3)),
}


@needs_library
@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_cannot_run_natively_is_refused(call):
    with pytest.raises(ValueError, match="`implementation` 'native' cannot run"):
        call("native")


test_names_and_sizes = refusals([
    (ValueError, "`implementation`", lambda: run(LSTMCell(3), "cudnn")),
    (TypeError, "`implementation`", lambda: run(LSTMCell(3), 3)),
    (ValueError, "`blocks`", lambda: jaxrnn.Stage(jnp.tanh, 3, 9, blocks=2)),
])  # fmt: skip


# The fields of a cell that the native loops read, or that select a loop; then
# those that change no step: names, dtypes, initial values, unused arguments of
# TensorFlow, and dropout (with active dropout, the native loops do not run).
KNOWN = (
    "num_units cell_size activation forget_bias use_peephole use_peepholes cell_clip "
    "num_proj proj_clip layer_norm project_inputs "
    "name dtype reuse input_size state_is_tuple num_unit_shards num_proj_shards "
    "initializer kernel_initializer bias_initializer norm_gain norm_shift "
    "dropout_keep_prob dropout_prob_seed"
)


def subclasses(cls):
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def test_the_loops_know_every_field():
    """A cell with `equations` has no other fields, which a loop would ignore."""
    cells = [c for c in subclasses(jaxrnn.AffineCell) if "equations" in vars(c)]
    assert {LSTMCell, GRUCell, contrib.LSTMBlockCell} <= set(cells)
    for cell in cells:
        assert {field.name for field in dataclasses.fields(cell)} <= set(KNOWN.split())


X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


class Twice(Around):
    """A wrapper with another step, for which no loop of the wrapped cell runs."""

    def apply(self, params, inputs, state, key=None):
        output, state = super().apply(params, inputs, state, key)
        return 2 * output, state

    def choose_loop(self, params, run):
        return jaxrnn.RNNCell.choose_loop(self, params, run)


def test_the_steps_of_the_cell_are_run():
    cell = bound(Twice(LSTMCell(4)), dtype=F32)
    run = functools.partial(jaxrnn.dynamic_rnn, cell, X, dtype=F32)
    assert_near(run(), run(implementation="scan"), tolerance=1e-6)


EXPLAINED = {
    "xla": (LSTMCell(4), {"implementation": "xla"}, "`implementation` is 'xla'"),
    "recurrence": (jaxrnn.MinGRUCell(4), {}, ""),
    "default": (
        Twice(LSTMCell(4)),
        {"swap_memory": True},
        "Twice has no loop of its own",
    ),
    "own": (Around(jaxrnn.MinGRUCell(4)), {"mask": np.ones((2, 5), bool)}, ""),
}


NAMES = {"recurrence": "chunks", "default": "scan"}


@pytest.mark.parametrize("loop", EXPLAINED)
def test_explain_says_what_is_logged(loop, caplog):
    """For arrays and for their types; nothing is run or printed."""
    caplog.set_level(logging.DEBUG, "jaxrnn")
    cell, options, reason = EXPLAINED[loop]
    cell, options = bound(cell, dtype=F32), options | {"dtype": F32}
    found = jaxrnn.explain(cell, X, **options)
    name = NAMES.get(loop, loop)
    assert (found.loop, found.platform) == (name, jax.default_backend())
    assert reason in found.reason
    assert reason in caplog.messages[0]
    types = jax.eval_shape(lambda given: given, (cell, X))
    assert jaxrnn.explain(*types, **options) == found
    big_endian = np.asarray(X).astype(X.dtype.newbyteorder(">"))
    assert jaxrnn.explain(cell, big_endian, **options) == found


def test_a_cell_with_the_attributes_of_a_bound_cell():
    """The type decides, also where a stream and a plan read attributes."""
    inner = bound(jaxrnn.MinGRUCell(3), dtype=F32)
    cell, h, want = Zoneout(inner.params, inner.cell), np.ones((2, 3), F32), []
    stream = jaxrnn.export.Streamer(cell, 2)
    for t in range(5):
        h = (h + inner(X[:, t], h)[1]) / 2
        want.append(h)
        assert_near(stream(X[:, t]), h, tolerance=1e-6)
    got, _ = jaxrnn.dynamic_rnn(cell, X, dtype=F32)
    assert_near(got, np.stack(want, 1), tolerance=1e-6)
    assert str(jaxrnn.explain(cell, X, dtype=F32)).startswith("Zoneout over 5 steps")
    with pytest.raises(TypeError, match=r"`cell` must have parameters, got Zoneout"):
        jaxrnn.memory_plan(cell, X)


def test_explain_counts_the_saved_bytes():
    """A scan of `sin(h) + x` saves the derivative of the sine at each step."""
    step = lambda p, x, h, key=None: (x, jnp.sin(h) + x)
    cell = jaxrnn.FunctionCell(step, 3, 3).bind({})
    x, recompute = jax.ShapeDtypeStruct((2, 100, 3), F32), jaxrnn.memory.Recompute(20)
    every = jaxrnn.explain(cell, x, dtype=F32)
    few = jaxrnn.explain(cell, x, dtype=F32, swap_memory=recompute)
    assert every.saved.device == 100 * 2 * 3 * 4  # cos(h) of each step.
    assert few.saved.device < every.saved.device
    assert (every.strategy, every.part) == (jaxrnn.memory.Keep(), None)
    assert (few.strategy, few.part) == (recompute, 20)
    assert f"{recompute}, in parts of 20 steps" in str(few)
