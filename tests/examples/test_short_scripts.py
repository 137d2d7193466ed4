"""The short scripts, in small: the nets learn, from data that are what they should."""

import datetime
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

pytestmark = pytest.mark.usefixtures("users_settings")


@pytest.mark.slow
def test_quickstart(capsys):
    quickstart.main(steps=100)
    first, last = map(float, re.findall(r"accuracy ([\d.]+)%", capsys.readouterr().out))
    assert first < 60
    assert last > 90


@pytest.mark.slow
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
def test_raw_rnn_by_hand_is_dynamic_rnn():
    found = raw_rnn_by_hand.main()
    assert len(found) == 4  # Results and gradients, for two kinds of padding.
    assert max(found) < 1e-6
    assert found[:2] == found[2:]  # The padding has no effect.
    a, b = {"x": jnp.zeros(3)}, {"x": jnp.asarray([0.0, 0.5, jnp.nan])}
    assert np.isnan(raw_rnn_by_hand.largest_difference(a, b))


@pytest.mark.slow
def test_tanks_are_identified():
    errors = system_identification.main(seeds=1, updates=20)
    # A net that always predicts the mean level has an error of 2.4.
    assert list(errors) == ["float32", "float64"]
    assert all(system_identification.NOISE < error < 1.2 for [error] in errors.values())


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
def test_seq2seq_learns():
    found = dates.main(steps=20)
    assert found["losses"][-1] < 0.9 * found["losses"][0]
    assert 0 <= found["by_beams"] <= 1


@pytest.mark.slow
def test_digits_are_classified():
    [accuracy] = mnist_1d.main(mnist_1d.Config(units=16, epochs=1), seeds=1)
    assert accuracy > 0.2  # One guess in ten is right by chance.


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
def test_state_tracking(picture, monkeypatch):
    monkeypatch.setattr(state_tracking, "PICTURE", picture)
    flags = "--tasks parity --networks minGRU DeltaNet-neg --seeds 1 --updates 100"
    args = [*flags.split(), "--steps", "10", "--test-steps", "20"]
    found = tyro.cli(state_tracking.main, args=args)
    [[guesses]], [[tracks]] = found["minGRU"], found["DeltaNet-neg"]
    assert guesses.shape == tracks.shape == (20,)
    assert guesses[0] == 1  # The first label needs no memory.
    assert tracks[-1] > guesses[-1]
