"""The time axis of a batch of sequences, and the loops over this axis."""
