"""What the three benchmarks share: processes, timing, data, results, tables, plots."""
