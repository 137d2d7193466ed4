"""Where the peers run: a process each, or on a TPU one for all."""

import sys
from typing import Any

from ..process import PeerProcess

MODULE = "benchmarks.accelerator.worker"


class Seat(PeerProcess):
    """A peer in a process that may serve others as well."""

    def __init__(self, name: str, process: PeerProcess) -> None:
        self.name = name
        self.process = process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The peer's answer."""
        return self.process.ask("relay", peer=self.name, what=do, request=request)

    def close(self) -> None:
        """Ends the process, for all."""
        self.process.close()


class Seats:
    """The peers and the device that they share.

    Attributes:
        device: What `device.describe` says of it.
        peers: By name.
    """

    def __init__(self, names: list[str], pythons: dict[str, str]) -> None:
        self.peers: dict[str, Seat] = {}
        first = _start(names[0], pythons)
        try:
            self.peers[names[0]] = first
            self.device = first.ask("device")
            if "failed" in self.device:
                raise SystemExit(f"JAX has no device: {self.device['failed']}")
            # A TPU belongs to the process that first asks for it.
            is_shared = self.device["platform"] == "tpu"
            for name in names[1:]:
                self.peers[name] = (
                    Seat(name, first.process) if is_shared else _start(name, pythons)
                )
            for peer in self.peers.values():
                peer.meet()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends all processes."""
        for peer in self.peers.values():
            peer.close()


def _start(name: str, pythons: dict[str, str]) -> Seat:
    python = pythons.get(name, sys.executable)
    return Seat(name, PeerProcess(name, python, MODULE))
