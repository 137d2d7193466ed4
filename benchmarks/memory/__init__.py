"""Memory and time of the strategies of `swap_memory`: `python -m benchmarks.memory`."""
