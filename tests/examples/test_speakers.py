"""Scripts that name speakers, in small: by cells, in Flax, from PyTorch, exported."""

import importlib
import json
import re
import sys

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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.in_thirds,
    pytest.mark.usefixtures("users_settings"),
]
SMALL = {"epochs": 2, "units": 16}


def test_two_epochs_are_printed_drawn_and_saved(tmp_path, capsys):
    config = Config(**SMALL, learning_rate=0.01)
    results = japanese_vowels.main(config, seeds=3, output=tmp_path)
    printed = capsys.readouterr().out
    assert len(results["accuracies"]) == 3
    assert min(results["accuracies"]) > 0.5  # One guess in nine is right by chance.
    assert results["ensemble"] > np.mean(results["accuracies"]) - 0.02
    for said in ("Seed 1: test accuracy", "standard deviation", "Ensemble of 3"):
        assert said in printed
    names = "japanese_vowels.png", "checkpoint", "results.json"
    picture, checkpoint, saved = written = [tmp_path / name for name in names]
    assert printed.splitlines()[-3:] == list(map(str, written))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(saved.read_text()) == results
    # The files of weights contain no code.
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    assert files
    assert not any(path.suffix in {".pkl", ".pickle"} for path in files)


def test_same_seed_same_result(tmp_path):
    config = Config(**SMALL, cell="GRUCell", direction="forward")
    run = lambda seed: japanese_vowels.main(config, 2, seed, output=tmp_path)
    first, second, other = map(run, (0, 0, 7))
    assert first == second != other


def test_cross_validation_never_reads_the_test_set(monkeypatch, tmp_path):
    train, test = japanese_vowels_data.load()
    test.frames[:] = np.nan
    test.labels[:] = -1
    monkeypatch.setattr(japanese_vowels_data, "load", lambda: (train, test))
    config, options = Config(epochs=1, units=16), {"cross_validate": True}
    results = japanese_vowels.main(config, seeds=1, output=tmp_path, **options)
    assert 0.15 < results["held_out"] < 1  # One guess in nine is right by chance.
    assert results["log_loss"] < np.log(9)  # That of a guess.
    [written] = tmp_path.iterdir()  # No flag is ignored: seeds and output count here.
    assert json.loads(written.read_text()) == results


def test_a_batch_larger_than_the_training_set_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"--batch-size must .* 270, .* got 300"):
        japanese_vowels.main(Config(batch_size=300), output=tmp_path)


def test_the_data_are_those_of_the_paper():
    train, test = japanese_vowels_data.load()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max()) == (7, 26)
    assert (test.lengths.min(), test.lengths.max()) == (7, 29)


@pytest.mark.parametrize("example", [flax_linen, flax_nnx])
def test_a_net_in_flax_learns(example, monkeypatch, capsys):
    traced, loss = [], example.cross_entropy
    count = lambda *args: traced.append(None) or loss(*args)
    monkeypatch.setattr(example, "cross_entropy", count)
    found = example.main(epochs=5, seeds=2, units=16)
    assert len(traced) == 1  # One compilation serves all seeds.
    for losses in found["losses"]:
        assert len(losses) == 50  # 5 epochs of 10 batches
        assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    assert found["losses"][0] != found["losses"][1]
    assert min(found["accuracies"]) > 0.5
    said = capsys.readouterr().out
    assert f"Seed 1: test accuracy {100 * found['accuracies'][1]:.2f} %" in said
    assert f"Mean of 2: {100 * np.mean(found['accuracies']):.2f} %" in said


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


def test_weights_of_pytorch(capsys):
    pytest.importorskip("torch")
    from_torch = pytest.importorskip("from_torch")
    found = from_torch.main(torch_epochs=1, epochs=4, units=16)
    before, after = found["before"], found["after"]
    assert found["difference"] < 1e-5
    assert 0.15 < before < 0.9
    assert after > before + 0.05  # It continues from there.
    said = capsys.readouterr().out
    assert f"PyTorch: test accuracy {100 * before:.2f} %" in said
    assert f"After 4 more epochs in JAX: test accuracy {100 * after:.2f}" in said


def test_without_pytorch_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "from_torch", raising=False)
    with pytest.raises(SystemExit, match=r"Try: pip install -e '\.\[examples\]' torch"):
        importlib.import_module("from_torch")


def test_all_runtimes_agree(tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    export_runtimes.main(tmp_path, epochs=3)
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (\w+) \| (\d.*) \|$", printed, re.MULTILINE))
    assert {"JAX", "LiteRT", "onnxruntime"} <= rows.keys()
    columns = [row.split(" | ") for row in rows.values()]
    assert len({accuracy for accuracy, *_ in columns}) == 1
    assert all(float(deviation) < 1e-4 for _, deviation, *_ in columns)
