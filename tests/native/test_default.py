"""The default loop on one CPU device, with the library of native loops."""

import functools
import logging
import re
import shutil

import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import differentiated, drawn, stacked
from native_cases import CELLS, assert_near, calls, data, everything, run, with_resets

import jaxrnn
from jaxrnn import CudnnCompatibleGRUCell, GRUCell, LSTMCell, contrib
from jaxrnn._base import jax_internals
from jaxrnn._loops.affine import xla_loop
from jaxrnn._loops.affine.native import calls as library
from jaxrnn._loops.affine.native.sequence import NativeLoop
from jaxrnn.memory import Keep, Offload, Recompute
from jaxrnn.testing._oracle import weighted_sum

from ..golden import replay, store

pytestmark = native_cases.needs_library


@pytest.fixture
def check_alone(request):
    """Assert that one device gives natively what several devices give without."""

    def check(made, tolerance=2e-5):
        want = made()
        request.getfixturevalue("alone")
        assert_near(made(), want, tolerance=tolerance)

    return check


@pytest.fixture
def unread(monkeypatch):
    """Reset the library's state, and let tests set another path for it."""

    def at(path):
        jax.clear_caches()
        monkeypatch.setattr(library, "LIBRARY", path)
        for name in ("_load", "why_unusable", "register"):
            again = functools.cache(getattr(library, name).__wrapped__)
            monkeypatch.setattr(library, name, again)
        return path

    yield at
    jax.clear_caches()


def by_default(name):
    return functools.partial(run, CELLS[name], None)


# The choice, and when it is traced.


def test_xlas_loop_is_not_traced(alone, monkeypatch):
    monkeypatch.setattr(xla_loop.AffineLoop, "forward", None)
    cell, given = CELLS["lstm"], data(CELLS["lstm"])
    run(cell, None, *given)
    with pytest.raises(TypeError, match="callable"):
        run(cell, "xla", *given)


def test_a_second_call_traces_nothing(runs):
    given = data(CELLS["lstm"])
    for _ in range(3):
        by_default("lstm")(*given)
    assert len(runs) == 1


def test_several_devices_without_a_mesh_have_xlas_loop():
    """XLA may shard rows, but it cannot shard a native call."""
    assert not calls(by_default("rnn"), *data(CELLS["rnn"]))


def test_other_layers_of_a_stack_run_natively(alone):
    cell = jaxrnn.MultiRNNCell([CELLS["gru"], GRUCell(4, activation="elu")])
    given = data(cell)
    assert len(calls(functools.partial(run, cell, None), *given)) == 1
    assert_near(run(cell, None, *given), run(cell, "xla", *given))


CHOSEN = {
    "native": (LSTMCell(4), jnp.float32),
    "elu": (GRUCell(4, activation="elu"), jnp.float32),
    "bfloat16": (GRUCell(4), jnp.bfloat16),
    "float64": (GRUCell(4), jnp.float64),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_chosen_is_logged(name, alone, caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    cell, dtype = CHOSEN[name]
    program = functools.partial(run, cell, None)
    chosen = "native" if calls(program, *data(cell, dtype=dtype)) else "xla"
    assert chosen == ("native" if name == "native" else "xla")
    (message,) = caplog.messages
    assert message.startswith(f"{type(cell).__name__} runs in the loop '{chosen}'")
    assert name in message


LIBRARY = library.LIBRARY
OTHER_JAX = "the native loops are incompatible with this JAX: .*"
TARGET = "JAXRNN_NATIVE_TARGET"
LACKS = jax_internals, "MISSING", "cannot import name 'lower_fun'"
SIDEWARD = library, "_CALLS", ("sideward",)
# What is at the library's path, what is replaced, and the reason.
UNUSABLE = {
    "not_built": (None, None, "the native loops were not built"),
    "no_library": (__file__, None, "the native loops cannot be loaded: "),
    "no_symbol": (LIBRARY, SIDEWARD, f"{OTHER_JAX}Sideward"),
    "later_jax": (LIBRARY, LACKS, f"{OTHER_JAX}lower_fun"),
    "no_target": (LIBRARY, "mmx", rf"{TARGET} must be one that this CPU has \("),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_library(case, alone, unread, tmp_path, monkeypatch, caplog):
    """XLA's loops run, and the reason is logged once."""
    there, patch, reason = UNUSABLE[case]
    caplog.set_level(logging.INFO, "jaxrnn")
    path = unread(tmp_path / "libjaxrnn_native.so")
    if there is not None:
        shutil.copy(there, path)
    if patch == "mmx":
        monkeypatch.setenv(TARGET, patch)
    elif patch:
        monkeypatch.setattr(*patch)
    for name in ("gru", "lstm"):
        assert not calls(by_default(name), *data(CELLS[name]))
    with pytest.raises(ValueError, match=f"cannot run .*: {reason}"):
        run(CELLS["gru"], "native", *data(CELLS["gru"]))
    (message,) = caplog.messages
    assert re.match(f"XLA's loops run, because {reason}", message)
    assert re.match(f"XLA's loops: {reason}", jaxrnn.native_status())


def test_the_status():
    targets = "(baseline|avx2|avx512)"
    assert re.fullmatch(f"native loops, for {targets}", jaxrnn.native_status())


# Rows that are reset.


@pytest.mark.fast("gru")
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_resets(name, check_alone):
    call, given = with_resets(CELLS[name], time_major=name == "gru")
    check_alone(lambda: differentiated(call, *given))
    assert len(calls(call, *given)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0)])
def test_mapped_resets(axes, check_alone):
    call, given = with_resets(CELLS["lstm"], False)
    pairs = zip(given, axes, strict=True)
    wide = [v if axis is None else stacked(v, 1, -1) for v, axis in pairs]
    loss = lambda *given: weighted_sum(call(*given))
    step = jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), axes)
    check_alone(lambda: jax.jit(step)(*wide))
    joined = (2, 5, 6) if axes[0] == 0 else (1, 10, 6)  # As entries, or as rows.
    assert [c.shape[:3] for c in calls(step, *wide)] == [joined] * 2


