"""Drivers, the public functions that run cells over time, and what explains a run.

Imports `_run`, `_batching` and `_base`. Never here: a loop, or a check that needs more
than the arguments. A driver checks its arguments, makes them a `Given`, and calls
`run_cell`. Only `short_conv` imports a cell, which it runs.
"""
