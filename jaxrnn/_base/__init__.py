"""Arrays, nests (pytrees), checks of arguments, keys, shardings and derivatives.

Imports JAX and NumPy, and nothing else of the package. Never here: cells, drivers and
loops, or a function that only one other folder needs.
"""
