"""Shared code: types, errors, nests, checks of arguments, keys, shardings."""
