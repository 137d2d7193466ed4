"""jaxrnn against other libraries on this machine: `python -m benchmarks`."""
