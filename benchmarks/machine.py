"""An anonymous description of the machine, and a measure of how busy it is."""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

CORES = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
)

BUSY = 0.15  # Above this share of the cores' time, the machine is too busy.

SETS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_tile", "asimd")
VECTORS = "avx2", "avx512f", "asimd"


def describe() -> dict[str, str | int]:
    """The machine's cores, processor, instruction sets, system and Python.

    Also XLA's flags, if the environment sets any.
    """
    facts = {
        "cores": CORES,
        "processor": processor(),
        "instruction sets": ", ".join(_instruction_sets()) or "unknown",
        "system": platform.system(),
        "python": platform.python_version(),
    }
    flags = os.environ.get("XLA_FLAGS")
    return facts | {"XLA_FLAGS": flags} if flags else facts


def processor() -> str:
    """The maker and the family of the processor, such as "AMD EPYC".

    Without `/proc/cpuinfo`, its architecture.
    """
    names = re.findall(r"AMD|Intel|EPYC|Ryzen|Xeon|Core", _cpu_info("model name"))
    return " ".join(dict.fromkeys(names)) or platform.machine()


def file_name() -> str:
    """The processor and its widest vectors, as part of a file's name."""
    widest = [name for name in _instruction_sets() if name in VECTORS][-1:]
    return "_".join([*processor().lower().split(), *widest])


def commit(folder: Path) -> str:
    """The commit of a checkout, and whether files have changed since."""
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def busy_while(wait: Callable[[], None]) -> float:
    """The share of the cores' time that other programs used during `wait()`.

    NaN if the operating system does not report it.
    """
    before = _ticks()
    wait()
    busy, total = (now - then for now, then in zip(_ticks(), before, strict=True))
    return busy / total if total else float("nan")


def _ticks() -> tuple[int, int]:
    """The busy and the total time of all cores so far."""
    file = Path("/proc/stat")
    if not file.exists():
        return 0, 0
    ticks = [int(field) for field in file.read_text().splitlines()[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return sum(ticks) - idle - waiting, sum(ticks)


def _instruction_sets() -> list[str]:
    flags = _cpu_info("flags|Features").split()
    return [name for name in SETS if name in flags]


def _cpu_info(field: str) -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(rf"^(?:{field})\s*:(.*)$", text, re.MULTILINE)
    return found[1] if found else ""
