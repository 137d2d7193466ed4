"""The drivers (functions that run a cell over time), with their checks and loops."""
