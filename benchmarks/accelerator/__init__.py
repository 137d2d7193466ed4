"""Recurrent kernels on a GPU or a TPU: `python -m benchmarks.accelerator`."""
