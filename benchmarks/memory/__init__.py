"""What the strategies of `swap_memory` cost and save: `python -m benchmarks.memory`."""
