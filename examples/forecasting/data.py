"""Pedestrians in Auckland, hour by hour, and windows of them for a network."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

FILE = Path(__file__).parents[1] / "data" / "pedestrians.npz"
DAY, WEEK = 24, 7 * 24
FORTNIGHT = np.arange(2 * WEEK)
PLACES, COVARIATES = 21, 33
# The days of the file, from a Monday to a Sunday. Each begins at 6:00.
DATES = np.arange("2023-02-27", "2024-04-29", dtype="datetime64[D]")
TEST_WEEKS = 8  # The last weeks.
OUTAGE = 8  # If so many hours in a row have the count 0, the camera has failed.
HOLIDAYS = """
2023-04-07 2023-04-10 2023-04-25 2023-06-05 2023-07-14 2023-10-23 2023-12-25 2023-12-26
2024-01-01 2024-01-02 2024-01-29 2024-02-06 2024-03-29 2024-04-01 2024-04-25
"""


class Data(NamedTuple):
    """All series, one for each place, and what is known of every hour."""

    counts: Any  # [hours, places], NaN where a count is missing
    usual: Any  # [hours, places]: the mean count at this hour of the week
    calendar: Any  # [hours, 32]: one-hot hour and weekday, and whether it is a holiday


class Window(NamedTuple):
    """Consecutive hours of one series in each row."""

    roots: Any  # [rows, hours]: the roots of count / scale, NaN where missing
    covariates: Any  # [rows, hours, 33]
    place: Any  # [rows]
    scale: Any  # [rows]


def load(leave_out=0):
    """All series without the last `leave_out` weeks, and the names of the places.

    The usual counts are means over the weeks before the test weeks.
    """
    with np.load(FILE) as file:
        counts, places = file["counts"].astype(np.float32), file["places"].tolist()
    counts[(counts < 0) | is_outage(counts)] = np.nan
    counts = counts[: len(counts) - leave_out * WEEK]
    weeks = counts[: -TEST_WEEKS * WEEK].reshape(-1, WEEK, len(places))
    usual = np.nanmean(weeks, axis=0)
    hours = np.arange(len(counts))
    is_holiday = np.isin(DATES, np.array(HOLIDAYS.split(), DATES.dtype))
    days = hours // DAY
    parts = np.eye(DAY)[hours % DAY], np.eye(7)[days % 7], is_holiday[days, None]
    calendar = np.concatenate(parts, axis=1, dtype=np.float32)
    return Data(counts, usual[hours % WEEK], calendar), places


def is_outage(counts):
    """Whether an hour belongs to a run of `OUTAGE` or more zeros."""
    runs = np.lib.stride_tricks.sliding_window_view(counts == 0, OUTAGE, axis=0)
    failed = np.zeros(counts.shape, bool)
    for lag in range(OUTAGE):
        failed[lag : lag + len(runs)] |= runs.all(axis=-1)
    return failed


def cut(data, place, hours, context):
    """The window of `place` `[rows]` at `hours` `[rows, hours]`, in each row.

    The scale is the mean count of the place, corrected by how busy the first `context`
    hours were, compared with what is usual in those of them that were observed.
    """
    counts = data.counts[hours, place[:, None]]
    usual = data.usual[hours, place[:, None]]
    is_observed = ~jnp.isnan(counts[:, :context])
    total = lambda x: jnp.sum(x[:, :context], axis=1, where=is_observed)
    mean = jnp.mean(data.usual, axis=0)[place]
    scale = mean * (1 + total(counts)) / (1 + total(usual))  # 1: none is observed.
    covariates = jnp.sqrt(usual / mean[:, None])[..., None]
    covariates = jnp.concatenate([covariates, data.calendar[hours]], axis=-1)
    return Window(jnp.sqrt(counts / scale[:, None]), covariates, place, scale)
