"""Linear recurrences, `h = a * h + b`: the base class (`cell.py`), and its cells."""
