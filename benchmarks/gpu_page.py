"""The page that `gpu.py` writes, and what failed."""

from collections import Counter
from typing import Any

from . import report
from .report import join, section

Result = dict[str, Any]

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
LATE, TOO_LATE = "not run", "no time was left"
KERNELS_NOTE = (
    "`jaxrnn` runs a matrix memory in chunks, and `jla` in the kernels of the package "
    "`jax-linear-attention`, which need a Hopper GPU and JAX 0.11.2."
)
MEMORY_NOTE = "Strategies of `swap_memory`. Each has its own process."
# By part: the title, the note, and the measures beside the time.
PARTS = {
    "times": ("Time", TIMES_NOTE, []),
    "loops": ("Loops", LOOPS_NOTE, []),
    "kernels": ("Published kernels", KERNELS_NOTE, []),
    "memory": ("Memory", MEMORY_NOTE, [*report.MEMORIES, report.PEAK]),
}
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
            *(_race(part, race) for part, race in result["races"].items()),
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
    for race in result["races"].values():
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
    for race in result["races"].values():
        versions |= race["versions"]
    facts = result["facts"] | {
        "machine": report.listed(result["machine"], ": ", "; "),
        "versions": report.listed(dict(sorted(versions.items())), " ", ", "),
    }
    return _listed([f"{name}: {fact}" for name, fact in facts.items()])


def _checks(checks: list[Result]) -> str:
    """The number of checks of each group by outcome."""
    counts = Counter((_group(check), _outcome(check)) for check in checks)
    columns = [("checks", str)] + [
        (outcome, lambda group, outcome=outcome: str(counts[group, outcome] or ""))
        for outcome in ("passed", "failed", LATE)
    ]
    return report.grid(columns, list(dict.fromkeys(map(_group, checks))))


def _group(check: Result) -> str:
    if check["part"] != "laws":
        return check["part"]
    return f"laws, {check['name'].partition(':')[0]}"


def _outcome(check: Result) -> str:
    if "answer" not in check:
        return LATE
    return "failed" if "failed" in check["answer"] else "passed"


def _race(part: str, race: Result) -> str:
    """The tables of a part, below its title."""
    rows, names, (title, note, measures) = race["cases"], race["names"], PARTS[part]
    if not rows:
        return ""
    tables = [
        *report.mode_tables(rows, names, [report.TIME]),
        *report.measure_tables(rows, names, measures),
        report.agreement_table(rows, names, AGREEMENT_NOTE),
    ]
    below = [f"#{table}" for table in tables if table]
    return join(f"## {title}", note, f"{report.NOTE} {report.load(rows)}", *below)


def _not_run(result: Result) -> list[str]:
    """The checks, cases and contestants that did not run, and why."""
    late = Counter(_group(one) for one in result["checks"] if _outcome(one) == LATE)
    lines = [f"{name}, {n} of the checks: {TOO_LATE}" for name, n in late.items()]
    for part, race in result["races"].items():
        if race["cases"]:
            found = report.left_out(race).splitlines()
            lines += [line.removeprefix("- ") for line in found]
        lines += [f"{part}, {case.name}: {TOO_LATE}" for case in race["todo"]]
    return lines
