"""Sets JAX's strictest options for all tests, and marks slow tests.

The fast run, `python -m pytest`, holds each property that a user relies on by one
example: an affine cell, a wrapper with random numbers, a memory or a function cell; one
driver, memory strategy or implementation; and some goldens of each group. `-m slow`
runs the others: further cells and sizes, second derivatives of variants, goldens again
outside of jit, pages and docstrings, benchmarks and examples. A test with many
parameters lists the fast ones by patterns of their ids, which `pytest -v` prints:

    @pytest.mark.fast("lstm-*", "*-gru")

A test without the mark is fast. `.ci/run` runs all fast tests, and the slow ones of the
rooms that the commit touches (`tests/changed.py`); the nightly job runs all.

Compilation takes most of the time, about 50 ms for the smallest program. So tests draw
data with NumPy, put them on the device with `jax.device_put` (`jnp.asarray` compiles a
copy for each shape), and compile both sides of a comparison as one program.

JAX stores compiled programs in `PROGRAMS`, which all clones, workers and runs share. A
stored program hides no change, because its name is the hash of the program, of the
compiler and of its options.
"""

import collections
import fnmatch
import gc
import os
import pathlib
import platform
import re
import time
import zlib

import changed
import hypothesis
import jax
import jaxlib
import pytest


def programs_of_this_machine():
    """The folder of the programs that this version of jaxlib compiles for this CPU."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    number = zlib.crc32((features[1] if features else text).encode())
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(caches) / "jaxrnn" / "programs"
    return folder / f"{jaxlib.__version__}-{platform.machine()}-{number:08x}"


PROGRAMS = programs_of_this_machine()
DAYS = 14  # A program that was stored longer ago is deleted.
SETTINGS = {
    "jax_compilation_cache_dir": str(PROGRAMS),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # For subprocesses.

# JAX reads these flags when it starts. Sharding tests need eight devices. The other
# flags make compilation faster, because the tests compile far more than they compute:
# no optimization; one code-generation task, because the other cores run other tests;
# and the CPU's older fusion emitters, which take a quarter of the time, if XLA still
# has them.
FAST_TO_COMPILE = (
    " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
if jaxlib.version.__version_info__ < (0, 11, 1):
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
FLAGS = " --xla_force_host_platform_device_count=8" + FAST_TO_COMPILE
USERS_FLAGS = os.environ.get("XLA_FLAGS", "").removesuffix(FLAGS)
os.environ["XLA_FLAGS"] = USERS_FLAGS + FLAGS

# Without the Python frames of each operation, which only debugging needs, tests take a
# tenth less time.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ci")


def pytest_configure(config):
    """Delete old programs. A test that still needs one compiles it again."""
    if hasattr(config, "workerinput"):
        return
    oldest = time.time() - DAYS * 24 * 3600
    for file in PROGRAMS.parent.glob("*/*"):
        if file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)


def pytest_addoption(parser):
    parser.addoption(
        "--touched",
        action="append",
        default=[],
        metavar="FILE",
        help="marks the tests of a changed file as touched (tests/changed.py)",
    )


@pytest.hookimpl(tryfirst=True)  # Run before `-m` selects tests.
def pytest_collection_modifyitems(config, items):
    """Mark the slow tests, and with `--touched` those of the touched files."""
    unmatched = mark_slow(items)
    in_part = config.getoption("lf", False) or any("::" in arg for arg in config.args)
    if unmatched and not in_part:
        raise pytest.UsageError(f"`fast` matches no parameters of {unmatched}.")
    if touched := config.getoption("touched"):
        changed.mark_touched(items, touched)


def mark_slow(items):
    """Mark docstrings as slow, and parameters that the `fast` mark does not list.

    Return the ids of tests whose `fast` mark matches none of their parameters.
    """
    fast = collections.defaultdict(bool)
    for item in items:
        if not isinstance(item, pytest.Function):
            item.add_marker("slow")
        for mark in item.iter_markers("fast"):
            is_fast = any(fnmatch.fnmatchcase(item.callspec.id, p) for p in mark.args)
            fast[item.nodeid.split("[")[0]] |= is_fast
            if not is_fast:
                item.add_marker("slow")
    return [test for test in fast if not fast[test]]


def pytest_collection_finish(session):
    """Exclude modules and tests from garbage collection.

    They live until the end. Tracing creates so many objects that the collector, and
    each call of `jax.clear_caches`, would otherwise scan them again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


COMPILED = []  # The programs since JAX's caches were cleared.


def note_program(event, duration, **kwargs):
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(note_program)


@pytest.fixture(autouse=True)
def forget_programs():
    """Clear JAX's caches after a test if there are many programs.

    Tests share the programs of small operations. But lowering gets slower as the cache
    grows: five times slower with 3000 programs, which also take 4 GB.
    """
    yield
    if len(COMPILED) > 700:
        jax.clear_caches()
        COMPILED.clear()


@pytest.fixture
def fast_to_compile(users_flags, monkeypatch):
    """Let a test's subprocesses compile fast, with one device, as for users."""
    monkeypatch.setenv("XLA_FLAGS", USERS_FLAGS + FAST_TO_COMPILE)


@pytest.fixture
def users_settings():
    """A user's JAX, not the suite's: Flax and Optax promote dtypes."""
    from helpers import usual_promotion  # Imports JAX's users after the flags are set.

    with jax.enable_x64(False), usual_promotion():
        yield


@pytest.fixture
def few_steps_too(monkeypatch):
    """Let the default run native loops for a few steps too, as many tests have."""
    from jaxrnn._loops.affine import few_steps  # After the flags are set.

    jax.clear_caches()
    monkeypatch.setattr(few_steps, "CALL", 0)
    monkeypatch.setattr(few_steps, "ENTRY", 0)
    yield
    jax.clear_caches()


@pytest.fixture
def alone(few_steps_too, monkeypatch):
    """Let the default see only one device, which has the native loops."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


@pytest.fixture(scope="module")
def users_flags():
    """Run a module's subprocesses with the user's XLA flags."""
    assert jax.device_count() == 8  # This process has already read its own flags.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", USERS_FLAGS)
        yield
