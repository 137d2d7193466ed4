"""What the tests of the examples share."""

import jax
import pytest
import tyro


@pytest.fixture
def users_settings():
    """A user's JAX, not the suite's: Flax and Optax promote dtypes."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with jax.numpy_rank_promotion("allow"):
            yield


@pytest.fixture
def refusal(capsys):
    """What `main` prints, on one line, as it exits because of its flags."""

    def refuse(main, *flags):
        with pytest.raises(SystemExit) as exit_info:
            tyro.cli(main, args=flags)
        assert exit_info.value.code == 2
        return " ".join(capsys.readouterr().err.replace("│", " ").split())

    return refuse
