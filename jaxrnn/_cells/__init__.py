"""Cells: the equations, parameters and state of one step, mostly one paper a file.

Imports `_base`, and from `_run` types, selects and the table of loops. Never here: a
loop over steps. What runs a kind of cells faster than a scan is in `_loops`, which
imports the cells. To understand a result, this folder and `_run` are enough.
"""
