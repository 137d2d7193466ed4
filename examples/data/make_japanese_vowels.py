"""Pack the Japanese Vowels utterances into one small file next to this script.

    pip download --no-deps aeon==1.6.0
    unzip 'aeon-*.whl' 'aeon/datasets/data/JapaneseVowels/*'
    python make_japanese_vowels.py aeon/datasets/data/JapaneseVowels

The script needs only NumPy and downloads nothing. The same sources give the same bytes.
See `ATTRIBUTION.md` for the authors and the license of the data.
"""

import numpy as np
from write import write

COEFFICIENTS = 12
SPEAKERS = 9
# For each split: the number of utterances, and the shortest and longest in frames.
EXPECTED = {"TRAIN": (270, 7, 26), "TEST": (370, 7, 29)}


def read_ts(path):
    """All utterances of one .ts file: frames `[frames, 12]` and the speaker, 0 to 8.

    Each line holds the tracks of the coefficients and the class, 1 to 9, separated by
    colons.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    utterances = []
    for line in filter(str.strip, lines[lines.index("@data") + 1 :]):
        *tracks, label = line.strip().split(":")
        frames = np.array([track.split(",") for track in tracks], np.float32).T
        utterances.append((frames, int(label) - 1))
    return utterances


def check(split, utterances):
    """Raise ValueError unless the file is the one that `ATTRIBUTION.md` describes."""
    lengths = [len(frames) for frames, _ in utterances]
    found = (len(lengths), min(lengths), max(lengths))
    if found != EXPECTED[split]:
        raise ValueError(
            f"{split}: must hold (utterances, shortest, longest) = {EXPECTED[split]}, "
            f"got {found}. Use JapaneseVowels_{split}.ts, not the `_eq_` file."
        )
    widths = {frames.shape[1] for frames, _ in utterances}
    speakers = {speaker for _, speaker in utterances}
    if widths != {COEFFICIENTS} or speakers != set(range(SPEAKERS)):
        raise ValueError(
            f"{split}: must hold {COEFFICIENTS} coefficients and {SPEAKERS} speakers, "
            f"got {widths} and {speakers}."
        )


def pack(folder):
    """Both splits as flat arrays: utterance i owns `lengths[i]` rows of `frames`."""
    utterances, is_test = [], []
    for split in EXPECTED:
        found = read_ts(folder / f"JapaneseVowels_{split}.ts")
        check(split, found)
        utterances += found
        is_test += [split == "TEST"] * len(found)
    frames, labels = zip(*utterances, strict=True)
    return {
        "frames": np.concatenate(frames),
        "lengths": np.array([len(each) for each in frames], np.int32),
        "labels": np.array(labels, np.int32),
        "is_test": np.array(is_test),
    }


if __name__ == "__main__":
    write(__file__, __doc__ or "", "folder", "where the two .ts files are", pack)
