"""Whole sequences of a cell at once: what is faster than a scan of its steps."""
