"""The long-memory example, in small: it learns, draws, refuses what is too large."""

import dataclasses

import jax
import long_memory
import numpy as np
import pytest
import tyro
from long_memory import Config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
TINY = Config(steps=60, updates=40, batch=8, units=8)
FLAGS = ["--steps", "60", "--updates", "40", "--batch", "8", "--units", "8"]


def test_it_learns_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(long_memory, "LENGTHS", ())
    compared = {"keep": "tab:red", "recompute": "tab:blue"}
    monkeypatch.setattr(long_memory, "COMPARED", compared)
    picture = tmp_path / "figure.png"
    found = tyro.cli(long_memory.main, args=[*FLAGS, "--figure", str(picture)])
    losses = found["losses"]
    assert len(losses) == 40
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "always guessing 1: 0.1667" in capsys.readouterr().out
    assert found["needed"]["keep"] > found["needed"]["recompute"]


def test_the_gradient_is_that_of_keeping_everything():
    params, _ = long_memory.start(TINY)
    batch = long_memory.batch_of(TINY, 3)
    want, *others = (
        jax.jit(jax.grad(long_memory.compute_loss), static_argnums=1)(
            params, dataclasses.replace(TINY, strategy=name), *batch
        )
        for name in ("keep", "nested", "offload")
    )
    assert np.linalg.norm(want["cell"]["candidate"]["kernel"]) > 1e-3
    for got in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), got, want
        )


@pytest.mark.parametrize("steps", [2, 61])
def test_the_sum_is_that_of_the_two_marked_numbers(steps):
    drawn = long_memory.adding_problem(jax.random.key(0), 50, steps)
    inputs, sums = jax.device_get(drawn)
    assert inputs.shape == (steps, 50, 2)
    for row, wanted in zip(np.swapaxes(inputs, 0, 1), sums, strict=True):
        first, second = np.flatnonzero(row[:, 1])
        assert first < steps // 2 <= second
        assert set(row[:, 1]) <= {0, 1}
        np.testing.assert_allclose(wanted, row[first, 0] + row[second, 0], 1e-6)


def test_saying_one_has_an_error_of_a_sixth():
    _, sums = long_memory.adding_problem(jax.random.key(1), 50_000, 4)
    guess = np.mean((np.asarray(sums) - 1) ** 2)
    assert guess == pytest.approx(long_memory.CONSTANT_GUESS, rel=0.02)


def test_keeping_is_refused_before_it_runs(monkeypatch):
    monkeypatch.delattr(long_memory, "fit")
    flags = [*FLAGS, "--strategy", "keep", "--limit-gb", "1e-5"]
    wanted = r"keep would need \d+ kB for 60 steps, but --limit-gb allows 10 kB\."
    with pytest.raises(SystemExit, match=wanted):
        tyro.cli(long_memory.main, args=flags)


def test_sizes_have_the_unit_that_fits():
    sizes = [long_memory.format_bytes(n) for n in (12, 3_400, 25e6, 1.44e9)]
    assert sizes == ["12 B", "3.4 kB", "25 MB", "1.44 GB"]
