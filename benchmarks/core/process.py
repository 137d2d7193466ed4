"""A worker's process, as the command sees it that started it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .machine import CORES

# The same number of threads for all peers. The processes share a device, so that none
# may reserve its memory in advance.
ENVIRONMENT = {
    "BENCHMARK_CORES": str(CORES),
    "OMP_NUM_THREADS": str(CORES),
    "MKL_NUM_THREADS": str(CORES),
    "OPENBLAS_NUM_THREADS": str(CORES),
    "TF_NUM_INTRAOP_THREADS": str(CORES),
    "TF_NUM_INTEROP_THREADS": str(CORES),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process that answers one request at a time; see `worker.serve`."""

    def __init__(self, module: str, python: str = sys.executable) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
        )

    def ask(self, peer: str, do: str, **request: Any) -> dict[str, Any]:
        """A peer's answer; `failed` is an error's message, `died` if it died."""
        try:
            line = json.dumps({"peer": peer, "do": do, **request})
            self._process.stdin.write(line + "\n")
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


class Peer:
    """A peer in its process.

    Attributes:
        name: The peer.
        missing: Why it cannot be used, or None.
        versions: Of the packages that it uses.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The peer's answer."""
        return self._process.ask(self.name, do, **request)

    def meet(self) -> None:
        """Waits until the peer has imported what it needs."""
        hello = self.ask("hello")
        self.missing: str | None = hello.get("missing") or hello.get("failed")
        self.versions: dict[str, str] = hello.get("versions", {})


@contextlib.contextmanager
def started(
    names: Sequence[str], module: str, pythons: Mapping[str, str], shared: bool = False
) -> Iterator[dict[str, Peer]]:
    """The peers, each in a process, or all in one that is shared; ended on leaving.

    `pythons` are the interpreters of peers in an environment of their own.
    """
    with contextlib.ExitStack() as stack:
        peers: dict[str, Peer] = {}
        for name in names:
            if not (shared and peers):
                process = Process(module, pythons.get(name, sys.executable))
                stack.callback(process.close)
            peers[name] = Peer(name, process)
        for peer in tqdm(peers.values(), "starting peers", leave=False):
            peer.meet()
        yield peers