# Programs for other machines.


def exported(fn, given, platforms=("cpu",)):
    return jax.export.export(jax.jit(fn), platforms=platforms)(*given)


PLATFORMS = [(run, ["cpu", "tpu"]), (everything, ["cpu"]), (everything, ["tpu"])]


@pytest.mark.fast("run-*")
@pytest.mark.parametrize(("what", "platforms"), PLATFORMS)
def test_an_exported_program_has_no_call(what, platforms, alone):
    cell, given = CELLS["lstm"], data(CELLS["lstm"])
    here = functools.partial(what, cell, None)
    assert "jaxrnn_native_forward" in jax.jit(here).lower(*given).as_text()
    program = exported(here, given, platforms)
    assert "jaxrnn_native" not in program.mlir_module()
    if "cpu" in platforms:
        assert_near(program.call(*given), what(cell, "xla", *given))


def test_an_exported_program_has_the_precision_of_the_call(alone):
    def precise(*given):
        with jax.default_matmul_precision("highest"):
            return by_default("rnn")(*given)

    text = exported(precise, data(CELLS["rnn"])).mlir_module()
    assert text.count("precision = [HIGHEST, HIGHEST]") > 0
    assert "precision = [DEFAULT" not in text


@pytest.mark.slow
def test_plans_are_those_of_the_loop_that_runs(alone, unread, tmp_path):
    """With the library and without it."""
    strategies = [Keep(), Recompute(), Offload(Keep())]
    cell = LSTMCell(32)
    plans = []
    for path in (library.LIBRARY, tmp_path / "libjaxrnn_native.so"):
        unread(path)
        rows = helpers.plan_of(cell, (200, 8, 32), strategies).rows
        taken = [helpers.temporary_mib(s, 200, cell=cell, units=32) for s in strategies]
        peaks = [sum(row.peak) / helpers.MIB for row in rows]
        assert peaks == pytest.approx(taken, rel=0.01)
        plans.append(rows)
    assert plans[0] != plans[1]


# TensorFlow's goldens, and random cells. The other tests of goldens run on four
# devices, so the default is XLA's loop. Most of them use float64.

NATIVE = {"BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell"}
GOLDENS = [
    case
    for case in store.recorded("tf1")["cases"]
    if case["dtype"] == "float32"
    and case["function"] != "cell"
    and case["cell"].get("class") in NATIVE
]
# Other activations, and no rows or units.
OTHERS = "softsign", "b0", "t0", "h0", "t1d"


@pytest.fixture
def runs(alone, monkeypatch):
    """The cells that the native loops ran."""
    found, run = [], NativeLoop.run
    spy = lambda loop, *args: found.append(loop.cell) or run(loop, *args)
    monkeypatch.setattr(NativeLoop, "run", spy)
    return found


@pytest.mark.fast("gru-whole-f32", "lstm_all-lengths_short", "lstm_peep-padding_nan-9")
@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["name"])
def test_same_as_tensorflow(case, runs):
    replay.check(case)
    assert runs or any(word in case["name"] for word in OTHERS)


activations = st.sampled_from(["tanh", "relu", "sigmoid"])
units, clips = st.integers(1, 40), st.none() | st.floats(0.05, 1)
ANY_CELL = st.one_of(
    st.builds(GRUCell, units, activation=activations),
    st.builds(CudnnCompatibleGRUCell, units, activation=activations),
    # With few units, a small variance would amplify rounding.
    st.builds(contrib.LayerNormBasicLSTMCell, st.integers(8, 40), st.floats(-1, 1)),
    st.builds(
        LSTMCell,
        units,
        use_peepholes=st.booleans(),
        cell_clip=clips,
        num_proj=st.none() | units,
        proj_clip=clips,
        forget_bias=st.floats(-1, 1),
        activation=activations,
    ),
)


@pytest.mark.slow
@hypothesis.given(
    ANY_CELL,
    st.lists(st.integers(-1, 9), min_size=1, max_size=20),
    st.integers(2, 8),
    st.integers(1, 20),
    st.integers(0, 2**31),
)
@hypothesis.settings(
    max_examples=6,  # Each example compiles separate programs.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_random_settings_against_xlas_loop(runs, cell, lengths, time, depth, seed):
    draw = np.random.default_rng(seed).normal
    x = draw(size=(len(lengths), time, depth)).astype(np.float32)
    cell, options = cell.bind(drawn(cell, x[:, 0], None, seed, 0.4)), {"dtype": x.dtype}
    want = jaxrnn.dynamic_rnn(cell, x, lengths, implementation="xla", **options)
    assert_near(jaxrnn.dynamic_rnn(cell, x, lengths, **options), want)
    assert runs
