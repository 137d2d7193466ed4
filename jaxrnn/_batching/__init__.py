"""Batches for recurrent networks: packing, windows of long sequences, resets.

Imports `_run` and `_base`. Never here: a run of a cell. These functions prepare what a
driver reads, and find in its results what the user asks for.
"""
