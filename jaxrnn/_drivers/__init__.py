"""The drivers, which run a cell over time, with the checks and loops they share."""
