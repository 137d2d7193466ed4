"""The drivers, which run a cell over time, and their common checks and loops."""
