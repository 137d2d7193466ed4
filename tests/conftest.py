"""JAX's strictest settings, for every test; and which tests are slow.

The fast run, `python -m pytest`, tests every mechanism against every law: an affine
cell, a stack, a wrapper with random numbers, a function cell; each driver, memory
strategy, implementation and converter; and some goldens of each group. `-m slow` runs
the others: further cells and sizes, second derivatives of variants, goldens again
outside of jit, pages and docstrings, benchmarks and examples. A test with many
parameters names those that are fast,

    @pytest.mark.fast("lstm-*", "*-gru")

by patterns of their ids, as `pytest -v` prints them. A test without a mark is fast.

What takes the time is compiling, some 50 ms for the smallest program: so data are drawn
by NumPy, put on the device by `jax.device_put` (`jnp.asarray` compiles a copy for each
shape), and both sides of a comparison are compiled as one.
"""

import collections
import fnmatch
import gc
import os

import hypothesis
import jax
import jaxlib
import pytest

# Read when JAX starts. Four devices, to shard over. The rest makes compilation faster,
# since the tests compile far more than they compute: no optimization; one
# code-generation task, since the other cores run other tests; the CPU's older fusion
# emitters, which take a quarter of the time, where XLA still has them.
FAST_TO_COMPILE = (
    " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
if jaxlib.version.__version_info__ < (0, 11, 1):
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
FLAGS = " --xla_force_host_platform_device_count=4" + FAST_TO_COMPILE
USERS_FLAGS = os.environ.get("XLA_FLAGS", "").removesuffix(FLAGS)
os.environ["XLA_FLAGS"] = USERS_FLAGS + FLAGS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ci")


def pytest_report_header(config):
    """Says what happens before the first test."""
    return "first every worker imports all tests, which takes some 15 s"


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    """Shows the header before the tests are imported, in a file or a pipe as well."""
    flush(session.config)


@pytest.hookimpl(optionalhook=True, trylast=True)
def pytest_xdist_node_collection_finished(node):
    """Shows the lines of pytest-xdist as they are printed."""
    flush(node.config)


def flush(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # The workers have none.
        reporter.flush()


@pytest.hookimpl(tryfirst=True)  # Before `-m` selects.
def pytest_collection_modifyitems(config, items):
    """Marks docstrings slow, and parameters that the `fast` mark does not name."""
    fast = collections.defaultdict(bool)
    for item in items:
        if not isinstance(item, pytest.Function):
            item.add_marker("slow")
        for mark in item.iter_markers("fast"):
            is_fast = any(fnmatch.fnmatchcase(item.callspec.id, p) for p in mark.args)
            fast[item.nodeid.split("[")[0]] |= is_fast
            if not is_fast:
                item.add_marker("slow")
    in_part = config.getoption("lf", False) or any("::" in arg for arg in config.args)
    unmatched = [test for test in fast if not fast[test]]
    if unmatched and not in_part:
        raise pytest.UsageError(f"`fast` matches no parameters of {unmatched}.")


def pytest_collection_finish(session):
    """Spares the garbage collector what lives as long as the tests do.

    Tracing makes so many objects that it would otherwise go through all modules and
    tests again and again, and so would each call of `jax.clear_caches`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class Programs:
    """Counts the programs that JAX has compiled."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self)

    def __call__(self, event, duration, **kwargs):
        self.count += event.endswith("backend_compile_duration")


PROGRAMS = Programs()


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Clears JAX's caches after modules, once there are many programs.

    Modules share the programs of small operations. But lowering gets slower the more
    programs are cached: five times after 3000 programs, which also take 4 GB.
    """
    yield
    forget_more_than(500)


@pytest.fixture(autouse=True)
def forget_programs_of_large_modules():
    """Likewise after a test; the slow laws of all cells are in one module."""
    yield
    forget_more_than(1200)


def forget_more_than(limit):
    if PROGRAMS.count > limit:
        jax.clear_caches()
        PROGRAMS.count = 0


@pytest.fixture
def fast_to_compile(users_flags, monkeypatch):
    """Subprocesses of a test compile fast; they have one device, as a user's have."""
    monkeypatch.setenv("XLA_FLAGS", USERS_FLAGS + FAST_TO_COMPILE)


@pytest.fixture(scope="module")
def users_flags():
    """Subprocesses of a module run with the user's XLA flags."""
    assert jax.device_count() == 4  # This process has already read its own flags.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", USERS_FLAGS)
        yield
