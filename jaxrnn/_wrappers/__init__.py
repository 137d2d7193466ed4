"""Cells that hold cells."""
