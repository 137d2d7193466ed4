"""The short scripts, in small: the nets learn, and print what the pages claim.

Every flag refuses what it does not accept, by its name and with the reason.
"""

import datetime
import importlib
import re

import jax
import jax.numpy as jnp
import mnist_1d
import numpy as np
import pytest
import quickstart
import raw_rnn_by_hand
import state_tracking
import system_identification
import tyro
from helpers import assert_same
from seq2seq import dates

pytestmark = [pytest.mark.in_thirds, pytest.mark.usefixtures("users_settings")]


def test_quickstart(capsys):
    quickstart.main(steps=100)
    printed = capsys.readouterr().out
    first, last = map(float, re.findall(r"accuracy ([\d.]+)%", printed))
    assert first < 60
    assert last > 90


def test_padding_of_the_quickstart_has_no_effect():
    inputs, lengths, labels = quickstart.make_data(jax.random.key(0), 8)
    is_padding = jnp.arange(inputs.shape[1]) >= lengths[:, None]
    assert is_padding.any()
    with_nan = jnp.where(is_padding[..., None], jnp.nan, inputs)
    cell_params = quickstart.CELL.init(jax.random.key(1), inputs[:, 0])
    params = {"cell": cell_params, "head": jnp.eye(16, 2)}
    gradient = jax.grad(quickstart.compute_loss, has_aux=True)
    want, got = (gradient(params, x, lengths, labels) for x in (inputs, with_nan))
    assert_same(got, want)


@pytest.mark.slow
def test_raw_rnn_by_hand_is_dynamic_rnn(capsys):
    found = raw_rnn_by_hand.main()
    assert len(found) == 4  # Results and gradients, for two kinds of padding.
    assert max(found) < 1e-6
    assert found[:2] == found[2:]  # The padding has no effect.
    assert capsys.readouterr().out.count("9 steps") == 2
    a, b = {"x": jnp.zeros(3)}, {"x": jnp.asarray([0.0, 0.5, jnp.nan])}
    assert np.isnan(raw_rnn_by_hand.largest_difference(a, b))


@pytest.mark.slow
def test_tanks_are_identified(capsys):
    errors = system_identification.main(seeds=1, updates=60)
    # A net that always predicts the mean level has an error of 2.4.
    assert list(errors) == ["float32", "float64"]
    assert all(system_identification.NOISE < error < 0.8 for [error] in errors.values())
    assert "noise: 0.03, deviation of the level: 2." in capsys.readouterr().out


@pytest.mark.slow
def test_dates_are_held_out():
    parts = dates.split_dates(2000)
    days = [{dates.to_text(row) for row in x.iso} for x in parts]
    assert [len(x) for x in days] == [dates.DAYS - 2000, 2000]
    assert not days[0] & days[1]
    day = datetime.date(1987, 3, 3)
    assert dates.write(day, dates.FORMATS[2]) == "the 3rd of March 1987"
    assert dates.write(day, dates.FORMATS[0]) == "Tuesday, 3 March 1987"


@pytest.mark.slow
def test_seq2seq(capsys):
    found = dates.main(steps=60)
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    printed = capsys.readouterr().out
    assert f"and {100 * found['by_beams']:.2f} % with beam search." in printed
    beams = re.findall(r"^  (.*)  (0\.\d{4})$", printed, re.MULTILINE)
    assert len(set(beams)) == len(beams) == 4 * dates.BEAMS
    scores = np.array([float(score) for _, score in beams]).reshape(4, dates.BEAMS)
    assert (np.diff(scores) <= 0).all()
    assert scores.sum(axis=1).max() < 1


@pytest.mark.slow
def test_digits_are_classified(capsys):
    config = mnist_1d.Config(units=32, epochs=2)
    accuracies = mnist_1d.main(config, seeds=2)
    assert min(accuracies) > 0.3  # One guess in ten is right by chance.
    assert accuracies[0] != accuracies[1]
    assert f"mean  {np.mean(accuracies):8.2%}" in capsys.readouterr().out


