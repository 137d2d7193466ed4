"""Dates as people write them and as ISO 8601 does, as rows of character ids."""

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

PADDING, START = 0, 1
CHARACTERS = "\n>" + "".join(map(chr, range(ord(" "), ord("z") + 1)))
LONGEST, ISO = 28, 10
"""The lengths of "Wednesday, 20 September 2026" and of "2026-09-20"."""

FORMATS = (
    "{weekday}, {day} {month} {year}",
    "{weekday:.3}, {month:.3} {day}, {year}",
    "the {day}{ordinal} of {month} {year}",
    "{month} {day}, {year}",
    "{day} {month:.3} {year}",
    "{day}.{number}.{year}",
    "{number}/{day}/{year}",
)
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November "
    "December"
).split()
FIRST = datetime.date(1950, 1, 1)
DAYS = 36_525  # A hundred years.

SHOWN = {
    datetime.date(2026, 11, 20): FORMATS[0],
    datetime.date(1987, 3, 3): FORMATS[2],
    datetime.date(2004, 12, 9): FORMATS[1],
    datetime.date(1976, 7, 14): FORMATS[6],
}


class Dates(NamedTuple):
    """Rows of ids.

    Attributes:
        written: `[batch, 28]`, ended by padding.
        lengths: `[batch]`, of what is written.
        iso: `[batch, 10]`.
    """

    written: Any
    lengths: Any
    iso: Any

    def take(self, rows: Any) -> "Dates":
        """Those rows."""
        return Dates(*(field[rows] for field in self))


def write(date: datetime.date, form: str) -> str:
    """The date in a format, in English whatever the locale."""
    teens = 10 < date.day < 20
    return form.format(
        weekday=WEEKDAYS[date.weekday()],
        day=date.day,
        ordinal={1: "st", 2: "nd", 3: "rd"}.get(0 if teens else date.day % 10, "th"),
        month=MONTHS[date.month - 1],
        number=date.month,
        year=date.year,
    )


def make_dates(dates: Sequence[datetime.date], forms: Sequence[str]) -> Dates:
    """Each date in its format."""
    texts = [write(date, form) for date, form in zip(dates, forms, strict=True)]
    iso = [to_ids(date.isoformat(), ISO) for date in dates]
    written = [to_ids(text, LONGEST) for text in texts]
    lengths = [len(text) for text in texts]
    return Dates(np.stack(written), np.asarray(lengths, np.int32), np.stack(iso))


def draw_dates(held_out: int) -> tuple[Dates, Dates, Dates]:
    """All days of a hundred years, each in some format.

    Returns:
        Dates to learn from, dates for the test, and four of these for the picture.
    """
    random = np.random.default_rng(0)
    days = [FIRST + datetime.timedelta(int(n)) for n in random.permutation(DAYS)]
    days = [*SHOWN, *(day for day in days if day not in SHOWN)]
    forms = [FORMATS[i] for i in random.integers(len(FORMATS), size=DAYS)]
    forms[: len(SHOWN)] = SHOWN.values()
    dates = make_dates(days, forms)
    parts = slice(held_out, None), slice(held_out), slice(len(SHOWN))
    train, test, shown = (dates.take(part) for part in parts)
    return train, test, shown


def to_ids(text: str, length: int) -> np.ndarray:
    """One row of ids, int32."""
    ids = np.full(length, PADDING, np.int32)
    ids[: len(text)] = [CHARACTERS.index(c) for c in text]
    return ids


def to_text(ids: np.ndarray) -> str:
    """The text of a row, without padding."""
    return "".join(CHARACTERS[i] for i in ids if i != PADDING)
