"""The default loop on one CPU device, with the library of native loops."""

import functools
import logging
import re
import shutil

import helpers
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from native_cases import CELLS, assert_near, calls, data, everything, run

import jaxrnn
from jaxrnn import GRUCell
from jaxrnn._base import jax_internals
from jaxrnn._loops.affine import xla_loop
from jaxrnn._loops.affine.native import calls as library
from jaxrnn._loops.affine.native.sequence import NativeLoop
from jaxrnn.testing._oracle import weighted_sum

from ..golden import replay, store

pytestmark = native_cases.needs_library


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


def test_several_devices_without_a_mesh_have_xlas_loop():
    """XLA may shard rows, but it cannot shard a native call."""
    assert not calls(by_default("rnn"), *data(CELLS["rnn"]))


def test_other_layers_of_a_stack_run_natively(alone):
    cell = jaxrnn.MultiRNNCell([CELLS["gru"], GRUCell(4, activation="elu")])
    given = data(cell)
    assert len(calls(functools.partial(run, cell, None), *given)) == 1
    assert_near(run(cell, None, *given), run(cell, "xla", *given))


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
    (message,) = caplog.messages  # Once for all cells.
    assert re.match(f"XLA's loops run, because {reason}", message)
    assert re.match(f"XLA's loops: {reason}", jaxrnn.native_status())


def test_the_native_loops_are_what_runs():
    targets = "(baseline|avx2|avx512)"
    assert re.fullmatch(f"native loops, for {targets}", jaxrnn.native_status())


# Few steps, and few units, for which a simpler loop is faster.


@pytest.fixture
def one_device(monkeypatch):
    """Let the default see only one device, and few steps as they are."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


# Rows, steps, the longest part, and the loop that runs.
LOOPS = {
    (4, 1, None): "step",
    (4, 2, None): "xla",
    (4, 100, None): "native",
    (1, 100, 50): "native",
    (1, 100, 2): "xla",  # Parts of a few steps are few steps.
}


def test_explain_says_why_few_steps_run_otherwise(one_device):
    cell = helpers.bound(jaxrnn.LSTMCell(128), 64, "float32")
    for (rows, steps, part), loop in LOOPS.items():
        x = jax.ShapeDtypeStruct((rows, steps, 64), jnp.float32)
        memory = jaxrnn.memory.Recompute(part) if part else False
        found = jaxrnn.explain(cell, x, dtype=x.dtype, swap_memory=memory)
        assert found.loop == loop
        if part is None:
            few = "XLA's loop is faster for so few steps" if loop == "xla" else ""
            assert (found.reason or "") == few


@pytest.mark.parametrize(("rows", "is_native"), [(64, True), (2, False)])
def test_mapped_rows_count(rows, is_native, one_device):
    cell = jaxrnn.LSTMCell(64)
    params, x, _ = data(cell, rows, time=3, depth=32)

    def total(params, name):
        bound = cell.bind(params)
        one = lambda x: jaxrnn.dynamic_rnn(
            bound, x[None], dtype=x.dtype, implementation=name
        )
        return weighted_sum(jax.vmap(one)(x))

    step = jax.grad(total)
    assert len(calls(lambda p: step(p, None), params)) == 2 * is_native
    if is_native:
        assert_near(step(params, None), step(params, "xla"))


# Rows that are reset.


def test_resets(alone):
    given = data(CELLS["gru"])
    resets = np.random.default_rng(0).random(size=given[1].shape[:2]) < 0.4
    run_all = functools.partial(everything, CELLS["gru"], resets=resets)
    assert_near(run_all(None, *given), run_all("xla", *given))
    assert len(calls(functools.partial(run_all, None), *given)) == 2


# Programs for other machines.


def test_an_exported_program_has_no_call(alone):
    cell, given = CELLS["lstm"], data(CELLS["lstm"])
    here = jax.jit(functools.partial(run, cell, None))
    assert "jaxrnn_native_forward" in here.lower(*given).as_text()
    program = jax.export.export(here, platforms=["cpu", "tpu"])(*given)
    assert "jaxrnn_native" not in program.mlir_module()
    assert_near(program.call(*given), run(cell, "xla", *given))


def test_an_exported_program_has_the_precision_of_the_call(alone):
    def precise(*given):
        with jax.default_matmul_precision("highest"):
            return by_default("rnn")(*given)

    program = jax.export.export(jax.jit(precise))(*data(CELLS["rnn"]))
    text = program.mlir_module()
    assert text.count("precision = [HIGHEST, HIGHEST]") > 0
    assert "precision = [DEFAULT" not in text


# TensorFlow's goldens. The other tests of goldens run on four devices, so the default
# is XLA's loop. Most of them use float64.

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


@pytest.mark.fast("gru-whole-f32", "lstm_all-lengths_short")
@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["name"])
def test_same_as_tensorflow(case, runs):
    replay.check(case)
    assert runs or any(word in case["name"] for word in OTHERS)
