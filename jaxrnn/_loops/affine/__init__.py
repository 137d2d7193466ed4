"""Loops of affine cells: `choose.py` chooses `xla_loop.py`, `native/` or a scan."""
