"""`explain`: says which loop runs a cell, and what the loop saves for gradients."""

import dataclasses

import jax
from jax.tree_util import Partial

from .._base.errors import is_array
from .._base.math import is_float
from .._base.sharding import platform_of
from .._base.typing import Array, ArrayLike, DType, Lengths, PyTree, RNNCellLike
from .._hints import with_hints
from .._run.run_cell import ReadyRun, prepared, run_ready
from ..memory import Strategy
from .arguments import check_is_cell
from .dynamic_rnn import make_run
from .memory_plan import Bytes, as_text, saved_bytes, title_of


@dataclasses.dataclass(frozen=True)
class Explanation:
    """How `dynamic_rnn` runs a cell; `print` shows it as text.

    Attributes:
        title: The cell and the shape of the run.
        loop: The name of the loop; see `Choice.name`.
        reason: Why no faster loop runs; empty if none is faster.
        saved: The bytes that the forward pass saves for the backward pass, on the
            device and on the host, without the cell's arrays, the inputs and the
            initial state.
        platform: The platform of the program, such as "cpu".
    """

    title: str
    loop: str
    reason: str
    saved: Bytes
    platform: str

    def __str__(self) -> str:
        loop = f"{self.loop}, because {self.reason}" if self.reason else self.loop
        saved = as_text(self.saved.device)
        if self.saved.host:
            saved += f", and {as_text(self.saved.host)} on the host"
        return (
            f"{self.title}, on {self.platform}\n"
            f"  loop: {loop}\n"
            f"  saved for the backward pass: {saved}"
        )


@with_hints
def explain(
    cell: RNNCellLike,
    inputs: PyTree,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = False,
    *,
    resets: ArrayLike | None = None,
    reset_state: PyTree = None,
    implementation: str | None = None,
    mask: ArrayLike | None = None,
    return_states: bool = False,
) -> Explanation:
    """Prints and returns how `dynamic_rnn` runs a cell; nothing is run or compiled.

    Args:
        cell: As in `dynamic_rnn`, as are all other arguments. Every array may also be a
            `jax.ShapeDtypeStruct`.
        inputs: See `dynamic_rnn`.
        sequence_length: See `dynamic_rnn`.
        initial_state: See `dynamic_rnn`.
        dtype: See `dynamic_rnn`.
        parallel_iterations: See `dynamic_rnn`.
        swap_memory: See `dynamic_rnn`.
        time_major: See `dynamic_rnn`.
        resets: See `dynamic_rnn`.
        reset_state: See `dynamic_rnn`.
        implementation: See `dynamic_rnn`.
        mask: See `dynamic_rnn`.
        return_states: See `dynamic_rnn`.

    Returns:
        An `Explanation`.

    Raises:
        TypeError, ValueError: As in `dynamic_rnn`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(64)
        >>> step = jax.ShapeDtypeStruct((8, 16), jnp.float32)
        >>> params = jax.eval_shape(cell.init, jax.random.key(0), step)
        >>> x = jax.ShapeDtypeStruct((8, 100, 16), jnp.float32)
        >>> options = {"dtype": jnp.float32, "implementation": "xla"}
        >>> found = jaxrnn.explain(cell.bind(params), x, **options)
        LSTMCell(num_units=64, activation=tanh) over 100 steps of 8 rows, on cpu
          loop: xla, because `implementation` is 'xla'
          saved for the backward pass: 1.3 MiB

    Source: jaxrnn.
    """
    check_is_cell("cell", cell)
    make = Partial(
        make_run,
        cell,
        inputs,
        sequence_length=sequence_length,
        initial_state=initial_state,
        dtype=dtype,
        parallel_iterations=parallel_iterations,
        swap_memory=swap_memory,
        time_major=time_major,
        resets=resets,
        reset_state=reset_state,
        implementation=implementation,
        mask=mask,
        return_states=return_states,
    )
    found = _explain(make)
    print(found)
    return found


def _explain(make: Partial) -> Explanation:
    """The explanation of the run that `make` returns; arrays may be types."""
    leaves, structure = jax.tree.flatten(make)
    types = {
        i: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
        for i, x in enumerate(leaves)
        if is_array(x) or isinstance(x, jax.ShapeDtypeStruct)
    }
    runs: list[ReadyRun] = []

    def run_once(arrays: dict[int, Array]) -> list[Array]:
        given = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        make = structure.unflatten(given)
        run, options = make()
        runs.append(prepared(make.args[0], run, options))
        results = run_ready(runs[0], run.state, options)
        return [x for x in jax.tree.leaves(results) if is_float(x)]

    saved = saved_bytes(run_once, types)
    (ready,) = runs
    title = title_of(make.args[0], ready.run.inputs, ready.run.steps.axis)
    choice = ready.choice
    return Explanation(title, choice.name, choice.reason, saved, platform_of(leaves))
