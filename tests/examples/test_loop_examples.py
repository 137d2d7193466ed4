"""The examples of `raw_rnn`, in small: they say what they claim."""

import attention
import attention_data
import decoder
import decoder_data
import jax
import jax.numpy as jnp
import loop_training
import numpy as np
import pytest
import raw_rnn_by_hand


@pytest.fixture
def usual_settings():
    """A user's JAX, not the suite's: Optax promotes dtypes."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with jax.numpy_rank_promotion("allow"):
            yield


def test_the_page_is_dynamic_rnn(capsys):
    found = raw_rnn_by_hand.main()
    assert len(found) == 4  # Results and gradients, for two kinds of padding.
    assert max(found) < 1e-6
    assert found[:2] == found[2:]  # Of the padding nothing is seen.
    assert capsys.readouterr().out.count("9 steps") == 2


def test_a_deviation_would_be_seen():
    a, b = {"x": jnp.zeros(3)}, {"x": jnp.asarray([0.0, 0.5, 0.0])}
    assert raw_rnn_by_hand.deviation(a, b) == 0.5
    assert np.isnan(raw_rnn_by_hand.deviation(a, {"x": b["x"] * jnp.nan}))


def test_attention(tmp_path, usual_settings, capsys):
    picture = tmp_path / "attention.png"
    found = attention.main(steps=30, output=str(picture))
    assert found["losses"][-1] < 0.9 * found["losses"][0]
    weights, lengths = found["weights"], found["test"].lengths
    assert weights.shape == (2000, 10, attention_data.LONGEST)
    assert lengths.min() < attention_data.LONGEST  # There is padding.
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    padding = np.arange(attention_data.LONGEST) >= lengths[:, None]
    assert np.all(weights[np.broadcast_to(padding[:, None], weights.shape)] == 0)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "2000 days it never saw" in capsys.readouterr().out


def test_padding_of_the_input_is_never_read(usual_settings):
    _, test, _ = attention_data.draw_dates(20)
    params = attention.init(jax.random.key(0))
    padding = np.arange(attention_data.LONGEST) >= test.lengths[:, None]
    other = test._replace(written=np.where(padding, 5, test.written))
    for a, b in zip(*(attention.answer(params, x) for x in (test, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dates_are_held_out():
    train, test, shown = attention_data.draw_dates(2000)
    days = [{attention_data.to_text(row) for row in x.iso} for x in (train, test)]
    assert [len(x) for x in days] == [attention_data.DAYS - 2000, 2000]
    assert not days[0] & days[1]
    assert {attention_data.to_text(row) for row in shown.iso} < days[1]
    texts = [attention_data.to_text(row) for row in shown.written]
    assert texts[:2] == ["Friday, 20 November 2026", "the 3rd of March 1987"]


def test_decoder(usual_settings, capsys):
    compiled = loop_training.step._cache_size()
    found = decoder.main(steps=60, seeds=1)
    assert loop_training.step._cache_size() == compiled + 1  # For both ways.
    for kind in ("told", "sampling"):
        [losses] = found[kind]["losses"]
        assert losses[-1] < 0.8 * losses[0]
        assert np.shape(found[kind]["accuracies"]) == (1, len(decoder.WAYS))
        for ids in found[kind]["written"]:
            ended = np.cumsum(ids == decoder_data.END, axis=1) > 0
            assert np.all(ids[ended] == decoder_data.END)  # Nothing behind the end.
            assert np.mean(ended[:, -1]) > 0.5
    told, sampling = (found[kind]["losses"][0] for kind in ("told", "sampling"))
    assert told[0] == sampling[0]  # There are no own samples yet.
    assert told[1:] != sampling[1:]
    assert "The last nets, greedily:" in capsys.readouterr().out


def test_losses_are_zeros_past_the_stop_token(usual_settings):
    batch, _ = decoder_data.draw_pairs(20)
    params = decoder.init(jax.random.key(0))
    told, alone = (
        decoder.losses(params, jax.random.key(1), batch, np.float32(share))
        for share in (0, 1)
    )
    lengths = np.sum(batch.numerals != decoder_data.END, axis=1) + 1
    for losses in (told, alone):
        taken = np.arange(len(losses))[:, None] < lengths
        np.testing.assert_array_equal(losses != 0, taken)
    np.testing.assert_allclose(told[0], alone[0])  # All start alike,
    assert np.mean(told[1] != alone[1]) > 0.5  # and go on by what they are fed.


@pytest.mark.parametrize(
    ("number", "numeral"),
    [(1, "I"), (4, "IV"), (1994, "MCMXCIV"), (3888, "MMMDCCCLXXXVIII")],
)
def test_roman_numerals(number, numeral):
    assert decoder_data.roman(number) == numeral


def test_integers_are_held_out():
    train, test = decoder_data.draw_pairs(300)
    digits = [{tuple(row) for row in x.digits} for x in (train, test)]
    assert [len(x) for x in digits] == [300, 3699]
    assert not digits[0] & digits[1]
    assert decoder_data.to_text(test.numerals[0]) == "MMMDCCCXX"


def test_flags_are_the_arguments_of_main(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["decoder.py", "--steps", "2", "--sampling", "1"])
    wanted = {"steps": 2, "examples": 300, "seeds": 3, "sampling": 1.0}
    assert loop_training.flags(decoder.main, decoder.__doc__) == wanted
    monkeypatch.setattr("sys.argv", ["decoder.py", "--help"])
    with pytest.raises(SystemExit):
        loop_training.flags(decoder.main, decoder.__doc__)
    assert "Integers to learn from" in capsys.readouterr().out
