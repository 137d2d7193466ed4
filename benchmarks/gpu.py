"""Checks and times jaxrnn on this machine's GPU: the first program to run on one.

    python -m benchmarks gpu --out gpu.md

It needs JAX with CUDA, and nothing else; Flax is also timed if it is installed.
"""

import argparse
import datetime
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.memory import Keep, Offload, Recompute

from . import cases, report
from .machine import commit, describe
from .peers import ROOT
from .rounds import run_case
from .worker import Worker

Tree = Any

BATCH, STEPS, SIZE = 4, 100, 8  # Of the checks: more steps than a chunk of any loop.
LENGTHS = np.array([STEPS, 0, 37, 64], np.int32)
RESETS = np.random.default_rng(1).random((BATCH, STEPS)) < 0.05
TOLERANCE = 1e-4  # Of an array's largest value, in float32 without TF32.
TF32_TOLERANCE = 2e-2  # The programs that are timed may multiply in TF32.
SAME, OTHER = {"same": True}, "other results than the first contestant's"
SIMPLE = "BasicRNN GRU CudnnCompatibleGRU LSTM SLSTM ShortConv MinGRU LRU RGLRU".split()
LSTM = jaxrnn.LSTMCell(SIZE)
MEMORIES = "LinearAttention Delta DPLR".split()
CELLS = [
    *(getattr(jaxrnn, f"{name}Cell")(SIZE) for name in SIMPLE),
    jaxrnn.LSTMCell(SIZE, use_peepholes=True, num_proj=4),
    jaxrnn.MultiRNNCell([LSTM, jaxrnn.GRUCell(SIZE)]),
    jaxrnn.MLSTMCell(SIZE, num_heads=2),
    jaxrnn.S6MemoryCell(SIZE, 4),
    *(getattr(jaxrnn, f"{name}MemoryCell")(2, 4, 4) for name in MEMORIES),
]
STRATEGIES = Keep(), Recompute(1), Recompute(), Offload(Keep()), Offload(Recompute(16))
# What a memory's inputs must be: small keys, decays, steps and rates.
LIMITS = {"g": lambda g: -abs(g), "dt": abs, "beta": lambda x: 1 / (1 + x**2)}
LIMITS |= dict.fromkeys("kab", lambda x: x / 4)
NOTE = "Distance to a scan on the CPU, relative to the largest value of the array."


def make_inputs(cell: Any) -> Tree:
    """Random inputs `[BATCH, STEPS, ...]`."""
    rng = np.random.default_rng(0)
    draw = lambda *size: rng.normal(size=(BATCH, STEPS, *size)).astype(np.float32)
    if not hasattr(cell, "input_sizes"):
        return draw(SIZE)
    sizes = cell.input_sizes._asdict().items()
    parts = {name: LIMITS.get(name, np.array)(draw(*size)) for name, size in sizes}
    return type(cell.input_sizes)(**parts)


def scan(cell, params, x, sequence_length=STEPS, resets=False) -> Tree:
    """What `dynamic_rnn` must return, as a scan of the cell's step."""
    zeros = cell.zero_state(BATCH, jnp.float32)
    ends = jnp.broadcast_to(sequence_length, BATCH)

    def where(rows: jax.Array, new: Tree, old: Tree) -> Tree:
        select = lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        return jax.tree.map(select, new, old)

    def step(state: Tree, now: Tree) -> tuple[Tree, Tree]:
        t, x, start = now
        state = where(start & (t < ends), zeros, state)
        output, new = cell.apply(params, x, state)
        return where(t < ends, new, state), where(t < ends, output, 0 * output)

    swap = functools.partial(jax.tree.map, lambda x: jnp.swapaxes(x, 0, 1))
    starts = jnp.broadcast_to(resets, (BATCH, STEPS)).T
    state, outputs = jax.lax.scan(step, zeros, (jnp.arange(STEPS), swap(x), starts))
    return swap(outputs), state


def dynamic(cell, params, x, **options) -> Tree:
    """`dynamic_rnn`."""
    return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32, **options)


def both_ways(cell, params, x) -> Tree:
    """`bidirectional_dynamic_rnn` with one cell for both directions."""
    bound, run = cell.bind(params), jaxrnn.bidirectional_dynamic_rnn
    return run(bound, bound, x, LENGTHS, dtype=x.dtype)


def raw(cell, params, x) -> Tree:
    """`raw_rnn`, which stops each row at its length."""
    steps = jaxrnn.TensorArray(x.dtype, STEPS).unstack(jnp.swapaxes(x, 0, 1))

    def loop_fn(t: Any, output: Any, state: Tree, _: Any) -> tuple:
        state = cell.zero_state(BATCH, x.dtype) if output is None else state
        now = steps.read(jnp.minimum(t, STEPS - 1))
        return t >= LENGTHS, now, state, output, None

    emitted, state, _ = jaxrnn.raw_rnn(cell.bind(params), loop_fn, max_time=STEPS)
    return jnp.swapaxes(emitted.stack(), 0, 1), state


