"""Runs blocks of code as a user would, in one process for many of them.

A line of input is a list of `[key, code]` in JSON, a line of output what the last of
them printed, or `null` and how it failed. A list that starts with all blocks of the
last one continues in its namespace; any other starts in an empty one.
"""

import contextlib
import io
import json
import sys
import traceback


def run(blocks, namespace):
    """`[what the last of the blocks printed, how it failed]`."""
    printed = io.StringIO()
    for key, code in blocks:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, f"block {key}", "exec"), namespace)
        except Exception:
            return None, traceback.format_exc()
    return printed.getvalue(), None


def main():
    """Answers each line."""
    done, namespace = [], {}
    for line in sys.stdin:
        blocks = json.loads(line)
        if not done or blocks[: len(done)] != done or blocks == done:
            done, namespace = [], {"__name__": "__main__"}
        result = run(blocks[len(done) :], namespace)
        done = blocks if result[0] is not None else []
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
