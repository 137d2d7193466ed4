"""The short scripts, in small: the nets learn, and the pages print what they claim."""

import re

import attention
import decoder
import draw_lengths
import jax
import jax.numpy as jnp
import mnist_1d
import numpy as np
import pytest
import quickstart
import raw_rnn_by_hand
import state_tracking
import tyro
from seq2seq import dates

pytestmark = pytest.mark.usefixtures("users_settings")


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
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.slow
def test_draw_lengths(tmp_path, capsys):
    draw_lengths.main(tmp_path / "lengths.png")
    assert "lengths.png" in capsys.readouterr().out
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


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
def test_attention(tmp_path, capsys):
    picture = tmp_path / "attention.png"
    found = attention.main(steps=30, output=picture)
    assert found["losses"][-1] < 0.9 * found["losses"][0]
    assert found["weights"].shape == (2000, 10, attention.LONGEST)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "2000 held-out days are right" in capsys.readouterr().out


@pytest.mark.slow
def test_dates_are_held_out():
    train, test, drawn = attention.split_dates(2000)
    days = [{attention.to_text(row) for row in x.iso} for x in (train, test)]
    assert [len(x) for x in days] == [attention.DAYS - 2000, 2000]
    assert not days[0] & days[1]
    assert {attention.to_text(row) for row in drawn.iso} < days[1]
    texts = [attention.to_text(row) for row in drawn.written]
    assert texts[:2] == ["Friday, 20 November 2026", "the 3rd of March 1987"]


@pytest.mark.slow
def test_decoder(capsys):
    compiled = decoder.update._cache_size()
    found = decoder.main(steps=60, seeds=1)
    assert decoder.update._cache_size() == compiled + 1  # For both kinds.
    kinds = found["teacher forcing"], found["scheduled sampling"]
    for kind in kinds:
        [losses] = kind["losses"]
        assert losses[-1] < 0.8 * losses[0]
        assert np.shape(kind["accuracies"]) == (1, len(decoder.SEARCHES))
        for ids in kind["written"]:
            assert np.mean(ids[:, -1] == decoder.END) > 0.5
    forced, scheduled = (kind["losses"][0] for kind in kinds)
    assert forced[0] == scheduled[0]  # There are no samples yet.
    assert forced[1:] != scheduled[1:]
    assert "The last nets, greedy search:" in capsys.readouterr().out


@pytest.mark.slow
def test_numbers_and_numerals_of_the_decoder():
    numerals = {1: "I", 4: "IV", 1994: "MCMXCIV", 3888: "MMMDCCCLXXXVIII"}
    assert {number: decoder.roman(number) for number in numerals} == numerals
    train, test = decoder.split_pairs(300)
    digits = [{tuple(row) for row in x.digits} for x in (train, test)]
    assert [len(x) for x in digits] == [300, 3699]
    assert not digits[0] & digits[1]
    assert decoder.to_text(test.numerals[0]) == "MMMDCCCXX"


@pytest.mark.slow
def test_seq2seq(capsys):
    found = dates.main(steps=60)
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    assert 0 <= found["greedily"] <= found["by_beams"] + 0.05
    printed = capsys.readouterr().out
    assert "Of 2000 held-out days, " in printed
    assert printed.count("\n  ") == 4 * dates.BEAMS


@pytest.mark.slow
def test_digits_are_classified(tmp_path, capsys):
    config = mnist_1d.Config(units=32, epochs=2)
    picture = tmp_path / "digits.png"
    accuracies = mnist_1d.main(config, seeds=2, figure=picture)
    assert min(accuracies) > 0.3  # One guess in ten is right by chance.
    assert accuracies[0] != accuracies[1]
    assert f"mean  {np.mean(accuracies):8.2%}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


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
def test_state_tracking(tmp_path, capsys):
    picture = tmp_path / "curves.png"
    flags = "--tasks parity --networks minGRU DeltaNet-neg --seeds 1 --updates 250"
    args = [*flags.split(), "--steps", "20", "--test-steps", "40"]
    found = tyro.cli(state_tracking.main, args=[*args, "--figure", str(picture)])
    [[guesses]], [[tracks]] = found["minGRU"], found["DeltaNet-neg"]
    assert guesses[0] == 1  # The first label needs no memory.
    assert guesses[-1] < 0.6
    assert tracks[-1] > 0.9
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Accuracy at step 40" in capsys.readouterr().out
