"""The example of letters and sounds, with random parameters: in small, it learns.

Its dictionary holds words with their pronunciations, from which it makes batches.
`tests/conformance/trained` compares the trained network with g2p_en's own code.
"""

import jax
import numpy as np
import pytest
import tyro
from g2p import data, finetune, model, scores
from g2p.make_cmudict import PRONUNCIATIONS, WORDS, read
from helpers import assert_near, assert_same

pytestmark = pytest.mark.usefixtures("users_settings")


@pytest.fixture(scope="module")
def dictionary():
    if not data.FILE.exists():
        pytest.skip("only the repository has the dictionary")
    return data.load()


@pytest.fixture(scope="module")
def words(dictionary):
    """Some with several pronunciations."""
    return dict(list(dictionary.items())[5000:5400])


@pytest.fixture(scope="module")
def short_words(dictionary):
    """The batches of one bucket, so that little is compiled."""
    fits = lambda item: {data.bucket_of(item[0], p) for p in item[1]} == {5}
    return dict(list(filter(fits, dictionary.items()))[1000:1032])


@pytest.fixture
def params():
    return model.init(jax.random.key(0))


# The rates.


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2)]
)
def test_edit_distance(a, b, edits):
    assert scores.edit_distance(a, b) == scores.edit_distance(b, a) == edits


def test_a_word_is_right_if_any_of_its_pronunciations_is():
    words = {"a": [("AH",), ("EY",)], "cat": [("K", "AE", "T")], "i": [("AY",)]}
    found = {"a": ("EY",), "cat": ("K", "AE", "T", "S"), "i": ("AY",)}
    assert scores.words_wrong(found, words).tolist() == [False, True, False]
    edits, counts = scores.phonemes_wrong(found, words)
    assert (edits.tolist(), counts.tolist()) == ([0, 1, 0], [1, 3, 1])


def test_stress_counts_in_one_of_the_rates(params, monkeypatch):
    words = {"a": [("AH0",), ("EY2",)], "cat": [("K", "AE2", "T")]}
    found = {"a": ("EY0",), "cat": ("K", "AE2")}
    monkeypatch.setattr(model, "pronounce", lambda params, words: found)
    rates = finetune.measure(params, words)
    assert [each[0] for each in rates.values()] == [1.0, 0.5, 0.5]


# The network.


@pytest.mark.slow
def test_what_is_written_does_not_depend_on_padding(params, words):
    words = list(words)[:40]
    found = model.pronounce(params, words)
    assert len(set(found.values())) > 10
    batch = data.make_batch([(word, ()) for word in words], 20, 50)
    ids = model.greedy(params, batch.letters, batch.letter_count)
    for word, row in zip(words, ids, strict=False):
        assert data.to_phonemes(np.asarray(row)) == found[word]


@pytest.mark.slow
def test_it_learns(params, short_words, monkeypatch, picture, capsys, tmp_path):
    """`picture` is drawn anew; g2p_en is stood in for by random parameters."""
    monkeypatch.setattr(finetune, "ROWS", 32)
    monkeypatch.setattr(finetune, "POINTS", 1)
    items = list(short_words.items())
    parts = short_words, dict(items[:20]), dict(items[5:])
    monkeypatch.setattr(data, "split", lambda words: parts)
    monkeypatch.setattr(model, "package_file", lambda: None)
    load = model.load
    monkeypatch.setattr(model, "load", lambda file: params)
    monkeypatch.setattr(finetune, "PICTURE", picture)
    flags = f"Cat o'clock --epochs 60 --rate 3e-3 --output {tmp_path / 'g2p.npz'}"
    networks = tyro.cli(finetune.main, args=flags.split())
    assert list(networks) == ["g2p_en", "fine-tuned", "random start"]
    before, *after = (finetune.wrong(each, short_words) for each in networks.values())
    assert max(after) < 0.8 < before
    found = finetune.measure(networks["random start"], parts[2])["words wrong"]
    row = "| random start | {:.1f} % ({:.1f} to {:.1f}) |"
    assert row.format(*(100 * number for number in found)) in capsys.readouterr().out
    assert_near(load(tmp_path / "g2p.npz"), networks["fine-tuned"], tolerance=1e-6)


