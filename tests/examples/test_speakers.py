"""Scripts that name speakers, in small: by cells, in Flax, from PyTorch, exported."""

import re

import export_runtimes
import flax_linen
import flax_nnx
import japanese_vowels
import japanese_vowels_data
import jax
import numpy as np
import pytest
from flax import nnx

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]


def test_nets_are_trained_and_drawn(picture, monkeypatch):
    monkeypatch.setattr(japanese_vowels, "PICTURE", picture)
    monkeypatch.setattr(japanese_vowels, "LEARNING_RATE", 0.01)
    first, second = japanese_vowels.main(seeds=2, epochs=1, units=8)
    assert first != second
    assert min(first, second) > 0.2  # One guess in nine is right by chance.


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)
    known = np.concatenate([x[:n] for x, n in zip(*train[:2], strict=True)])
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(known.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("example", [flax_linen, flax_nnx])
def test_a_net_in_flax_learns(example, monkeypatch):
    traced, loss = [], example.cross_entropy
    count = lambda *args: traced.append(None) or loss(*args)
    monkeypatch.setattr(example, "cross_entropy", count)
    found = example.main(epochs=2, seeds=2, units=8)
    assert len(traced) == 1  # One compilation serves all seeds.
    for losses in found["losses"]:
        assert len(losses) == 20  # 2 epochs of 10 batches
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert found["losses"][0] != found["losses"][1]
    assert min(found["accuracies"]) > 0.15


def test_both_nets_in_flax_are_the_same():
    """With the same parameters; dropout is for training alone."""
    train, _ = japanese_vowels_data.load()
    frames, lengths = train.frames[::30], train.lengths[::30]
    linen = flax_linen.Speaker(8)
    variables = linen.init(jax.random.key(3), frames, lengths)
    want = linen.apply(variables, frames, lengths)
    assert np.ptp(want, axis=0).min() > 1e-3  # They differ from speaker to speaker.
    rngs = {"dropout": jax.random.key(1)}
    dropped = linen.apply(variables, frames, lengths, train=True, rngs=rngs)
    assert np.abs(dropped - want).max() > 1e-3
    net = flax_nnx.Speaker(8, rngs=nnx.Rngs(0))
    nnx.update(net.rnn, nnx.State({"weights": variables["params"]["rnn"]}))
    nnx.update(net.head, nnx.State(variables["params"]["head"]))
    net.train()
    assert np.abs(net(frames, lengths) - want).max() > 1e-3
    net.eval()
    np.testing.assert_allclose(net(frames, lengths), want, 1e-5, 1e-6)


def test_weights_of_pytorch():
    pytest.importorskip("torch")
    from_torch = pytest.importorskip("from_torch")
    found = from_torch.main(torch_epochs=1, epochs=2, units=8)
    assert found["difference"] < 1e-5
    assert 0.15 < found["before"] < found["after"]  # It continues from there.


def test_all_runtimes_agree(tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    export_runtimes.main(tmp_path, epochs=1)
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (\w+) \| (\d.*) \|$", printed, re.MULTILINE))
    assert {"JAX", "LiteRT", "onnxruntime"} <= rows.keys()
    columns = [row.split(" | ") for row in rows.values()]
    assert len({accuracy for accuracy, *_ in columns}) == 1
    assert all(float(deviation) < 1e-4 for _, deviation, *_ in columns)
