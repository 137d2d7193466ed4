"""Covering designs: few cases in which every two levels occur together."""

import itertools

import numpy as np


def covering(factors, is_allowed):
    """Cases that contain every two levels that are allowed together.

    Each case is the best of many random ones.

    Args:
        factors: The list of levels of each factor, by name.
        is_allowed: Whether a dict with the levels of some factors is allowed.

    Returns:
        A list of dicts with the level of each factor.
    """
    rng, cases = np.random.default_rng(0), []
    levels = [[(name, level) for level in factors[name]] for name in factors]
    both = itertools.combinations(levels, 2)
    pairs = {pair for a, b in both for pair in itertools.product(a, b)}
    missing = {pair for pair in pairs if is_allowed(dict(pair))}
    while missing:
        tries = [{n: rng.choice(factors[n]).item() for n in factors} for _ in range(60)]
        found = [pairs_of(case) & missing for case in tries if is_allowed(case)]
        allowed = [case for case in tries if is_allowed(case)]
        best = max(range(len(found)), key=lambda i: len(found[i]), default=None)
        if best is not None and found[best]:
            cases.append(allowed[best])
            missing -= found[best]
    return cases


def pairs_of(case):
    return set(itertools.combinations(case.items(), 2))
