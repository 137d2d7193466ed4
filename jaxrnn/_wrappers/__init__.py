"""Cells around cells, one in each file."""
