"""The default loop on one CPU device, with the library of native loops."""

import functools
import logging
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MIB, differentiated, temporary_mib
from native_cases import (
    CELLS,
    F32,
    LENGTHS,
    assert_near,
    calls,
    data,
    everything,
    needs_library,
    of_packed,
    run,
)

import jaxrnn
from jaxrnn._base import jax_internals
from jaxrnn._cells.affine import cell as affine, xla_loop
from jaxrnn._cells.affine.native import calls as library
from jaxrnn.memory import Keep, Offload, Recompute
from jaxrnn.testing._oracle import weighted_sum

pytestmark = needs_library


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
    monkeypatch.setattr(xla_loop, "forward", None)
    cell = CELLS["lstm"]
    given = data(cell)
    everything(cell, None, *given)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        everything(cell, "xla", *given)


def test_a_second_call_traces_nothing(alone, monkeypatch):
    traced, run_native = [], affine.native_sequence
    spy = lambda *args, **options: traced.append(args) or run_native(*args, **options)
    monkeypatch.setattr(affine, "native_sequence", spy)
    given = data(CELLS["lstm"])
    for _ in range(3):
        by_default("lstm")(*given)
    assert len(traced) == 1


def test_several_devices_without_a_mesh_have_xlas_loop():
    """XLA may shard rows, but it cannot shard a native call."""
    assert not calls(by_default("rnn"), *data(CELLS["rnn"]))


def test_other_layers_of_a_stack_run_natively(alone):
    cell = jaxrnn.MultiRNNCell([CELLS["gru"], jaxrnn.GRUCell(4, activation="elu")])
    given = data(cell)
    assert len(calls(functools.partial(run, cell, None), *given)) == 1
    assert_near(everything(cell, None, *given), everything(cell, "xla", *given))


CHOSEN = {
    "native": (jaxrnn.LSTMCell(4), F32),
    "elu": (jaxrnn.GRUCell(4, activation="elu"), F32),
    "bfloat16": (jaxrnn.GRUCell(4), jnp.bfloat16),
    "float64": (jaxrnn.GRUCell(4), jnp.float64),
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


def not_built(path, monkeypatch):
    return "the native loops were not built"


def no_library(path, monkeypatch):
    path.write_text("not a library")
    return "the native loops cannot be loaded: "


def no_symbol(path, monkeypatch):
    path.symlink_to(LIBRARY)
    monkeypatch.setattr(library, "_CALLS", ("sideward",))
    return "the native loops are incompatible with this JAX: .*JaxrnnNativeSideward"


def later_jax(path, monkeypatch):
    path.symlink_to(LIBRARY)
    monkeypatch.setattr(jax_internals, "MISSING", "cannot import name 'lower_fun'")
    return "the native loops are incompatible with this JAX: .*lower_fun"


LIBRARY = library.LIBRARY
UNUSABLE = not_built, no_library, no_symbol, later_jax


@pytest.mark.parametrize("broken", UNUSABLE, ids=lambda broken: broken.__name__)
def test_an_unusable_library(broken, alone, unread, tmp_path, monkeypatch, caplog):
    """XLA's loops run, and the reason is logged once."""
    caplog.set_level(logging.INFO, "jaxrnn")
    path = unread(tmp_path / "libjaxrnn_native.so")
    reason = broken(path, monkeypatch)
    for name in ("gru", "lstm"):
        assert not calls(by_default(name), *data(CELLS[name]))
    with pytest.raises(ValueError, match=f"cannot run .*: {reason}"):
        run(CELLS["gru"], "native", *data(CELLS["gru"]))
    (message,) = caplog.messages
    assert re.match(f"XLA's loops run, because {reason}", message)
    assert re.match(f"XLA's loops: {reason}", jaxrnn.native_status())


def test_the_status():
    assert jaxrnn.native_status() in {
        f"native loops, for {target}" for target in ("baseline", "avx2", "avx512")
    }


def test_a_process_with_a_target_that_the_cpu_lacks(monkeypatch):
    monkeypatch.setenv("JAXRNN_NATIVE_TARGET", "mmx")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    program = "import jaxrnn; print(jaxrnn.native_status())"
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    reason = "JAXRNN_NATIVE_TARGET must be one that this CPU has ("
    assert said.startswith(f"XLA's loops: {reason}")


# Packed sequences, which have no argument `implementation`.


@pytest.mark.fast("gru-True")
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("name", ["lstm", "joined", "gru", "rnn"])
def test_packed_sequences(name, time_major, request):
    call, given = of_packed(CELLS[name], time_major)
    want = differentiated(call, *given)
    request.getfixturevalue("alone")
    assert len(calls(call, *given)) == 1
    assert_near(differentiated(call, *given), want)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_second_derivatives_of_packed_sequences(name, request):
    """XLA's loop saves the state before a restart; the native loop, the one after."""
    call, (params, *others) = of_packed(CELLS[name], False)

    def made():
        loss = lambda p: weighted_sum(jax.tree.map(jnp.sin, call(p, *others)))
        push = lambda p: jax.jvp(loss, (p,), (p,))[1]
        twice = lambda p: weighted_sum(jax.grad(loss)(p))
        return [jax.jit(jax.grad(of))(params) for of in (push, twice)]

    want = made()
    request.getfixturevalue("alone")
    assert_near(made(), want, tolerance=5e-5)


@pytest.mark.fast("params")
@pytest.mark.parametrize("mapped", ["params", "inputs and state"])
def test_mapped_packed_sequences(mapped, request):
    call, given = of_packed(CELLS["lstm"], False)
    axes = (0, None, None) if mapped == "params" else (None, 0, 0)
    wide = [
        jax.tree.map(lambda v: jnp.stack([v, -v]), v) if axis == 0 else v
        for v, axis in zip(given, axes, strict=True)
    ]
    loss = lambda *given: weighted_sum(call(*given))
    step = jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), axes)
    want = jax.jit(step)(*wide)
    request.getfixturevalue("alone")
    assert_near(jax.jit(step)(*wide), want)
    assert [c.shape[:3] for c in calls(step, *wide)] == [(2, 4, 7)] * 2


