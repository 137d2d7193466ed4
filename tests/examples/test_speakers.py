"""Scripts that name speakers, in small: by cells, in Flax, from PyTorch, exported."""

import json
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
from japanese_vowels import Config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]


def test_nets_are_trained_drawn_and_saved(tmp_path):
    config = Config(epochs=1, units=8, learning_rate=0.01)
    results = japanese_vowels.main(config, seeds=2, output=tmp_path)
    assert len({*results["accuracies"]}) == 2
    assert min(results["accuracies"]) > 0.2  # One guess in nine is right by chance.
    names = "japanese_vowels.png", "checkpoint", "results.json"
    picture, checkpoint, saved = [tmp_path / name for name in names]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(saved.read_text()) == results
    # The files of weights contain no code.
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    assert files
    assert not any(path.suffix in {".pkl", ".pickle"} for path in files)


def test_cross_validation_never_reads_the_test_set(monkeypatch, tmp_path):
    train, test = japanese_vowels_data.load()
    test.frames[:] = np.nan
    test.labels[:] = -1
    monkeypatch.setattr(japanese_vowels_data, "load", lambda: (train, test))
    small = {"epochs": 1, "units": 8, "learning_rate": 0.02}
    config = Config(**small, cell="GRUCell", direction="forward")
    results = japanese_vowels.main(config, 1, output=tmp_path, cross_validate=True)
    assert 0.15 < results["held_out"] < 1  # One guess in nine is right by chance.
    assert results["log_loss"] < np.log(9)  # That of a guess.
    [written] = tmp_path.iterdir()  # No flag is ignored: seeds and output count here.
    assert json.loads(written.read_text()) == results


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)


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
    train, _ = japanese_vowels_data.load_scaled()
    frames, lengths = train.frames[::30], train.lengths[::30]
    linen = flax_linen.Speaker(8)
    variables = linen.init(jax.random.key(3), frames, lengths)
    want = linen.apply(variables, frames, lengths)
    assert np.ptp(want, axis=0).min() > 1e-3  # They differ from speaker to speaker.
    rngs = {"dropout": jax.random.key(1)}
    dropped = linen.apply(variables, frames, lengths, train=True, rngs=rngs)
    assert np.abs(dropped - want).max() > 1e-3
    net = flax_nnx.Speaker(8, rngs=nnx.Rngs(0))
    nnx.update(net.rnn, nnx.State({"params": variables["params"]["rnn"]}))
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
