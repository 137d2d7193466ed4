"""XLA's loop over whole sequences, against a loop over `apply`."""

import dataclasses
import functools
import logging
import re

import cases
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import (
    MODES,
    assert_near,
    covering,
    differentiated,
    drawn,
    gradient_of_tangent,
)

import jaxrnn
from jaxrnn import AffineCell, LSTMCell, Stage, TensorShape
from jaxrnn._loops.affine import xla_loop
from jaxrnn._loops.affine.ragged_scan import group_size
from jaxrnn.testing._oracle import Setup, unrolled, weighted_sum

DTYPE = np.dtype("float64")
data = functools.partial(native_cases.data, dtype=DTYPE)
near = functools.partial(assert_near, tolerance=1e-9)


def padded(x, lengths):
    dead = np.arange(x.shape[1])[None] >= jnp.asarray(lengths)[:, None]
    return jnp.where(dead[..., None], np.nan, x)


def check(make):
    """`make(implementation)` is the same in the loop and in a scan of single steps."""
    near(make(None), make("scan"))


def results(cell, implementation=None, lengths=None, **options):
    """A function of `(params, x, state)`: outputs, final state, and gradients."""

    def run(params, x, state):
        given = {"initial_state": state, "implementation": implementation} | options
        return jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, **given)

    return jax.jit(functools.partial(differentiated, run))


ONE_GROUP, PARTIAL_GROUP = 7, 23


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """The platform for which a loop is written; CPUs run both."""
    monkeypatch.setattr(xla_loop, "platform_of", lambda arrays: request.param)
    monkeypatch.setattr(xla_loop, "LEAST_DEPTH", 1)
    monkeypatch.setattr(xla_loop, "LEAST_TIME", 1)
    monkeypatch.setattr(xla_loop, "FEW_ROWS_ON_CPU", xla_loop.FEW_ROWS)


RUNS = {
    "platform": ["cpu", "tpu"],
    "name": ["basic_rnn", "lstm_projection", "gru", "multi_joined"],
    # With few rows, the inputs' products of all steps are computed before the loop.
    "rows": [5, 17],
    "time": [ONE_GROUP, PARTIAL_GROUP],
    "is_ragged": [False, True],
}


SEQUENCES = [("cpu", "lstm_projection", 5, PARTIAL_GROUP, True)]
SEQUENCES += [tuple(case.values()) for case in covering(RUNS)]


@pytest.mark.fast("cpu-lstm_projection-5-23-True")
@pytest.mark.parametrize(", ".join(RUNS), SEQUENCES, indirect=["platform"])
def test_sequences_give_what_steps_give(platform, name, rows, time, is_ragged):
    """Sequences of a single group, and of several with an incomplete last one."""
    assert 0 < -PARTIAL_GROUP % group_size(PARTIAL_GROUP)
    cell, lengths = cases.CASES[name].cell, None
    params, x, state = data(cell, rows, time=time)
    if is_ragged:
        lengths = np.random.default_rng(1).integers(-1, time + 3, rows)
        x = padded(x, lengths)
    check(lambda name: results(cell, name, lengths)(params, x, state))


PARTS = {"swap_memory": jaxrnn.memory.Recompute(part=19)}


@pytest.mark.fast("options0")
@pytest.mark.parametrize("options", [{}, PARTS])
def test_a_reset_at_the_last_step_counts_once(options):
    """An incomplete group goes on past the last step of a run or of a part."""
    cell = jaxrnn.BasicRNNCell(4)
    params, x, state = data(cell, 3, time=PARTIAL_GROUP)
    resets = np.zeros((3, PARTIAL_GROUP), bool)
    resets[[0, 0, 1, 1, 2], [18, -1, -1, 5, 3]] = True
    lengths = [PARTIAL_GROUP, PARTIAL_GROUP, 4]
    run = functools.partial(results, cell, resets=resets, **options)
    check(lambda name: run(name, lengths)(params, x, state))


def test_groups_that_tpus_and_gpus_run_change_nothing(monkeypatch):
    """CPUs skip groups of short rows, and the last one may lack steps."""
    choose = lambda *args, cpu, default: jnp.asarray(default(*args))
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    cell, lengths = jaxrnn.BasicRNNCell(5), np.array([3, 0, 7, 1])
    params, x, state = data(cell, 4, time=31)
    x = padded(x, lengths)
    check(lambda name: results(cell, name, lengths)(params, x, state))


ENDS = np.array([9, 0, 3, 11, 1])
SEVERAL = np.stack([ENDS, ENDS[::-1], 0 * ENDS])
DERIVATIVES = {
    "of rows": lambda loss, p: jax.vmap(jax.grad(loss), (None, 0))(p, SEVERAL),
    "backward of forward": lambda loss, p: gradient_of_tangent(loss)(p),
}


@pytest.mark.fast("cpu-of rows")
@pytest.mark.parametrize("of", DERIVATIVES.values(), ids=DERIVATIVES)
def test_derivatives_of_every_order_and_mode(of, platform):
    """Derivatives of groups with NaN as padding, the last of which are skipped."""
    cell = jaxrnn.BasicRNNCell(2)
    params, x, state = data(cell, 5, time=33, depth=2)

    def derivative(implementation):
        def loss(params, ends=ENDS):
            given = cell.bind(params), padded(x, ends), ends, state
            run = functools.partial(jaxrnn.dynamic_rnn, implementation=implementation)
            return weighted_sum(run(*given))

        return jax.jit(functools.partial(of, loss))(params)

    check(derivative)


