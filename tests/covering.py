"""Covering designs: few cases in which every two levels occur together."""

import functools
import itertools

import numpy as np


@functools.cache
def covering(counts, is_allowed):
    """Cases that contain every two levels that are allowed together.

    Each case is the best of a few random ones.

    Args:
        counts: `(name, count)` of each factor: its name, and the number of its levels.
        is_allowed: Whether a dict with the levels of some factors is allowed.

    Returns:
        A list of dicts with the level of each factor.
    """
    levels = [[(name, i) for i in range(count)] for name, count in counts]
    both = itertools.combinations(levels, 2)
    pairs = [pair for a, b in both for pair in itertools.product(a, b)]
    missing = {frozenset(pair): None for pair in pairs if is_allowed(dict(pair))}
    factors, rng, cases = dict(counts), np.random.default_rng(0), []
    while missing:
        first = dict(next(iter(missing)))
        tries = [_drawn(first, factors, is_allowed, missing, rng) for _ in range(6)]
        case = max(tries, key=lambda case: len(_pairs(case) & missing.keys()))
        missing = {pair: None for pair in missing if pair not in _pairs(case)}
        cases.append(case)
    return cases


def _drawn(case, counts, is_allowed, missing, rng):
    """A case that begins with some levels, and adds the most missing pairs."""
    case = dict(case)
    for name in rng.permutation([name for name in counts if name not in case]).tolist():
        allowed = [i for i in range(counts[name]) if is_allowed(case | {name: i})]
        gain = lambda i, name=name: sum(
            frozenset([(name, i), other]) in missing for other in case.items()
        )
        case[name] = max(rng.permutation(allowed).tolist(), key=gain)
    return case


def _pairs(case):
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}