@pytest.mark.slow
def test_mapped_cotangents_of_packed_sequences(request):
    """The mapped entries share the values that the forward loop saved."""
    call, (params, *others) = of_packed(CELLS["gru"], False)
    of_last = jax.jacrev(lambda p: call(p, *others)[1][:2, 0])
    want = of_last(params)
    request.getfixturevalue("alone")
    assert_near(of_last(params), want)


# Programs for other machines.


def exported(fn, given, platforms=("cpu",)):
    return jax.export.export(jax.jit(fn), platforms=platforms)(*given)


@pytest.mark.fast("everything-cpu-tpu")
@pytest.mark.parametrize(
    "platforms", [("cpu",), ("tpu",), ("cpu", "tpu")], ids="-".join
)
@pytest.mark.parametrize("what", [run, everything], ids=lambda what: what.__name__)
def test_an_exported_program_has_no_call(alone, what, platforms):
    cell = CELLS["lstm"]
    given = data(cell)
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
    cell = jaxrnn.LSTMCell(32)
    plans = []
    for path in (library.LIBRARY, tmp_path / "libjaxrnn_native.so"):
        unread(path)
        rows = jaxrnn.memory_plan(cell, (200, 8, 32), strategies, time_major=True).rows
        taken = [temporary_mib(s, 200, cell=cell, units=32) for s in strategies]
        assert [sum(row.peak) / MIB for row in rows] == pytest.approx(taken, rel=0.01)
        plans.append(rows)
    native, xla = plans
    assert native != xla


# Masks with gaps, and the states of all steps.


@pytest.mark.fast("projected-False", "rnn-True")
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("name", ["lstm", "joined", "gru", "rnn", "projected"])
def test_masks_and_states_of_all_steps(name, with_lengths):
    """The native loop for lengths runs them, with the results of XLA's loop."""
    cell = CELLS[name]
    params, x, state = data(cell)
    mask = jnp.asarray([[False] * 6, [True] * 6, *3 * [[True, False] * 3]])
    kept = mask if not with_lengths else np.arange(6) < np.asarray(LENGTHS)[:, None]
    x = jnp.where(kept[..., None], x, jnp.nan)
    options = {} if with_lengths else {"lengths": None, "mask": mask}
    both = [
        functools.partial(everything, cell, name, return_states=True, **options)
        for name in ("native", "xla")
    ]
    native, xla = (of(params, x, state) for of in both)
    assert len(calls(both[0], params, x, state)) == 2
    assert_near(native, xla)
