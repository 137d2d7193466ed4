"""Drivers, the public functions that run cells over time, such as `dynamic_rnn`.

Imports `_run`, `_batching` and `_base`. Never here: a loop, or a check that needs more
than the arguments. A driver checks its arguments, stores them in a `Given`, and calls
`run_cell`. Only `short_conv` imports a cell. `explain` and `memory_plan` report how
`dynamic_rnn` would run a cell, and run nothing.
"""
