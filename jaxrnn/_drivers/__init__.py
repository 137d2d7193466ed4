"""The drivers: public functions that run a cell over time, each in a file."""
