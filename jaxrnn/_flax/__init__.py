"""Flax modules around any cell (`linen.py`, `nnx.py`), and layers of published models.

Imports `_drivers`, `_cells` and below, and Flax. Never here: equations of a step, or a
loop. A module creates variables, and calls a driver; `modules.py` and `parameters.py`
hold what linen and nnx share, without Flax.
"""
