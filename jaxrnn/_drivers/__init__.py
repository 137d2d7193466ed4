"""The drivers, one a file: a driver knows time."""
