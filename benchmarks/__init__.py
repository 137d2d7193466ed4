"""Benchmarks of jaxrnn and other libraries: `python -m benchmarks --help`."""
