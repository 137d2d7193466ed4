"""Cells: the equations, the parameters and the state of one step, one paper a file.

Imports `_run` for two types, and `_base`. Never here: a loop over steps, padding, or a
number that was measured. What runs a kind of cells faster than a scan is in `_loops`,
which imports the cells. To understand a result, this folder and `_run` are enough.
"""
