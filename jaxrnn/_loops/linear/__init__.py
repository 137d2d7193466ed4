"""Linear recurrences in chunks of steps, and how time is divided for them."""
