"""The page that `gpu.py` writes, and what failed."""

import dataclasses
from collections import Counter
from typing import Any

from . import report
from .report import Column, join, section

Result = dict[str, Any]

PARTS = ("times", "loops", "memory")
CHECKS_NOTE = (
    "`goldens` compares results and gradients with those that TensorFlow computed. "
    "`laws` are the laws of `jaxrnn.testing.check_cell`, in float32. "
    'Matrix products have the precision `jax_default_matmul_precision="highest"`.'
)
TIMES_NOTE = (
    "`jaxrnn` is `dynamic_rnn` with its default loop, `jax_rnn` is "
    "`jax.experimental.rnn`, cuDNN's LSTM in JAX, `scan` is a handwritten `lax.scan`, "
    "`linen` is Flax's `nn.RNN`, and `torch` is PyTorch's "
    "`nn.LSTM` or `nn.GRU`. `gru_after` is a GRU with cuDNN's equations. Matrix "
    "products have the default precision of each library. For float32 on recent "
    "NVIDIA GPUs, that is TF32. In each round, the contestants run one after the "
    "other. A time is the median of the calls that fit in 60 ms after a warm-up call. "
    "Each call waits until the device has finished."
)
LOOPS_NOTE = (
    "`jaxrnn` is `dynamic_rnn` with JAX's default compiler options. `graph` lets XLA "
    "record the loop as a CUDA graph (XLA's command buffer), and `graph, unrolled` "
    "also lets it unroll the recorded loop. `unroll 4` and `unroll 8` set "
    "`parallel_iterations`, without a graph."
)
AGREEMENT_NOTE = (
    "The variant that ran, and the largest relative deviation of its outputs or "
    "gradients from the reference."
)
TOO_LATE = "no time was left"
MEMORY_NOTE = "Strategies of `swap_memory`. Each has its own process."
MEMORY_TIME_NOTE = "Each other column is divided by the first."
NOT_A_GPU = (
    "**This page is not from a GPU.** A few checks and small cases ran on another "
    "device to test the command. The numbers say nothing about speed."
)


def write(result: Result) -> str:
    """The whole page."""
    is_gpu = result["platform"] == "gpu"
    device = result["facts"].get("device", result["platform"])
    return (
        join(
            f"# jaxrnn on {device}",
            "" if is_gpu else NOT_A_GPU,
            _summary(result),
            _conditions(result),
            section("Failures", "", _listed(failures(result))),
            section("Checks", CHECKS_NOTE, _checks(result["checks"])),
            _times(result.get("times"), "Time", TIMES_NOTE),
            _times(result.get("loops"), "Loops", LOOPS_NOTE),
            _memory(result.get("memory")),
            section("Not run", "", _listed(_not_run(result))),
        )
        + "\n"
    )


def failures(result: Result) -> list[str]:
    """A line for each part, check and contestant that failed or has other results."""
    lines = [_one_line(error) for error in result["errors"]]
    for check in result["checks"]:
        if message := check.get("answer", {}).get("failed"):
            lines.append(f"{check['part']}, {check['name']}: {_one_line(message)}")
    for part in PARTS:
        race = result.get(part, {"missing": {}, "cases": []})
        for name, reason in race["missing"].items():
            if not reason.startswith("No module named"):
                lines.append(f"{name}: {_one_line(reason)}")
        for row in race["cases"]:
            for name, outcome in row["peers"].items():
                where = f"{name}, {row['name']}"
                agreement = outcome.get("agreement", {"same": True})
                if "failed" in outcome:
                    lines.append(f"{where}: {_one_line(outcome['failed'])}")
                elif not agreement["same"]:
                    far = f"{agreement['deviation']:.0e} from {agreement['reference']}"
                    lines.append(f"{where}: the results deviate by {far}")
    return lines


def _one_line(message: str) -> str:
    """A message without line breaks."""
    return report.shortened(" ".join(message.split()))


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _summary(result: Result) -> str:
    failed = len(failures(result))
    verdict = f"{failed} failed, see below." if failed else "Nothing failed."
    small = " --small" if result["preset"] == "small" else ""
    return (
        f"`python -m benchmarks gpu{small}`, {result['date']}, commit "
        f"{result['commit']}, {result['seconds']:.0f} s. **{verdict}**"
    )


def _conditions(result: Result) -> str:
    """The device, the machine and the versions."""
    versions = dict(result["versions"])
    for part in PARTS:
        versions |= result.get(part, {}).get("versions", {})
    facts = result["facts"] | {
        "machine": report.listed(result["machine"], ": ", "; "),
        "versions": report.listed(dict(sorted(versions.items())), " ", ", "),
    }
    return _listed([f"{name}: {fact}" for name, fact in facts.items()])


def _checks(checks: list[Result]) -> str:
    """The number of checks of each group by outcome."""
    groups: dict[str, Counter[str]] = {}
    for check in checks:
        groups.setdefault(_group(check), Counter())[_outcome(check)] += 1
    outcomes = "passed", "failed", "not run"
    columns: list[Column] = [("checks", lambda group: group[0])]
    for outcome in outcomes:
        count = lambda group, outcome=outcome: str(group[1][outcome] or "")
        columns.append((outcome, count))
    return report.grid(columns, groups.items())


def _group(check: Result) -> str:
    if check["part"] != "laws":
        return check["part"]
    return f"laws, {check['name'].partition(':')[0]}"


def _outcome(check: Result) -> str:
    answer = check.get("answer")
    if answer is None:
        return "not run"
    return "failed" if "failed" in answer else "passed"


def _names(found: Result) -> list[str]:
    return [one.name for one in found["contestants"]]


def _times(found: Result | None, title: str, note: str) -> str:
    if not found or not found["cases"]:
        return ""
    rows, names = found["cases"], _names(found)
    return join(
        f"## {title}",
        note,
        f"{report.NOTE} {report.load(rows)}",
        *map(_below, report.mode_tables(rows, names, [report.TIME])),
        _below(report.agreement_table(rows, names, AGREEMENT_NOTE)),
    )


def _memory(found: Result | None) -> str:
    if not found or not found["cases"]:
        return ""
    rows, names = found["cases"], _names(found)
    time = dataclasses.replace(report.TIME, note=MEMORY_TIME_NOTE)
    measures = [*report.MEMORIES, report.PEAK, time]
    tables = report.measure_tables(rows, names, measures)
    return join("## Memory", MEMORY_NOTE, *map(_below, tables))


def _below(table: str) -> str:
    """The section, one level deeper."""
    return f"#{table}" if table else ""


def _not_run(result: Result) -> list[str]:
    """The checks, cases and contestants that did not run, and why."""
    late = [check for check in result["checks"] if _outcome(check) == "not run"]
    counts = Counter(map(_group, late))
    lines = [f"{name}, {n} of the checks: {TOO_LATE}" for name, n in counts.items()]
    for part in PARTS:
        found = result.get(part, {"cases": [], "todo": []})
        if found["cases"]:
            lines += _left_out(found)
        lines += [f"{part}, {case.name}: {TOO_LATE}" for case in found["todo"]]
    return lines


def _left_out(found: Result) -> list[str]:
    """The contestants that did not support a case, by reason."""
    return [line.removeprefix("- ") for line in report.left_out(found).splitlines()]
