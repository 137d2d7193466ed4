"""Cells around cells, one a file."""
