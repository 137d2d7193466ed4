"""Fixtures of the tests of the native loops."""

import jax
import pytest


@pytest.fixture
def alone(monkeypatch):
    """Let the default see only one device."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    yield
    jax.clear_caches()
