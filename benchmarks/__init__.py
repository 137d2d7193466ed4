"""Races jaxrnn against its peers: `python -m benchmarks --help`."""
