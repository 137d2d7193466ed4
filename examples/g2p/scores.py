"""Error rates of pronunciations, with confidence intervals."""

import numpy as np

SAMPLES = 2000


# Rates


def words_wrong(found, words):
    """Whether each word's result differs from all its pronunciations, `[words]`."""
    return np.array([found[word] not in words[word] for word in words])


def phonemes_wrong(found, words):
    """Edits to each word's nearest pronunciation, and that pronunciation's length."""
    nearest = []
    for word, pronunciations in words.items():
        edits = [(edit_distance(found[word], p), len(p)) for p in pronunciations]
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


def print_rates(rates):
    """Prints a table with a row for each network and a column for each rate."""
    names = next(iter(rates.values()))
    print(f"\n| network | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for network, row in rates.items():
        cells = (
            f"{100 * x:.1f} % ({100 * a:.1f} to {100 * b:.1f})"
            for x, a, b in row.values()
        )
        print(f"| {network} | {' | '.join(cells)} |")
