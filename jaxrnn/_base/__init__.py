"""Helpers for arrays, nests (pytrees), arguments, keys, shardings and derivatives.

This folder imports JAX and NumPy, but no other folder of the package. It contains no
cell, no loop and no public function such as `dynamic_rnn`. A helper that only one
other folder uses belongs in that folder.
"""
