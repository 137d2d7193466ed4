"""Linear recurrences: the kind of cell, its loop, and its cells."""
