"""Cells: the equations, parameters and state of one step; most files hold one paper.

Imports `_base` and, from `_run`, types, selects and the table of loops. Never here: a
loop over steps. The loops that are faster than a scan are in `_loops`, which imports
the cells. To understand a result, read this folder and `_run`.
"""
