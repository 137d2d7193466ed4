"""Starts the processes of contestants and communicates with them."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from .machine import CORES
from .peers import ROOT, Contestant

# All peers use the same number of threads. The processes share a device, so none may
# preallocate its memory.
ENVIRONMENT = {
    "BENCHMARK_CORES": str(CORES),
    "OMP_NUM_THREADS": str(CORES),
    "MKL_NUM_THREADS": str(CORES),
    "OPENBLAS_NUM_THREADS": str(CORES),
    "TF_NUM_INTRAOP_THREADS": str(CORES),
    "TF_NUM_INTEROP_THREADS": str(CORES),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}

Answer = dict[str, Any]


class Process:
    """A process that answers one request at a time; see `worker.serve`.

    If it has died, the next request restarts it.
    """

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self._start()

    def _start(self) -> None:
        one = self.contestant
        self._errors = tempfile.TemporaryFile("w+")
        arguments = [one.peer, one.run, str(one.checkout)]
        self._process = subprocess.Popen(
            [one.python, "-m", "benchmarks.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
        )

    def ask(self, do: str, **request: Any) -> Answer:
        """Call the worker's method `do`. If it fails, `failed` is the error message."""
        if self._process.stdin.closed:
            self._start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        self._errors.seek(0)
        last_words = "".join(self._errors.readlines()[-1:]).strip()
        self.close()
        return {"failed": f"the process died: {last_words}"}

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):  # The process may have died.
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def started(contestants: list[Contestant]) -> Iterator[tuple[dict[str, Process], dict]]:
    """Start the processes; yield them, and each one's first answer, by name.

    A contestant that cannot run has no process, and `missing` in its answer is the
    reason. All processes end when the context exits.
    """
    with contextlib.ExitStack() as stack:
        processes = {}
        for contestant in contestants:  # Their imports run in parallel.
            process = processes[contestant.name] = Process(contestant)
            stack.callback(process.close)
        hellos = {name: process.ask("hello") for name, process in processes.items()}
        for name, hello in hellos.items():
            if reason := hello.get("missing") or hello.get("failed"):
                hello["missing"] = reason
                del processes[name]
                print(f"left out: {name} ({reason})", file=sys.stderr)
        yield processes, hellos


def said(hellos: dict[str, Answer]) -> Answer:
    """The versions of the contestants' packages, and why contestants are missing."""
    versions: dict[str, str] = {}
    for hello in hellos.values():
        versions |= hello.get("versions", {})
    missing = {n: hello["missing"] for n, hello in hellos.items() if "missing" in hello}
    return {"versions": versions, "missing": missing}
