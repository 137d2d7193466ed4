"""The drivers, one in each file: a driver runs a cell over time."""
