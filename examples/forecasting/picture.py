"""The picture: two forecasts, and a gap that the network has filled."""

import jax
import numpy as np
from matplotlib.figure import Figure

from .data import DATES, DAY, FORTNIGHT, PLACES, TEST_WEEKS, WEEK, cut
from .model import run

DRAWN = "210 Queen Street", "19 Shortland Street"
GAP, GAP_DAY = "150 K Road", np.datetime64("2023-10-23")
DAYS = FORTNIGHT / DAY


def draw(path, cell, params, data, names, paths, before, counts):
    """Saves a figure of forecasts for the fourth test week, and of a filled gap."""
    figure = Figure(figsize=(11, 8.5), dpi=100, layout="constrained")
    *parts, bottom = figure.subplots(3)
    week = len(data.counts) // WEEK - TEST_WEEKS + 3
    is_holiday = data.calendar[week * WEEK :][:WEEK, -1] > 0
    for axes, name in zip(parts, DRAWN, strict=True):
        row = 3 * PLACES + names.index(name)
        draw_forecast(axes, paths[row], before[row, 0], counts[row])
        gray = {"color": "0.93", "zorder": 0, "transform": axes.get_xaxis_transform()}
        axes.fill_between(DAYS[:WEEK], 0, 1, is_holiday, **gray)
        axes.set_title(f"{name}, a week from {DATES[7 * week]} (gray: a holiday)")
    labels = parts[0].get_legend_handles_labels()
    figure.legend(*labels, frameon=False, ncols=5, loc="outside lower center")
    draw_gap(bottom, cell, params, data, names.index(GAP))
    bottom.set_title(f"{GAP}, two weeks from {GAP_DAY}: the means that fill a gap")
    for axes in (*parts, bottom):
        axes.set_ylabel("people per hour")
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_forecast(axes, paths, before, counts):
    """Draws quantiles of paths `[paths, hours]`, the last week, and what came."""
    low, quarter, median, rest, high = np.quantile(
        paths, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0
    )
    days, style = DAYS[:WEEK], {"color": "tab:blue", "linewidth": 0}
    axes.fill_between(days, low, high, alpha=0.2, label="80 %", **style)
    axes.fill_between(days, quarter, rest, alpha=0.3, label="50 %", **style)
    axes.plot(days, median, color="tab:blue", label="median forecast")
    axes.plot(days, before, color="tab:orange", linewidth=1, label="last week")
    axes.plot(days, counts, color="black", linewidth=1, label="counted")
    axes.set_xticks(np.arange(7) + 0.25, "Mon Tue Wed Thu Fri Sat Sun".split())


def draw_gap(axes, cell, params, data, place):
    """Draws the network's means, and the counts, of two weeks with a gap."""
    hours = np.searchsorted(DATES, GAP_DAY) * DAY + FORTNIGHT
    window = cut(data, np.array([place]), hours[None], WEEK)
    (means, _, _), _ = jax.jit(run, static_argnums=0)(cell, params, window)
    axes.plot(DAYS, means[0] ** 2 * window.scale, color="tab:blue")
    axes.plot(DAYS, data.counts[hours, place], color="black", linewidth=1)
    axes.set_xticks(np.arange(14) + 0.25, 2 * "Mon Tue Wed Thu Fri Sat Sun".split())
