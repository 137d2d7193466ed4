"""The loops over the time axis of a batch of sequences."""
