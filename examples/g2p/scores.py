"""How wrong pronunciations are."""

import numpy as np


def words_wrong(found, words):
    """For each word whether none of its pronunciations was found, `[words]`."""
    return np.array([found[word] not in words[word] for word in words])


def words_wrong_by_first(found, words):
    """The same, where only a word's first pronunciation counts."""
    return np.array([found[word] != words[word][0] for word in words])


def phonemes_wrong(found, words):
    """Edits to the nearest pronunciation, and the phonemes in it, both `[words]`."""
    nearest = []
    for word, pronunciations in words.items():
        edits = [(edit_distance(found[word], p), len(p)) for p in pronunciations]
        nearest.append(min(edits))
    return tuple(np.array(nearest).T)


def edit_distance(a, b):
    """The least number of phonemes to insert, delete or replace."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            replaced = diagonal + (x != y)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]
