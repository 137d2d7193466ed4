"""Runs whole sequences of a cell faster than a scan over its steps."""
