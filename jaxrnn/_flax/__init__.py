"""Flax modules for any cell (`linen.py`, `nnx.py`), and layers of published models.

A module creates the variables of a cell, and calls a function such as `dynamic_rnn` to
run it. `modules.py` and `parameters.py` contain the code that linen and nnx share, and
do not import Flax. This folder imports `_drivers`, `_cells` and the folders below. It
defines no equations of a step and no loop.
"""
