"""Data, and the programs that replay and record the data; no tests."""

collect_ignore_glob = ["*.py"]
