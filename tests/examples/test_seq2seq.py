"""The example of seq2seq, in small: it learns, and both searches run."""

import attention
import jax
import numpy as np
import pytest
from seq2seq import dates

pytestmark = pytest.mark.slow


def test_it_learns(users_settings, capsys):
    found = dates.main(steps=60)
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    assert 0 <= found["greedily"] <= found["by_beams"] + 0.05
    printed = capsys.readouterr().out
    assert "Of 2000 held-out days, " in printed
    assert printed.count("\n  ") == 4 * dates.BEAMS


def test_beams_are_ordered_and_the_first_is_no_worse_than_greedy(users_settings):
    _, _, drawn = attention.split_dates(20)
    params = dates.init(jax.random.key(0))
    ids, scores = dates.infer_by_beams(params, drawn)
    assert ids.shape == (4, dates.LONGEST, dates.BEAMS)
    assert np.all(np.diff(scores, axis=1) <= 0)
    written = dates.infer_greedily(params, drawn)
    assert written.shape[0] == 4
