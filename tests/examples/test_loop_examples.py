"""The examples of `raw_rnn`, in small: they do what they claim."""

import attention
import decoder
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import raw_rnn_by_hand

pytestmark = pytest.mark.slow

KINDS = ("teacher forcing", "scheduled sampling")


def test_the_page_is_dynamic_rnn(capsys):
    found = raw_rnn_by_hand.main()
    assert len(found) == 4  # Results and gradients, for two kinds of padding.
    assert max(found) < 1e-6
    assert found[:2] == found[2:]  # The padding has no effect.
    assert capsys.readouterr().out.count("9 steps") == 2


def test_a_difference_would_be_found():
    a, b = {"x": jnp.zeros(3)}, {"x": jnp.asarray([0.0, 0.5, 0.0])}
    assert raw_rnn_by_hand.largest_difference(a, b) == 0.5
    assert np.isnan(raw_rnn_by_hand.largest_difference(a, {"x": b["x"] * jnp.nan}))


def test_attention(tmp_path, users_settings, capsys):
    picture = tmp_path / "attention.png"
    found = attention.main(steps=30, output=picture)
    assert found["losses"][-1] < 0.9 * found["losses"][0]
    weights, lengths = found["weights"], found["test"].lengths
    assert weights.shape == (2000, 10, attention.LONGEST)
    assert lengths.min() < attention.LONGEST  # There is padding.
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    padding = np.arange(attention.LONGEST) >= lengths[:, None]
    assert np.all(weights[np.broadcast_to(padding[:, None], weights.shape)] == 0)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "2000 held-out days are right" in capsys.readouterr().out


def test_padding_of_the_input_is_never_read(users_settings):
    _, test, _ = attention.split_dates(20)
    params = attention.init(jax.random.key(0))
    padding = np.arange(attention.LONGEST) >= test.lengths[:, None]
    other = test._replace(written=np.where(padding, 5, test.written))
    for a, b in zip(*(attention.answer(params, x) for x in (test, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dates_are_held_out():
    train, test, drawn = attention.split_dates(2000)
    days = [{attention.to_text(row) for row in x.iso} for x in (train, test)]
    assert [len(x) for x in days] == [attention.DAYS - 2000, 2000]
    assert not days[0] & days[1]
    assert {attention.to_text(row) for row in drawn.iso} < days[1]
    texts = [attention.to_text(row) for row in drawn.written]
    assert texts[:2] == ["Friday, 20 November 2026", "the 3rd of March 1987"]


def test_decoder(users_settings, capsys):
    compiled = decoder.update._cache_size()
    found = decoder.main(steps=60, seeds=1)
    assert decoder.update._cache_size() == compiled + 1  # For both kinds.
    for kind in KINDS:
        [losses] = found[kind]["losses"]
        assert losses[-1] < 0.8 * losses[0]
        assert np.shape(found[kind]["accuracies"]) == (1, len(decoder.SEARCHES))
        for ids in found[kind]["written"]:
            ended = np.cumsum(ids == decoder.END, axis=1) > 0
            assert np.all(ids[ended] == decoder.END)  # Nothing after the end.
            assert np.mean(ended[:, -1]) > 0.5
    forced, scheduled = (found[kind]["losses"][0] for kind in KINDS)
    assert forced[0] == scheduled[0]  # There are no samples yet.
    assert forced[1:] != scheduled[1:]
    assert "The last nets, greedy search:" in capsys.readouterr().out


def test_losses_are_zeros_past_the_stop_token(users_settings):
    batch, _ = decoder.split_pairs(20)
    params = decoder.init(jax.random.key(0))
    forced, sampled = (
        decoder.compute_losses(params, jax.random.key(1), batch, np.float32(share))
        for share in (0, 1)
    )
    lengths = np.sum(batch.numerals != decoder.END, axis=1) + 1
    for losses in (forced, sampled):
        taken = np.arange(len(losses))[:, None] < lengths
        np.testing.assert_array_equal(losses != 0, taken)
    np.testing.assert_allclose(forced[0], sampled[0])  # The first inputs are equal,
    assert np.mean(forced[1] != sampled[1]) > 0.5  # the next are not.


@pytest.mark.parametrize(
    ("number", "numeral"),
    [(1, "I"), (4, "IV"), (1994, "MCMXCIV"), (3888, "MMMDCCCLXXXVIII")],
)
def test_roman_numerals(number, numeral):
    assert decoder.roman(number) == numeral


def test_integers_are_held_out():
    train, test = decoder.split_pairs(300)
    digits = [{tuple(row) for row in x.digits} for x in (train, test)]
    assert [len(x) for x in digits] == [300, 3699]
    assert not digits[0] & digits[1]
    assert decoder.to_text(test.numerals[0]) == "MMMDCCCXX"
