"""What the tests of the native loops share."""

import jax
import pytest


@pytest.fixture
def alone(monkeypatch):
    """A process with one device, as far as the default knows."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    yield
    jax.clear_caches()
