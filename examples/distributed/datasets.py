"""Two datasets of ragged records, and Grain pipelines that batch windows of them."""

from typing import Any, Literal, NamedTuple

import grain
import japanese_vowels_data as vowels
import numpy as np

import jaxrnn

Name = Literal["vowels", "recall"]
SYMBOLS, LONGEST = 8, 64  # The sizes of the dataset `recall`.


class Records(NamedTuple):
    """Padded sequences; a single record has no first axis."""

    frames: Any  # [records, time, features]
    lengths: Any  # [records], int32
    labels: Any  # [records], int32


class Batch(NamedTuple):
    """One window of each of `rows` records."""

    frames: Any  # [rows, window, features]
    resets: Any  # [rows, window], bool: true at the first frame of a record
    lengths: Any  # [rows], int32: valid frames in this window, 0 after the record's end
    labels: Any  # [rows], int32
    rows: Any  # [rows], int32: the rows' numbers in the batch of all processes


class Dataset(NamedTuple):
    """Training records and test records."""

    train: Records
    test: Records
    window: int  # The number of steps in a window; it divides `time`.
    classes: int


class Source:
    """A Grain source, which reads records one by one in any order."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records.labels)

    def __getitem__(self, index):
        return Records(*(array[index] for array in self.records))


class Windows(grain.experimental.FlatMapTransform):
    """Cuts a batch of records into consecutive windows."""

    def __init__(self, count, first_row):
        self.max_fan_out = count
        self.first_row = first_row

    def flat_map(self, element):
        """The windows of a batch of records, in order."""
        frames, lengths, labels = element
        rows = self.first_row + np.arange(len(labels), dtype=np.int32)
        resets = np.zeros(frames.shape[:2], bool)
        resets[:, 0] = True
        size = frames.shape[1] // self.max_fan_out
        cut = jaxrnn.windows((frames, resets), size, lengths)
        return [
            Batch(w.inputs[0], w.inputs[1], w.sequence_length, labels, rows)
            for w in cut
        ]


def load(name: Name, dtype) -> Dataset:
    """The dataset `name`, with frames in `dtype`."""
    if name == "vowels":
        train, test = (Records(*part) for part in vowels.load())
        window, classes = train.frames.shape[1], vowels.SPEAKERS
    else:
        train, test = recall(4096, seed=0), recall(512, seed=1)
        window, classes = 16, SYMBOLS
    train, test = (x._replace(frames=x.frames.astype(dtype)) for x in (train, test))
    return Dataset(train, test, window, classes)


def recall(count, seed):
    """Records of 8 to 64 random symbols; the label is the marked symbol.

    The mark is at one of the first 8 steps, and a window has 16 steps. Therefore, after
    the first window, only the carried state contains the label.
    """
    rng = np.random.default_rng(seed)
    symbols = rng.integers(SYMBOLS, size=(count, LONGEST))
    lengths = rng.integers(8, LONGEST + 1, size=count, dtype=np.int32)
    marked = np.arange(count), rng.integers(8, size=count)
    frames = np.zeros((count, LONGEST, SYMBOLS + 1), np.float32)
    frames[..., :SYMBOLS] = np.eye(SYMBOLS)[symbols]
    frames[*marked, SYMBOLS] = 1
    return Records(frames, lengths, symbols[marked].astype(np.int32))


def batches(dataset: Dataset, rows: int, seed: int, process: int, processes: int):
    """An endless iterator over this process's rows of each batch.

    Each process reads every `processes`-th block of `rows // processes` records, so the
    global batches are the same, in the same order, for any number of processes. The
    state of the iterator is the number of batches that were read, so it can be restored
    with any number of processes.
    """
    windows = dataset.train.frames.shape[1] // dataset.window
    local = rows // processes
    records = grain.MapDataset.source(Source(dataset.train)).shuffle(seed).repeat()
    blocks = records.batch(local)[process::processes]
    cut = Windows(windows, first_row=process * local)
    data = grain.experimental.FlatMapMapDataset(blocks, cut)
    # A single thread reads ahead, so that the order of records is fixed.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(data.to_iter_dataset(ahead))
