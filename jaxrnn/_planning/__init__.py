"""What a run would take in time and memory, predicted without running it."""
