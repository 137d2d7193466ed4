"""Batches built on the host: packed sequences, and windows of long sequences."""
