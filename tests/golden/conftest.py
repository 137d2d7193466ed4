"""Data, what the tests replay them with, and the scripts that make them; no tests."""

collect_ignore_glob = ["*.py"]
