"""The log of a training run: one line of JSON for each epoch."""

import json
import time


class Log:
    """The log of a run that can be killed and continued.

    Args:
        path: The log file.
        done: The number of steps done. Entries of later steps are removed, because
            these steps run again.
    """

    def __init__(self, path, done):
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = (line for line in lines if line.endswith("\n"))  # Drop a partial line.
        entries = [entry for entry in map(json.loads, whole) if entry["step"] <= done]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        self.path, self.entries = path, entries
        # Do not count the time of steps that a kill lost.
        before = entries[-1]["seconds"] if entries else 0.0
        self.began = time.perf_counter() - before

    def add(self, **entry):
        """Adds an entry, with the seconds of the run so far."""
        entry["seconds"] = time.perf_counter() - self.began
        self.entries.append(entry)
        with open(self.path, "a") as file:
            print(json.dumps(entry), file=file)
