"""Find words that have a neighbor among the training words of a net.

A word has a neighbor if a training word shares a stem or a pronunciation with it. A
word's stems are the word itself, and the rest of it without one of the `ENDINGS`.
"""

ENDINGS = "s es 's s' e ed d er ers ing ings y ies ied ly".split()
LEAST = 3  # The least number of letters in a stem.


def stems(word):
    """The word itself, and the word without each ending that it has."""
    cut = {word.removesuffix(ending) for ending in ENDINGS}
    return {stem for stem in cut if len(stem) >= LEAST} | {word}


class Neighbours:
    """Checks whether words have a neighbor among the training words."""

    def __init__(self, train):
        self.stems = set().union(*map(stems, train))
        self.sounds = {
            each for pronunciations in train.values() for each in pronunciations
        }

    def has(self, word, pronunciations):
        """Whether a training word shares a stem or a pronunciation with `word`."""
        return not (
            self.stems.isdisjoint(stems(word))
            and self.sounds.isdisjoint(pronunciations)
        )
