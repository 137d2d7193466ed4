"""What the tests of the examples share."""

import jax
import pytest
from helpers import usual_promotion


@pytest.fixture
def users_settings():
    """A user's JAX, not the suite's: Flax and Optax promote dtypes."""
    with jax.enable_x64(False), usual_promotion():
        yield
