"""Loops of affine cells: `choose.py` decides, `xla_loop.py` runs, or `native/` does."""
