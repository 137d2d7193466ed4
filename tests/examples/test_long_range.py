"""The example of long sequences, in small: the nets learn, and the picture is drawn."""

import jax
import numpy as np
import pytest
import tyro
from long_range import digits
from long_range.digits import Config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]


def test_it_learns_and_draws(tmp_path, capsys):
    picture = tmp_path / "figure.png"
    flags = ["--hold", "1", "--updates", "60", "--units", "32"]
    found = tyro.cli(digits.main, args=[*flags, "--figure", str(picture)])
    assert found["updates"]["LRU"] == 60
    lru, lstm = found["curves"]["LRU"], found["curves"]["LSTM"]
    assert lru[-1, 1] > 0.4 > lru[0, 1]
    assert lstm[-1, 0] >= lru[-1, 0]
    assert len(lru) == digits.POINTS + 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "LRU: 60 updates in" in capsys.readouterr().out


def test_each_pixel_comes_for_as_many_steps():
    data, test = digits.load()
    assert data.pixels.shape == (1297, 64)
    assert sorted(set(test.labels)) == list(range(10))
    inputs = digits.as_sequences(Config(hold=3), test.pixels[:2])
    assert inputs.shape == (192, 2, 1)
    np.testing.assert_array_equal(inputs[::3, 1, 0], test.pixels[1])
    np.testing.assert_array_equal(inputs[2::3, 1, 0], test.pixels[1])


@pytest.mark.parametrize("hold", [1, 128])
def test_the_states_forget_within_the_sequence(hold):
    cell = digits.make_cell(Config(hold=hold), "LRU")
    inputs = jax.ShapeDtypeStruct((1, 64), np.float32)
    params = cell.init(jax.random.key(0), inputs)
    pixels = 1 / (np.exp(params["nu_log"]) * hold)
    assert 2.9 < pixels.min() < pixels.max() < 110
    assert np.exp(params["theta_log"]).max() * hold * 8 <= 2.01 * 2 * np.pi