def checks() -> Iterator[tuple[str, Any, Callable, Callable]]:
    """The name of each check, its cell, what it runs, and what that must equal."""
    options = {"sequence_length": LENGTHS, "resets": RESETS}
    for cell in CELLS:
        run, hand = (functools.partial(f, **options) for f in (dynamic, scan))
        yield str(cell), cell, run, hand
    for strategy in STRATEGIES:
        run = functools.partial(dynamic, swap_memory=strategy)
        yield f"swap_memory={strategy}", LSTM, run, scan
    yield "bidirectional_dynamic_rnn", LSTM, both_ways, both_ways
    yield "raw_rnn", LSTM, raw, functools.partial(scan, sequence_length=LENGTHS)


def check(cell: Any, run: Callable, hand: Callable) -> float:
    """How far the results and gradients of `run` are from those of `hand`; see NOTE."""
    x = make_inputs(cell)
    params = cell.init(jax.random.key(0), jax.tree.map(lambda x: x[:, 0], x))

    def results(function: Callable, device: jax.Device) -> list[np.ndarray]:
        def loss(*args: Tree) -> tuple[jax.Array, Tree]:
            found = function(cell, *args)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(found)), found

        program = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            found = program(*jax.device_put((params, x), device))
        return jax.tree.leaves(jax.device_get(found))

    found = results(run, jax.devices()[0]), results(hand, jax.devices("cpu")[0])
    far = np.max([abs(a - b).max() / abs(b).max() for a, b in zip(*found, strict=True)])
    if not far <= TOLERANCE:
        raise ValueError(f"the results deviate by {far:.0e}")
    return far


def races(small: bool) -> Iterator[tuple[str, list[tuple], list[cases.Case]]]:
    """The title, the contestants (name, peer, run) and the cases of each table."""
    layer = (3, 8, 4, 5) if small else (64, 256, 256, 512)
    long = (2, 128, 4, 8) if small else (8, 2048, 512, 512)
    dtypes = "float32" + " bfloat16" * (not small)
    make = functools.partial(cases.make_cases, dtypes=dtypes)
    ours, flax = ("jaxrnn", "jaxrnn", ""), importlib.util.find_spec("flax")
    peers = [ours, ("scan", "scan", ""), *[("Flax", "linen", "")] * bool(flax)]
    yield "Layers", peers, make("lstm gru_after", layer)
    peers = [ours, ("scan", "recurrences", "scan")]
    yield "Memories and recurrences", peers, make("mlstm gated_delta mingru", long)
    runs = "Keep()", "Recompute()", "Offload(Keep())"
    yield "`swap_memory`", [(run, "jaxrnn", run) for run in runs], make("lstm", layer)


def parts(small: bool, failed: list[str]) -> Iterator[str]:
    """The sections of the page. What fails is added to the list."""
    lines = ["| check | deviation |", "|---|--:|"]
    for name, *of_check in list(checks())[:: 5 if small else 1]:
        print("checking", name, file=sys.stderr)
        try:
            lines.append(f"| {name} | {check(*of_check):.0e} |")
        except Exception as error:
            failed.append(report.shortened(f"{name}: {type(error).__name__}: {error}"))
    yield report.section("Checks", NOTE, "\n".join(lines))
    options = {"rounds": {"time": 1 if small else 5}}
    for title, peers, of_race in races(small):
        workers = {name: Worker(*peer, str(ROOT)) for name, *peer in peers}
        rows = []
        for case in of_race:
            print("measuring", case.name, file=sys.stderr)
            tolerance = TF32_TOLERANCE if case.dtype == "float32" else np.inf
            rows.append(run_case(case, workers, tolerance=tolerance, **options))
            for name, result in rows[-1]["peers"].items():
                if "failed" in result or not result.get("agreement", SAME)["same"]:
                    failed.append(f"{name}, {case.name}: {result.get('failed', OTHER)}")
        tables = report.mode_tables(rows, [*workers], [report.TIME])
        tables += report.measure_tables(rows, [*workers], [report.MEMORY])
        yield report.join(f"# {title}", *tables)


def run(options: argparse.Namespace) -> int:
    """Run all parts, write the page after each, and return 1 if something failed."""
    device, failed = jax.devices()[0], []
    if device.platform != "gpu" and not options.small:
        raise SystemExit(f"No GPU, only {device}: `pip install 'jax[cuda12]'`.")
    facts = {"commit": commit(ROOT), "jax": jax.__version__} | describe()
    facts |= {"date": datetime.date.today(), "device": device.device_kind}
    done = ["# jaxrnn on a GPU", report.listed(facts, ": ", "; "), ""]
    for part in parts(options.small, failed):
        verdict = [f"**{len(failed)} failed.**" if failed else "**Nothing failed.**"]
        done[2:] = ["\n- ".join(verdict + failed), *done[3:], part]
        if options.out:
            options.out.write_text(report.join(*done) + "\n")
    print(report.join(*done))
    return 1 if failed else 0
