"""Cells around other cells, one in each file."""
