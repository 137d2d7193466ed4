"""The distributed example, in small: equal on all layouts, also after a kill."""

import json
import shutil

import jax
import numpy as np
import pytest
import tyro
from distributed import compare, datasets, kill, packs, train

pytestmark = pytest.mark.slow
SMALL = {"steps": 6, "units": 4, "batch_size": 8, "data": "recall", "save_every": 2}


def test_a_killed_run_ends_as_if_it_had_not_been_killed(fast_to_compile):
    assert kill.main(times=1, layout="2 processes", patience=0.1) == 0


def test_two_processes_train_as_one_device_does(fast_to_compile, tmp_path, capsys):
    layouts = "1 device", "2 processes"
    picture = tmp_path / "losses.png"
    found = compare.main("vowels", 20, 8, 8, layouts, picture)
    for what in found["float32"]["2 processes"]:
        assert 0 < what < 1e-6
    for what in found["float64"]["2 processes"]:
        assert 0 < what < 1e-14
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "2 processes" in capsys.readouterr().out


@pytest.fixture(scope="module")
def recall():
    return datasets.load("recall", np.float32)


def losses_of(folder):
    lines = (folder / "losses.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == list(range(len(entries)))
    return [entry["loss"] for entry in entries]


@pytest.mark.parametrize("packed", [False, True])
def test_every_mesh_has_the_same_losses(users_settings, recall, tmp_path, packed):
    results = []
    for mesh in ("auto", "explicit", "shard_map"):
        (tmp_path / mesh).mkdir()
        config = train.Config(**SMALL, mesh=mesh, packed=packed)
        params = train.fit(config, recall, tmp_path / mesh)
        results.append((losses_of(tmp_path / mesh), params))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for other in results[1:]:
        jax.tree.map(close, other, results[0])


@pytest.mark.parametrize("packed", [False, True])
def test_it_continues_from_the_last_checkpoint(
    users_settings, recall, tmp_path, packed
):
    config = train.Config(**SMALL, packed=packed)
    whole = train.fit(config, recall, tmp_path)
    losses = losses_of(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write("half a li")
    again = train.fit(config, recall, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert losses_of(tmp_path) == losses


def test_the_batch_of_all_processes_does_not_depend_on_their_number(recall):
    whole = datasets.batches(recall, 8, 0, process=0, processes=1)
    parts = [datasets.batches(recall, 8, 0, process=i, processes=4) for i in range(4)]
    for _ in range(6):
        got = datasets.Batch(*map(np.concatenate, zip(*map(next, parts), strict=True)))
        for a, b in zip(got, next(whole), strict=True):
            np.testing.assert_array_equal(a, b)
    other = datasets.batches(recall, 8, 0, process=0, processes=1)
    other.set_state(parts[3].get_state())  # It counts batches, of any process.
    np.testing.assert_array_equal(next(other).frames, next(whole).frames)


def test_packs_do_not_depend_on_the_number_of_processes(recall):
    records = datasets.shuffled(recall, 0)
    whole, *parts = (packs.Packs(records, 2, 64, *x) for x in [(0, 1), (0, 2), (1, 2)])
    for _ in range(3):
        want, *got = (next(part) for part in (whole, *parts))
        got = jax.tree.map(lambda *leaves: np.concatenate(leaves), *got)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    parts[1].set_state(whole.get_state())
    np.testing.assert_array_equal(
        next(parts[1]).packed.starts, next(whole).packed.starts[2:]
    )


def test_windows_are_the_records(recall):
    windows = datasets.Windows(4, first_row=0).flat_map(recall.test)
    frames = np.concatenate([window.frames for window in windows], axis=1)
    np.testing.assert_array_equal(frames, recall.test.frames)
    lengths = sum(window.lengths for window in windows)
    np.testing.assert_array_equal(lengths, recall.test.lengths)
    assert [window.is_first.all() for window in windows] == [True, False, False, False]


def test_a_label_is_the_marked_symbol(recall):
    for frames, length, label in zip(*recall.test, strict=True):
        [marked] = np.flatnonzero(frames[:, -1])
        assert marked < length
        assert frames[marked, label] == 1


def test_dropout_depends_on_the_number_of_the_row(users_settings):
    x, rows = np.ones((6, 10, 20), np.float32), np.arange(6)
    key = jax.random.key(0)
    dropped = train.drop_by_row(key, rows, 0.25, x)
    some = train.drop_by_row(key, rows[2:4], 0.25, x[2:4])
    np.testing.assert_array_equal(some, dropped[2:4])
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.05)
    assert np.mean(dropped) == pytest.approx(1, abs=0.05)


def test_the_rows_must_be_divisible_by_the_devices(users_settings, tmp_path):
    flags = ["--batch-size", "6", "--folder", str(tmp_path)]
    with pytest.raises(SystemExit, match="4 devices cannot divide 6 rows"):
        tyro.cli(train.main, args=flags)
