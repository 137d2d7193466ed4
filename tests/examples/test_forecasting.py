"""The forecaster, in small: its data, its gaps, its paths and its scores.

`tests/conformance/test_forecaster.py` compares the network with PyTorch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from forecasting import data, forecast, model
from forecasting.data import WEEK
from helpers import assert_near

import jaxrnn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
CELL = jaxrnn.LSTMCell(5)
CONTEXT, HOURS = 7, 12


@pytest.fixture(scope="module")
def series():
    return data.load()


@pytest.fixture
def params():
    return model.init(CELL, data.PLACES, data.COVARIATES, jax.random.key(0))


@pytest.fixture
def window(series):
    """Three rows with gaps, of which the last row is one."""
    counts = series[0].counts.copy()
    counts[[103, 104, 109, 111], 2] = np.nan
    counts[:, 4] = np.nan
    hours = np.array([[100], [300], [500]]) + np.arange(HOURS)
    return data.cut(
        series[0]._replace(counts=counts), np.array([2, 3, 4]), hours, CONTEXT
    )


def test_it_learns_from_the_data_and_draws(picture, monkeypatch):
    monkeypatch.setattr(forecast, "PICTURE", picture)
    flags = "--seeds 2 --units 8 --updates 60 --batch 8 --learning-rate 0.03 --paths 4"
    found = tyro.cli(forecast.main, args=flags.split())
    (naive, inside), *_ = found["last week (seasonal naive)"]
    np.testing.assert_allclose((naive, inside), (23.05, 1.7), rtol=0.02)
    first, second = found["network"]
    assert first != second
    assert 13 < max(first[0], second[0]) < naive


def test_validation_leaves_out_the_test_weeks(series):
    used, names = data.load(leave_out=data.TEST_WEEKS)
    (everything, all_names), end = series, -data.TEST_WEEKS * WEEK
    assert names == all_names
    np.testing.assert_array_equal(used.counts, everything.counts[:end])
    weeks = used.counts[:end].reshape(-1, WEEK, data.PLACES)
    np.testing.assert_allclose(used.usual[:WEEK], np.nanmean(weeks, axis=0), 1e-6)


def test_the_data_have_gaps_and_holidays(series):
    (counts, usual, calendar), names = series
    assert counts.shape == usual.shape == (61 * WEEK, data.PLACES)
    missing = dict(zip(names, np.isnan(counts).sum(axis=0), strict=True))
    assert missing["150 K Road"] == 139
    assert missing["205 Queen Street"] == 248  # The camera failed at night.
    assert missing["210 Queen Street"] == 1
    good_friday = 24 * np.searchsorted(data.DATES, np.datetime64("2024-03-29"))
    assert calendar[good_friday : good_friday + 24, -1].all()
    assert not calendar[[good_friday - 1, good_friday + 24], -1].any()
    assert calendar.shape[1] + 1 == data.COVARIATES
    np.testing.assert_array_equal(calendar.sum(axis=1) - calendar[:, -1], 2)


def test_a_gap_does_not_change_the_scale_of_a_usual_week(series):
    everything = series[0]._replace(counts=3 * series[0].usual)
    hours, place = np.arange(2 * WEEK)[None], np.array([5])
    want = 3 * everything.usual[:WEEK, 5].mean()
    for observed in (WEEK, 20, 0):
        counts = everything.counts.copy()
        counts[observed:] = np.nan
        window = data.cut(everything._replace(counts=counts), place, hours, WEEK)
        got = window.scale if observed else 3 * window.scale
        np.testing.assert_allclose(got, want, rtol=1e-2)


def test_the_means_stand_in_for_missing_values(params, window):
    is_missing = np.isnan(window.roots)
    assert is_missing[0].sum() == 4
    assert is_missing[2].all()
    outputs, start = model.run(CELL, params, window)
    means, _, values = outputs
    np.testing.assert_array_equal(values, np.where(is_missing, means, window.roots))
    again = model.run(CELL, params, window._replace(roots=values))
    assert_near(again, (outputs, start), tolerance=1e-6)


def test_missing_values_do_not_count_in_the_loss(params, window):
    (means, deviations, _), _ = model.run(CELL, params, window)
    z = (window.roots - means) / deviations
    log_p = -0.5 * z**2 - np.log(deviations * np.sqrt(2 * np.pi))
    loss = jax.jit(jax.value_and_grad(model.compute_loss, argnums=1), static_argnums=0)
    got, gradient = loss(CELL, params, window)
    np.testing.assert_allclose(got, -np.nanmean(log_p), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    of_places = np.asarray(gradient["places"])
    assert of_places[[2, 3]].all()
    assert not of_places[4].any()  # Nothing was observed.


def test_each_path_reads_what_it_drew(params, window):
    """The paths, as known values of rows of their own, give the same predictions."""
    key, paths = jax.random.key(3), 4
    counts = model.draw_paths(CELL, params, window, CONTEXT, paths, key)
    assert counts.shape == (3, paths, HOURS - CONTEXT)
    other = window._replace(roots=window.roots.at[:, CONTEXT:].set(0.5))
    again = model.draw_paths(CELL, params, other, CONTEXT, paths, key)
    np.testing.assert_array_equal(again, counts)  # The future was not read.

    repeat = lambda x: jnp.repeat(x, paths, axis=0)
    scale = repeat(window.scale)[:, None]
    future = jnp.sqrt(counts.reshape(3 * paths, -1) / scale)
    roots = jnp.concatenate([repeat(window.roots)[:, :CONTEXT], future], axis=1)
    rows = window._replace(
        roots=roots,
        covariates=repeat(window.covariates),
        place=repeat(window.place),
    )
    (means, deviations, _), _ = model.run(CELL, params, rows)
    for n in range(HOURS - CONTEXT):
        noise = jax.random.normal(jax.random.fold_in(key, n + 1), 3 * paths)
        drawn = means[:, CONTEXT + n] + deviations[:, CONTEXT + n] * noise
        assert drawn.min() > 0  # So the square roots are the drawn values.
        np.testing.assert_allclose(future[:, n], drawn, rtol=1e-4)


def test_scores():
    rng = np.random.default_rng(0)
    counts = rng.normal(50, 9, (40, 30))
    exact = rng.normal(50, 9, (40, 4000, 30))
    counts[3, 4] = np.nan
    crps, inside = forecast.score(exact, counts)
    # The expected CRPS of a normal forecast is its deviation over the root of pi.
    np.testing.assert_allclose(crps, 100 * 9 / np.sqrt(np.pi) / 50, rtol=0.05)
    np.testing.assert_allclose(inside, 80, atol=3)
    mean, _ = forecast.score(np.full((40, 1, 30), 50.0), counts)
    error = np.nanmean(np.abs(counts - 50)) / np.nanmean(counts)
    np.testing.assert_allclose(mean, 100 * error)
