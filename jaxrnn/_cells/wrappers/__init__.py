"""Wrappers, which are cells that hold other cells and define only a single step."""
