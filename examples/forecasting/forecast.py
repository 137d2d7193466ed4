"""Forecast how many people pass 21 places of Auckland in each hour of the next week.

One network is trained on all places, and draws a hundred paths for each. Its forecasts
for the last eight weeks, on which it was not trained, are compared with the seasonal
naive forecast, which repeats the week before. Run it from the folder `examples`:

    pip install -e '..[examples]'
    python -m forecasting.forecast               # five seeds; writes forecast.png
    python -m forecasting.forecast --validate    # without the test weeks

README.md shows the results.
"""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import optax
import tyro
from counts import check_counts
from tqdm import tqdm

import jaxrnn

from .data import COVARIATES, FORTNIGHT, PLACES, TEST_WEEKS, WEEK, cut, load
from .model import compute_loss, draw_paths, init
from .picture import draw

LEVELS = np.arange(1, 20) / 20  # Of quantiles.
PICTURE = "forecast.png"


@dataclasses.dataclass(frozen=True)
class Config:
    """The network and its training; each field is a flag."""

    units: int = 40
    """The size of the LSTM."""
    updates: int = 300
    """The number of updates."""
    batch: int = 32
    """Windows of two weeks in a batch."""
    learning_rate: float = 0.01
    """Adam's initial learning rate, with cosine decay to zero."""
    paths: int = 100
    """The paths that are drawn for each place and week."""

    def __post_init__(self):
        check_counts(self, "units", "updates", "batch", "paths")

    @property
    def cell(self):
        """The cell; it holds no parameters."""
        return jaxrnn.LSTMCell(self.units)


# Training


@functools.partial(jax.jit, static_argnums=(0, 1))
def update(config, optimizer, params, state, data, key):
    """Makes one update; returns parameters, the optimizer's state and the loss."""
    place_key, hour_key = jax.random.split(key)
    place = jax.random.randint(place_key, config.batch, 0, PLACES)
    end = len(data.counts) - len(FORTNIGHT) + 1
    first = jax.random.randint(hour_key, (config.batch, 1), 0, end)
    window = cut(data, place, first + FORTNIGHT, WEEK)
    value_and_grad = jax.value_and_grad(compute_loss, argnums=1)
    loss, gradient = value_and_grad(config.cell, params, window)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, loss


def fit(config, data, key, name):
    """Trains a network on all of `data`; returns its parameters."""
    init_key, data_key = jax.random.split(key)
    params = init(config.cell, PLACES, COVARIATES, init_key)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state, data = optimizer.init(params), jax.device_put(data)
    # `disable=None` hides the bar if the output is not a terminal.
    with tqdm(range(config.updates), name, unit="update", disable=None) as bar:
        for n in bar:
            key = jax.random.fold_in(data_key, n)
            params, state, loss = update(config, optimizer, params, state, data, key)
            bar.set_postfix(loss=f"{loss:.3f}")
    return params


# The comparison


def make_test(data):
    """What is forecast, and what a forecast may read; a row is a week of a place.

    Returns:
        The counts `[rows, hours]`; the counts of the four weeks before, the last week
        first, `[rows, 4, hours]`; and windows of the network, by name.
    """
    weeks = data.counts.reshape(-1, WEEK, PLACES)
    filled = weeks.copy()  # A gap is filled from the week before.
    for before, week in itertools.pairwise(filled):
        np.copyto(week, before, where=np.isnan(week))
    tested = np.arange(len(weeks) - TEST_WEEKS, len(weeks))
    as_rows = lambda x: x.swapaxes(1, 2).reshape(-1, WEEK)
    before = np.stack([as_rows(filled[tested - n]) for n in range(1, 5)], axis=1)

    place = np.tile(np.arange(PLACES), TEST_WEEKS)
    hours = np.repeat(tested - 1, PLACES)[:, None] * WEEK + FORTNIGHT
    is_late = np.arange(len(data.counts)) % WEEK >= WEEK // 2
    late = data._replace(counts=np.where(is_late[:, None], np.nan, data.counts))
    windows = {
        "network": cut(data, place, hours, WEEK),
        "network, half of the last week missing": cut(late, place, hours, WEEK),
    }
    return as_rows(weeks[tested]), before, windows


def score(paths, counts):
    """The CRPS in percent of the mean count, and the percentage of counts in the band.

    The band is from the quantile of 10 % to that of 90 %. The CRPS is the mean, over 19
    quantiles, of twice the pinball loss; with one path, it is the mean absolute error.

    Args:
        paths: The forecast, `[rows, paths, hours]`.
        counts: What came, `[rows, hours]`; NaN is left out.
    """
    quantiles = np.quantile(paths, LEVELS, axis=1)
    errors, levels = counts - quantiles, LEVELS[:, None, None]
    losses = 2 * np.maximum(levels * errors, (levels - 1) * errors)
    is_inside = (quantiles[1] <= counts) & (counts <= quantiles[-2])
    is_known = ~np.isnan(counts)
    crps = losses[:, is_known].mean() / counts[is_known].mean()
    return 100 * crps, 100 * is_inside[is_known].mean()


def print_table(scores):
    """Prints a row for each forecast; scores are `[seeds, 2]`."""
    print("| forecast | CRPS, % of the mean count | seeds | in the 80 % band |")
    print("|---|--:|--:|--:|")
    for name, of_seeds in scores.items():
        crps, inside = np.transpose(of_seeds)
        span = f"{crps.min():.1f} to {crps.max():.1f}" if len(crps) > 1 else ""
        print(f"| {name} | {crps.mean():.1f} | {span} | {inside.mean():.0f} % |")


# The program


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
def main(
    config: Config,
    seeds: int = 5,
    validate: bool = False,
):
    """Trains, compares and draws; returns the scores of each forecast.

    Args:
        config: The network and its training.
        seeds: The number of networks, trained one after the other.
        validate: Test on the eight weeks before the test weeks, and train on the weeks
            before those.
    """
    data, names = load(leave_out=TEST_WEEKS if validate else 0)
    train = jax.tree.map(lambda x: x[: -TEST_WEEKS * WEEK], data)
    counts, before, windows = make_test(data)
    scores = {
        "last week (seasonal naive)": [score(before[:, :1], counts)],
        "last four weeks": [score(before, counts)],
    }
    for seed in range(seeds):
        train_key, path_key = jax.random.split(jax.random.key(seed))
        params, paths = fit(config, train, train_key, f"seed {seed}"), {}
        given = {"context": WEEK, "paths": config.paths, "key": path_key}
        for name, window in windows.items():
            paths[name] = np.asarray(draw_paths(config.cell, params, window, **given))
            scores.setdefault(name, []).append(score(paths[name], counts))
        if seed == 0:
            drawn = paths["network"], before, counts
            draw(PICTURE, config.cell, params, data, names, *drawn)
    print_table(scores)
    print(f"Wrote {PICTURE}.")
    return scores


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