@pytest.mark.slow
def test_validation_leaves_out_the_test_set():
    (digits, labels), (test, _) = mnist_1d.load(validate=False)
    parts, part_labels = zip(*mnist_1d.load(validate=True), strict=True)
    assert [len(part) for part in parts] == [3200, 800]
    rows = {row.tobytes(): label for row, label in zip(digits, labels, strict=True)}
    found = np.concatenate(parts), np.concatenate(part_labels)
    assert rows == {row.tobytes(): label for row, label in zip(*found, strict=True)}
    assert not rows.keys() & {row.tobytes() for row in test}


def test_each_label_of_state_tracking_is_the_state():
    """By sums for the numbers, and by products of matrices for the permutations."""
    draw = jax.jit(state_tracking.draw, static_argnums=(2, 3))
    drawn = {}
    for task in state_tracking.TASKS:
        automaton = state_tracking.make_automaton(task)
        drawn[task] = jax.device_get(draw(jax.random.key(3), automaton, 7, 30))
    symbols, states = drawn["parity"]
    np.testing.assert_array_equal(states, symbols.cumsum(0) % 2)
    symbols, states = drawn["cycle"]
    moves = np.array([0, 1, -1])[symbols]
    np.testing.assert_array_equal(states, moves.cumsum(0) % 5)
    matrices = np.array([np.eye(3)[list(order)] for order in state_tracking.ORDERS])
    swaps = matrices[[np.trace(matrix) >= 1 for matrix in matrices]]
    for task, of_symbol in ("swaps", swaps), ("S3", matrices):
        symbols, states = drawn[task]
        assert set(symbols.flat) == set(range(len(of_symbol)))
        product = np.eye(3)
        for symbol, state in zip(symbols, states, strict=True):
            product = of_symbol[symbol] @ product
            np.testing.assert_array_equal(matrices[state], product)


@pytest.mark.slow
def test_state_tracking(picture, capsys):
    flags = "--tasks parity --networks minGRU DeltaNet-neg --seeds 1 --updates 250"
    args = [*flags.split(), "--steps", "20", "--test-steps", "40"]
    found = tyro.cli(state_tracking.main, args=[*args, "--figure", str(picture)])
    [[guesses]], [[tracks]] = found["minGRU"], found["DeltaNet-neg"]
    assert guesses[0] == 1  # The first label needs no memory.
    assert guesses[-1] < 0.6
    assert tracks[-1] > 0.9
    assert "Accuracy at step 40" in capsys.readouterr().out


SCRIPTS = "flax_linen flax_nnx japanese_vowels mnist_1d state_tracking".split()
REFUSALS = [
    ("flax_nnx", "--epochs many", "must be an integer, at least 1, got 'many'"),
    ("japanese_vowels", "--seed -1", "must be an integer from 0 to 2147483647"),
    ("japanese_vowels", "--learning-rate nan", "must be a finite number above 0"),
    ("japanese_vowels", "--dropout 1.5", "must be a number from 0 to 1, got '1.5'"),
    ("japanese_vowels", "--shift inf", "must be a finite number, at least 0, got"),
    ("state_tracking", "--figure a.doc", "must end in one of"),
    ("state_tracking", "--figure no/a.png", "cannot write to no/a.png: No such"),
    ("state_tracking", "--figure folder.png", "must be a file, but folder.png is"),
    ("japanese_vowels", "--output taken", "cannot write to taken: "),
]


@pytest.mark.parametrize(("script", "flag", "wanted"), REFUSALS)
def test_a_bad_value(script, flag, wanted, capsys, tmp_path, monkeypatch):
    """Files and folders are refused before the training, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SystemExit, match=r"^2$"):
        tyro.cli(importlib.import_module(script).main, args=flag.split())
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"Error parsing {flag.split()[0]}: {wanted}" in printed


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_flag(script, capsys):
    module = importlib.import_module(script)
    with pytest.raises(SystemExit, match=r"^0$"):
        tyro.cli(module.main, args=["--help"], description=module.__doc__)
    printed = capsys.readouterr().out
    assert module.__doc__.splitlines()[0] in " ".join(printed.split())
    helps = re.split(r"\n\W+--(?=\w)", printed)[1:]
    assert helps
    for text in helps:
        flag, *words = text.replace("│", " ").split()
        assert len(words) > 5, flag
        assert "(default:" in text
