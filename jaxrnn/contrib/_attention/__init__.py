"""The attention wrapper, with its state and its mechanisms."""
