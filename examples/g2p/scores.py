"""Error rates of pronunciations, with confidence intervals and a paired test."""

import numpy as np
from scipy import stats

SAMPLES = 2000


def read(path):
    """`{word: phonemes}` from a file that `g2p.baseline` wrote."""
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return {word: tuple(phonemes.split()) for word, _, phonemes in lines}


# Rates


def words_wrong(found, words):
    """Whether each word's result differs from all its pronunciations, `[words]`."""
    return np.array([found.get(word) not in words[word] for word in words])


def phonemes_wrong(found, words):
    """Edits to each word's nearest pronunciation, and that pronunciation's length."""
    nearest = []
    for word, pronunciations in words.items():
        edits = [
            (edit_distance(found.get(word, ()), p), len(p)) for p in pronunciations
        ]
        nearest.append(min(edits))
    return tuple(np.array(nearest).T)


def edit_distance(a, b):
    """The smallest number of insertions, deletions and replacements of phonemes."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            replaced = diagonal + (x != y)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


# Confidence


def bootstrap(wrong, of):
    """`sum(wrong) / sum(of)`, and the limits of its 95 % bootstrap interval over words.

    Args:
        wrong: The number of errors in each word.
        of: The number of possible errors in each word.
    """
    random, n = np.random.default_rng(0), len(wrong)
    drawn = (random.integers(n, size=n) for _ in range(SAMPLES))
    rates = [wrong[rows].sum() / of[rows].sum() for rows in drawn]
    return wrong.sum() / of.sum(), *np.quantile(rates, [0.025, 0.975])


def measure(found, words):
    """A dict from names to rates, each with its interval."""
    ones = np.ones(len(words))
    return {
        "words wrong": bootstrap(words_wrong(found, words), ones),
        "phonemes wrong": bootstrap(*phonemes_wrong(found, words)),
    }


def print_rates(rates):
    """Prints a table with a row for each search and a column for each rate."""
    names = next(iter(rates.values()))
    print(f"\n| search | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for search, row in rates.items():
        cells = (
            f"{100 * x:.2f} % ({100 * a:.2f}-{100 * b:.2f})" for x, a, b in row.values()
        )
        print(f"| {search} | {' | '.join(cells)} |")


def paired(wrong, other):
    """`(difference, half of its 95 % interval, p)` for the error rates of two systems.

    McNemar's test considers the words that exactly one system gets wrong. If both
    systems are equally good, each of these words is equally likely to be wrong in
    either.

    Args:
        wrong: Whether each word is wrong, bool `[words]`.
        other: The same for the other system.
    """
    first, second = (wrong & ~other).sum(), (other & ~wrong).sum()
    n, difference, both = len(wrong), (first - second) / len(wrong), first + second
    half = 1.96 * np.sqrt(both / n - difference**2) / np.sqrt(n)
    return difference, half, stats.binomtest(first, both).pvalue if both else 1.0


def print_paired(found, other, words):
    """Prints the difference between the error rates of two systems."""
    both = words_wrong(found, words), words_wrong(other, words)
    difference, half, p = paired(*both)
    print(
        f"\nWords wrong, minus the other system's {100 * both[1].mean():.2f} %: "
        f"{100 * difference:+.2f} ± {100 * half:.2f} points, p = {p:.3f} (McNemar)."
    )
