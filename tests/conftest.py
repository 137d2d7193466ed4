"""The strictest setting JAX has, for every test."""

import os

import hypothesis
import jax
import pytest

# Read when JAX starts: four devices to shard over; and machine code that is made
# quickly, as the tests compile far more than they compute: unoptimised, and by the
# older of the CPU's two ways to write a fusion, which takes a quarter of the time.
FLAGS = (
    " --xla_force_host_platform_device_count=4"
    " --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false"
)
USERS_FLAGS = os.environ.get("XLA_FLAGS", "").removesuffix(FLAGS)
os.environ["XLA_FLAGS"] = USERS_FLAGS + FLAGS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Of a module, at its end: to lower a program takes longer the more JAX holds.

    After 3000 programs, which take 4 GB, it is five times as long.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def users_flags(monkeypatch):
    """What a test starts is compiled as it is for users."""
    assert jax.device_count() == 4  # This process has read its own flags.
    monkeypatch.setenv("XLA_FLAGS", USERS_FLAGS)
