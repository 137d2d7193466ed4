"""The fast path of cells that are products followed by elementwise updates."""
