"""What lies here are data and the scripts that make them, not tests."""

collect_ignore_glob = ["*.py"]
