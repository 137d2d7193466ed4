"""Times jaxrnn against other libraries: `python -m benchmarks --help`."""
