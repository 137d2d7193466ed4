"""Code that other packages share: types, errors, nests, checks, keys, shardings."""
