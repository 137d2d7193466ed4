"""Chooses the loop of a matrix memory: chunks, a published kernel, or a scan."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._base.mesh import platform_of
from ..._base.typing import Array, Params, PyTree
from ..._cells.matrix.cell import MatrixMemoryCell
from ..._cells.matrix.memories import (
    ChosenLoopCell,
    DeltaMemoryCell,
    DPLRMemoryCell,
    LinearAttentionMemoryCell,
    MLSTMMemoryCell,
)
from ..._cells.matrix.rwkv6 import RWKV6MemoryCell
from ..._run import masking
from ..._run.loops import Loops, register
from ..._run.run import Choice, Run
from ..divided_time import DividedTime, Transition
from ..many_steps import choose_many_steps, scanned_without_derivatives
from .chunk import Chunk
from .published_kernels import PACKAGES, choose_kernel
from .rules import chunk_of, transition_of_rule
from .sequence import MemoryLoop, finite_rows


class Tuning(NamedTuple):
    """The chunk sizes of a memory, and the sizes up to which a scan is faster.

    The values for CPUs were measured. On a CPU, a scan of a small memory is up to three
    times as fast as chunks, but only if the call is not differentiated. A memory is
    small if its heads or its whole state are small.

    Attributes:
        cpu_chunk: The number of steps in a chunk on a CPU.
        cpu_chunk_of_large: The number of steps in a chunk on a CPU if key size times
            value size exceeds 64 x 64.
        device_chunk: The number of steps in a chunk on other devices. The compiler of a
            TPU v5e estimates that chunks of 64 steps need 25 to 33 % fewer cycles than
            chunks of 32.
        small_head: The largest key size times value size of a small head.
        small_state: The largest total size of a small state, over all rows and heads.
    """

    cpu_chunk: int
    cpu_chunk_of_large: int
    device_chunk: int
    small_head: int
    small_state: int


# The key is the class of a cell, and whether each key has its own decay.
_TUNING = {
    (LinearAttentionMemoryCell, False): Tuning(32, 64, 64, 16**2, 2**10),
    (LinearAttentionMemoryCell, True): Tuning(16, 16, 16, 128**2, 2**13),
    (DeltaMemoryCell, False): Tuning(32, 64, 64, 32**2, 2**13),
    (DeltaMemoryCell, True): Tuning(16, 16, 16, 64**2, 2**17),
    (DPLRMemoryCell, False): Tuning(16, 16, 16, 256**2, 2**13),
    (RWKV6MemoryCell, False): Tuning(16, 16, 16, 32**2, 2**15),
    (MLSTMMemoryCell, False): Tuning(32, 64, 64, 16**2, 0),
}


def _tuning_of(cell: Any) -> Tuning:
    return _TUNING[type(cell), getattr(cell, "key_decay", False)]


def choose(cell: MatrixMemoryCell, params: Params, run: Run) -> Choice:
    """Chooses a loop over chunks of steps."""
    rule = cell.rule
    if run.implementation in PACKAGES:
        return choose_kernel(cell, params, run)
    if chunk_of(rule) is None:
        return Choice.scan(f"{type(rule).__name__} has no method `chunk`")
    choice = choose_many_steps("chunks", cell, memory_loop(cell).run, run)
    if isinstance(cell, ChosenLoopCell):
        return _scan_if_small(cell, choice, run)
    return choice


def _scan_if_small(cell: ChosenLoopCell, choice: Choice, run: Run) -> Choice:
    """Chooses a scan for calls without derivatives if the memory is small."""
    tuning = _tuning_of(cell)
    size = cell.key_size * cell.value_size
    rows = run.inputs[0].shape[1 - run.steps.axis]
    entries = rows * cell.num_heads * size
    is_small = isinstance(rows, int) and entries <= tuning.small_state
    if cell.chunk_size is None and (is_small or size <= tuning.small_head):
        return scanned_without_derivatives(choice, cell, cell.rule.stored, run)
    return choice


def steps_at_once(cell: Any, run: Run) -> int:
    """The largest number of steps in a chunk of `run`, from the types of its arrays."""
    if cell.chunk_size is None:
        tuning = _tuning_of(cell)
        if platform_of(run.inputs) != "cpu":
            return tuning.device_chunk
        is_large = cell.key_size * cell.value_size > 64**2
        return tuning.cpu_chunk_of_large if is_large else tuning.cpu_chunk
    return cell.chunk_size


def memory_loop(cell: MatrixMemoryCell) -> MemoryLoop:
    """Returns the loop that runs whole sequences of a cell in chunks."""
    rule: Any = cell.rule
    chunk: Any = chunk_of(rule)
    return MemoryLoop(
        rule=rule,
        project=cell.project,
        step=rule.step,
        chunk=chunk,
        output=cell.output,
        largest=functools.partial(steps_at_once, cell),
    )


def transition(cell: MatrixMemoryCell) -> Transition | None:
    """Returns the functions of the state map of the cell's rule, or None."""
    rule = cell.rule
    found = transition_of_rule(rule)
    if found is None:
        return None
    chunk, identity, constant, map_finite = found

    def step(values: PyTree, state: PyTree) -> tuple[Array, PyTree]:
        add_time = lambda tree: jax.tree.map(lambda x: x[:, :, None], tree)
        reads = jnp.ones((1, 1, 1, 1), bool)
        results = chunk(Chunk(add_time(values), add_time(state), reads))
        return jax.tree.map(lambda x: x[:, :, 0], results)

    def map_of_steps(params: Params, run: Run) -> PyTree:
        no_output = lambda params, h, rest: None
        loop = dataclasses.replace(
            memory_loop(cell), step=step, chunk=chunk, output=no_output
        )
        return loop.run_wide(params, run)[1]

    def map_state(*given: PyTree) -> PyTree:
        # Rows that are not finite get no derivative. Otherwise, 0 * NaN would make the
        # gradients of other parts NaN.
        found = jax.lax.stop_gradient(map_finite(*given))
        is_finite = finite_rows(found)
        mapped = map_finite(*masking.zero_unless(is_finite, given))
        return masking.select(is_finite, mapped, found)

    return Transition(map_of_steps, identity, constant, map_state, rule.stored)


register(MatrixMemoryCell, Loops(choose, DividedTime(transition)))
