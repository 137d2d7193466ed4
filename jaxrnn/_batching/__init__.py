"""Batches made on the host: sequences packed into rows, long ones cut into windows."""
