"""The first example: it learns, and prints so."""

import re

import quickstart


def test_it_learns(users_settings, capsys):
    quickstart.main(steps=100)
    printed = capsys.readouterr().out
    accuracies = [float(found) for found in re.findall(r"accuracy ([\d.]+)%", printed)]
    first, last = accuracies  # Of steps 0 and 100.
    assert first < 60
    assert last > 90