def test_steps_taken_follow_the_longest_row():
    """Of each of two batches, which `vmap` runs at once."""
    steps = []

    def counted(x):
        jax.debug.callback(lambda _: steps.append(1), x[0, 0])
        return jnp.tanh(x)

    cell = jaxrnn.BasicRNNCell(2, activation=counted)
    params, x, state = data(cell, 4, time=50)
    run = lambda params, *given: jaxrnn.dynamic_rnn(cell.bind(params), x, *given, state)
    loss = lambda params, lengths: run(params, lengths)[0].sum()

    def taken(run, *lengths):
        steps.clear()
        run = jax.jit(jax.vmap(run, (None, 0)))
        jax.block_until_ready(run(params, jnp.asarray(lengths)))
        jax.effects_barrier()
        return len(steps) // 2  # One call for each mapped entry.

    short, shorter = [3, 0, 7, 1], [2, 2, 1, 0]
    group = group_size(50)
    assert 7 <= taken(loss, short, shorter) == group < 50
    # The backward pass runs the updates again. It may run one more step, to get the
    # values that skipped steps save.
    assert 2 * group <= taken(jax.grad(loss), short, shorter) <= 3 * group + 1


def test_kernels_gradients_are_not_made_at_every_step():
    """A single product over all steps computes the gradient of the kernel."""
    args = data(LSTMCell(32), 40, time=30, depth=6)
    text = str(results(LSTMCell(32)).trace(*args).jaxpr)
    assert len(re.findall(r"f64\[(?:32,128|128,32)\] = dot_general", text)) == 1


@dataclasses.dataclass(frozen=True, eq=False)
class Normalized(AffineCell):
    """A cell whose derivative is not finite if the product is 0."""

    products: int = 1
    state_size = output_size = 3

    @property
    def stages(self):
        first = lambda params, z, carry: (unit(z),) * 2
        last = lambda params, z, carry: (jnp.tanh(z),) * 2
        made = [
            Stage(first, 3, 3, path="first"),
            Stage(last, 3, 3, path="p"),
        ]
        return tuple(made[: self.products])

    def enter(self, state):
        return state, state


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


MISSING = {
    # The last group is incomplete, or some groups are skipped.
    "lacks": (Normalized(), 17, [17, 17], "backward of backward"),
    "skipped": (Normalized(products=2), 20, [5, 3], "backward"),
}


@pytest.mark.fast("skipped")
@pytest.mark.parametrize("case", MISSING)
def test_steps_that_do_not_exist_are_not_read(case, caplog):
    cell, time, lengths, mode = MISSING[case]
    caplog.set_level(logging.DEBUG, "jaxrnn")
    params, x, state = data(cell, 2, time=time)
    setup = Setup(cell, params, x, jnp.asarray(lengths), state, DTYPE)

    def derivative(run, time):
        given = x[:, :time], state, setup.lengths
        made = lambda params: run(setup, params, *given)[0]
        loss = lambda params: jnp.sum(jnp.sin(made(params)))
        return jax.jit(MODES[mode](loss))(params)

    near(derivative(Setup.run, time), derivative(unrolled, max(lengths)))
    assert "step by step" not in caplog.text  # The cell has not declined.


def test_derivatives_by_arrays_that_functions_hide(caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    x = jnp.ones((2, 3, 2), DTYPE)
    params = drawn(jaxrnn.BasicRNNCell(2), x[:, 0])

    def loss(scale):
        hide = jax.jit(lambda x: jnp.tanh(x) * scale)
        cell = jaxrnn.BasicRNNCell(2, activation=hide).bind(params)
        return jaxrnn.dynamic_rnn(cell, x, [3, 1], dtype=DTYPE)[0].sum()

    above, below = loss(jnp.float64(1.3 + 1e-6)), loss(jnp.float64(1.3 - 1e-6))
    got = jax.jit(jax.grad(loss))(1.3)
    np.testing.assert_allclose(got, (above - below) / 2e-6, rtol=1e-7)
    assert [m for m in caplog.messages if "traced arrays" in m]


@dataclasses.dataclass(frozen=True, eq=False)
class AnyRank(AffineCell):
    """A cell with a state leaf of rank 3."""

    output_size = TensorShape((2, 3))
    state_size = 3, output_size

    @property
    def stages(self):
        return (Stage(self.update, 3, 9, path="only"),)

    def enter(self, state):
        return state[0], state

    def update(self, params, z, state):
        h, leaf = state
        h, leaf = jnp.tanh(z[:, :3] + h), leaf + jnp.sin(z[:, 3:].reshape(-1, 2, 3))
        return leaf, (h, leaf)


@pytest.mark.slow
def test_leaves_of_any_rank_on_tpus(monkeypatch):
    """On TPUs, lengths are as wide as the state if all leaves have rank 2."""
    monkeypatch.setattr(xla_loop, "platform_of", lambda arrays: "tpu")
    cell, resets = AnyRank(), np.random.default_rng(0).random((3, 4))
    args, lengths = data(cell, 3, time=4), np.array([4, 0, 2])
    check(lambda name: results(cell, name, lengths, resets=resets < 0.4)(*args))
