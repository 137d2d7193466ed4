"""Prepares batches: packs sequences, cuts long sequences into windows, finds resets.

This folder imports `_run` and `_base`, but never runs a cell. Its functions prepare the
inputs of `dynamic_rnn` and similar functions, and unpack the results.
"""
