"""Batches made on the host: packed sequences, and windows of long ones."""
