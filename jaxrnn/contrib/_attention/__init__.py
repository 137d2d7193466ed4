"""Attention around a cell: the wrapper, its state, its mechanisms."""
