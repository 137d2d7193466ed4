"""Which words have a neighbour among those that a net learned from.

A word has a neighbour if another word shares a pronunciation with it, a homophone, or a
stem. Its stems are the word itself, and what remains of it without one of the endings.
"""

ENDINGS = "s es 's s' e ed d er ers ing ings y ies ied ly".split()
LEAST = 3  # Letters of a stem.


def stems(word):
    """The word, and what is left of it without each ending that it has."""
    cut = {word.removesuffix(ending) for ending in ENDINGS}
    return {stem for stem in cut if len(stem) >= LEAST} | {word}


class Neighbours:
    """Says of words whether they have a neighbour among the words of a training."""

    def __init__(self, train):
        self.stems = set().union(*map(stems, train))
        self.sounds = {
            each for pronunciations in train.values() for each in pronunciations
        }

    def has(self, word, pronunciations):
        """Whether there is an inflected neighbour or a homophone."""
        return not (
            self.stems.isdisjoint(stems(word))
            and self.sounds.isdisjoint(pronunciations)
        )
