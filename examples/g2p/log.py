"""What a training writes down: a line of JSON for each epoch."""

import json
import time


class Log:
    """The entries of a run, which goes on after it was killed.

    Args:
        path: The file.
        done: The steps done. Entries of later ones are cut off: they are done again.
    """

    def __init__(self, path, done):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = (line for line in lines if line.endswith("\n"))  # A kill cuts one.
        entries = [entry for entry in map(json.loads, whole) if entry["step"] <= done]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        self.path, self.entries = path, entries
        # Steps that a kill lost do not count.
        before = entries[-1]["seconds"] if entries else 0.0
        self.began = time.perf_counter() - before

    def add(self, **entry):
        """Adds an entry, with the seconds of the run so far."""
        entry["seconds"] = time.perf_counter() - self.began
        self.entries.append(entry)
        with open(self.path, "a") as file:
            print(json.dumps(entry), file=file)
