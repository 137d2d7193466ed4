"""The examples with Flax and PyTorch, in small: they learn, and agree."""

import importlib
import sys

import flax_linen
import flax_nnx
import jax
import numpy as np
import pytest
from flax import nnx
from japanese_vowels_data import load_scaled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_settings")]
EXAMPLES = pytest.mark.parametrize("example", [flax_linen, flax_nnx])


def models(train):
    """Both nets, with the same parameters."""
    ours = flax_linen.Speaker(8)
    variables = ours.init(jax.random.key(3), train.frames, train.lengths)
    theirs = flax_nnx.Speaker(8, rngs=nnx.Rngs(0))
    params = variables["params"]
    # The names within the layer are the same; a mistake in one would be an error here.
    nnx.update(theirs.rnn, nnx.State({"params": params["rnn"]}))
    nnx.update(theirs.head, nnx.State(params["head"]))
    return ours, variables, theirs


@EXAMPLES
def test_it_learns(example, monkeypatch, capsys):
    traced, loss = [], example.cross_entropy
    count = lambda *args: traced.append(None) or loss(*args)
    monkeypatch.setattr(example, "cross_entropy", count)
    found = example.main(epochs=5, seeds=2, units=16)
    assert len(traced) == 1  # One compilation serves all seeds.
    for losses in found["losses"]:
        assert len(losses) == 50  # 5 epochs of 10 batches
        assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    assert found["losses"][0] != found["losses"][1]
    assert min(found["accuracies"]) > 0.5  # One guess in nine is right by chance.
    said = capsys.readouterr().out
    assert f"Seed 1: test accuracy {100 * found['accuracies'][1]:.2f} %" in said
    assert f"Mean of 2: {100 * np.mean(found['accuracies']):.2f} %" in said


def test_both_give_the_same_logits():
    train, _ = load_scaled()
    train = train.take(np.arange(0, 270, 30))
    ours, variables, theirs = models(train)
    theirs.eval()
    want = ours.apply(variables, train.frames, train.lengths)
    got = theirs(train.frames, train.lengths)
    assert want.shape == (9, 9)
    assert np.ptp(want, axis=0).min() > 1e-3  # They differ from speaker to speaker.
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)


def test_dropout_is_for_training_alone():
    train, _ = load_scaled()
    frames, lengths = train.frames[:4], train.lengths[:4]
    ours, variables, theirs = models(train)

    def linen(seed=None):
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        return ours.apply(variables, frames, lengths, train=bool(rngs), rngs=rngs)

    np.testing.assert_array_equal(linen(1), linen(1))
    assert np.abs(linen(1) - linen(2)).max() > 1e-3
    theirs.train()
    assert np.abs(theirs(frames, lengths) - theirs(frames, lengths)).max() > 1e-3
    theirs.eval()
    np.testing.assert_array_equal(theirs(frames, lengths), theirs(frames, lengths))


def test_weights_of_pytorch(capsys):
    pytest.importorskip("torch")
    from_torch = pytest.importorskip("from_torch")
    found = from_torch.main(torch_epochs=1, epochs=4, units=16)
    assert found["difference"] < 1e-5
    assert 0.9 > found["before"] > 0.15
    assert found["after"] > found["before"] + 0.05  # It continues from there.
    said = capsys.readouterr().out
    assert f"PyTorch: test accuracy {100 * found['before']:.2f} %" in said
    assert (
        f"After 4 more epochs in JAX: test accuracy {100 * found['after']:.2f}" in said
    )


def test_without_pytorch_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "from_torch", raising=False)
    with pytest.raises(SystemExit, match=r"Try: pip install -e '\.\[examples\]' torch"):
        importlib.import_module("from_torch")
