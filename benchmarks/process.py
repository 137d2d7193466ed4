"""The process of a peer, seen from the race."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .machine import CORES

# The same number of threads for all, and no more of a device's memory than is used:
# the processes share it.
ENVIRONMENT = {
    "BENCHMARK_CORES": str(CORES),
    "OMP_NUM_THREADS": str(CORES),
    "MKL_NUM_THREADS": str(CORES),
    "OPENBLAS_NUM_THREADS": str(CORES),
    "TF_NUM_INTRAOP_THREADS": str(CORES),
    "TF_NUM_INTEROP_THREADS": str(CORES),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


class PeerProcess:
    """A worker that is asked one thing at a time.

    Attributes:
        name: The peer.
        versions: Of the packages that it uses; known after `meet`.
        missing: Why it cannot be used, or None; known after `meet`.
    """

    versions: dict[str, str]
    missing: str | None

    def __init__(
        self,
        name: str,
        python: str = sys.executable,
        module: str = "benchmarks.worker",
    ):
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, "-m", module, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=Path(__file__).resolve().parent.parent,
            env=os.environ | ENVIRONMENT,
        )

    def meet(self) -> None:
        """Waits until the process has imported what it needs."""
        hello = self.ask("hello")
        self.missing = hello.get("missing") or hello.get("failed")
        self.versions = hello.get("versions", {})

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The worker's answer; `failed` says why there is none, `died` if it died."""
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            reason = f"the process died: {self._last_words()}"
            return {"failed": reason, "died": True}
        return json.loads(answer)

    def _last_words(self) -> str:
        self._errors.seek(0)
        return "".join(self._errors.readlines()[-1:]).strip()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # One that died is closed as well.
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
