"""What a run would take, predicted without running it."""