@pytest.mark.slow
def test_the_loss_is_that_of_a_loop_over_the_phonemes(params):
    batch = data.make_batch([("cat", ("K", "AE1", "T")), ("a", ("AH0",))], 9, 2)
    losses = []
    for row in range(2):
        state = np.zeros((1, model.UNITS), np.float32)
        for letter in batch.letters[row, : batch.letter_count[row]]:
            _, state = params["encoder"](params["read"][letter][None], state)
        before = data.START
        for phoneme in batch.phonemes[row, : batch.phoneme_count[row]]:
            output, state = params["decoder"](params["written"][before][None], state)
            logits = np.float64(output @ params["kernel"] + params["bias"])[0]
            losses.append(np.log(np.exp(logits).sum()) - logits[phoneme])
            before = phoneme
    loss = finetune.loss_of(params, batch)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_words_are_read_in_small_letters():
    assert data.read_word("O'Hara") == "o'hara"


def test_an_interval_over_words():
    """That of a share in a binomial distribution, with 400 words."""
    wrong = np.arange(400) < 100
    share, low, high = scores.bootstrap(wrong, np.ones(400))
    assert share == 0.25
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    np.testing.assert_allclose([low, high], [0.25 - half, 0.25 + half], atol=0.005)


# The dictionary.

SOURCE = """\
'tis T IH1 Z
a AH0
a(2) EY1
a.d. EY2 D IY1
aalborg AO1 L B AO0 R G # place, danish
abstract AE0 B S T R AE1 K T
abstract(2) AE1 B S T R AE2 K T
abstract(3) AE1 B S T R AE2 K T
wi-fi W AY1 F AY0
"""


def test_what_is_kept_of_the_source():
    assert read(SOURCE.splitlines()) == [
        "'tis T IH1 Z",
        "a AH0",
        "a EY1",
        "aalborg AO1 L B AO0 R G",
        "abstract AE0 B S T R AE1 K T",
        "abstract AE1 B S T R AE2 K T",
    ]


def test_the_dictionary(dictionary):
    assert len(dictionary) == WORDS
    assert sum(map(len, dictionary.values())) == PRONUNCIATIONS
    tomatoes = [" ".join(phonemes) for phonemes in dictionary["tomato"]]
    assert tomatoes == ["T AH0 M EY1 T OW2", "T AH0 M AA1 T OW2"]
    written = {p for each in dictionary.values() for p in sum(each, ())}
    assert written == {*data.PHONEMES} - {"<pad>", "?", "<start>", "<end>", "UW"}
    assert {*"".join(dictionary)} == {*data.LETTERS} - {"<pad>", "<end>"}


@pytest.mark.slow
def test_no_word_is_in_two_parts(dictionary):
    train, dev, test = data.split(dictionary)
    assert (len(train), len(dev), len(test)) == (110_256, 2_670, 12_000)
    assert {**train, **dev, **test} == dictionary
    # As it was when the rates of the tutorial were measured.
    assert list(test)[:3] == ["dismore", "evander", "vantrease"]
    assert data.split(dict(sorted(dictionary.items(), reverse=True)))[2] == test


@pytest.fixture(scope="module")
def training(dictionary):
    some = dict(list(dictionary.items())[:3000])
    return some, data.Training(some, 16, seed=3)


def test_a_batch_holds_words_with_their_pronunciations(training):
    words, batches = training
    for n in range(5):
        batch = batches[n]
        assert batch.letters.shape == batch.phonemes.shape
        assert batch.letters.shape[0] == 16
        assert batch.letters.shape[1] in data.BUCKETS
        for letters, letter_count, phonemes, count in zip(*batch, strict=True):
            *read, end = (data.LETTERS[k] for k in letters[:letter_count])
            assert end == "<end>"
            word = "".join(read)
            assert data.to_phonemes(phonemes) in words[word]
            assert phonemes[count - 1] == data.END
            assert phonemes[: count - 1].all()
            assert not letters[letter_count:].any()
            assert not phonemes[count:].any()


def test_an_epoch_reads_each_pair_once_at_most(training):
    words, batches = training
    rows = [
        (*letters.tolist(), -1, *phonemes.tolist())
        for n in range(batches.per_epoch)
        for letters, _, phonemes, _ in zip(*batches[n], strict=True)
    ]
    pairs = sum(map(len, words.values()))
    assert len(set(rows)) == len(rows) > pairs - 16 * len(data.BUCKETS)


def test_a_batch_depends_on_its_number_and_the_seed_alone(training):
    words, batches = training
    n = batches.per_epoch + 2
    assert_same(data.Training(words, 16, seed=3)[n], batches[n])
    other = data.Training(words, 16, seed=4)[n]
    assert not np.array_equal(batches[n].letters, other.letters)
    assert not np.array_equal(batches[n].letters, batches[2].letters)
