"""`explain`, which reports the loop that runs a cell, and the bytes that it saves."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from .._base.errors import counted, is_array
from .._base.hints import check_names
from .._base.math import in_native_order, is_float
from .._base.mesh import platform_of
from .._base.typing import Array, PyTree, Shaped
from .._run.arguments import divided_time_of, text_of
from .._run.memory import Strategy, as_strategy
from .._run.prepare import prepared
from .._run.run_cell import choose, results_of
from .dynamic_rnn import dynamic_rnn, given_to

_UNITS = {"EiB": 2**60, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


class Bytes(NamedTuple):
    """Bytes of device memory and of host memory."""

    device: int
    host: int


@dataclasses.dataclass(frozen=True)
class Explanation:
    """How `dynamic_rnn` runs a cell; the `repr` is a readable text.

    Attributes:
        title: The cell and the shape of the run.
        loop: The name of the loop, such as "xla"; see `Choice.name`.
        reason: Why no faster loop runs; empty if no loop is faster.
        saved: The bytes that the forward pass saves for the backward pass, except the
            cell's arrays, the inputs and the initial state. `saved.device` counts
            device memory, and `saved.host` host memory.
        platform: The platform of the program, such as "cpu".
        strategy: The memory strategy that `swap_memory` selects.
        part: The number of steps in each part, if the strategy divides the run into
            parts, as `Recompute` does. Otherwise, None.
    """

    title: str
    loop: str
    reason: str
    saved: Bytes
    platform: str
    strategy: Strategy
    part: int | None

    def __repr__(self) -> str:
        loop = f"{self.loop}, because {self.reason}" if self.reason else self.loop
        saved = as_text(self.saved.device)
        if self.saved.host:
            saved += f", and {as_text(self.saved.host)} on the host"
        parts = f", in parts of {counted(self.part, 'step')}" if self.part else ""
        return (
            f"{self.title}, on {self.platform}\n"
            f"  loop: {loop}\n"
            f"  memory strategy: {self.strategy!r}{parts}\n"
            f"  saved for the backward pass: {saved}"
        )


def explain(*args: object, **options: object) -> Explanation:
    """Reports how `dynamic_rnn` would run a cell, without running or compiling it.

    Args:
        *args: The arguments of `dynamic_rnn`. Every array may also be a
            `jax.ShapeDtypeStruct`.
        **options: More arguments of `dynamic_rnn`, by name. With `axis_name`, the
            result describes the run of one device over its own steps.

    Returns:
        An `Explanation`. Print it, or read its attributes.

    Raises:
        TypeError, ValueError: As in `dynamic_rnn`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(64)
        >>> step = jax.ShapeDtypeStruct((8, 16), jnp.float32)
        >>> params = jax.eval_shape(cell.init, jax.random.key(0), step)
        >>> x = jax.ShapeDtypeStruct((8, 100, 16), jnp.float32)
        >>> options = {"dtype": jnp.float32, "implementation": "xla"}
        >>> jaxrnn.explain(cell.bind(params), x, **options)
        LSTMCell(num_units=64, activation=tanh) over 100 steps of 8 rows, on cpu
          loop: xla, because `implementation` is 'xla'
          memory strategy: Keep()
          saved for the backward pass: 1.3 MiB

    Source: jaxrnn.
    """
    check_names(dynamic_rnn, args, options)
    call = inspect.signature(dynamic_rnn).bind(*args, **options)
    call.apply_defaults()
    del call.arguments["scope"]
    types, with_arrays = types_of_arrays(call.arguments)
    found = []

    def run(arrays: list[Array]) -> list[Array]:
        arguments = with_arrays(arrays)
        given = given_to(**arguments)
        if arguments["axis_name"] is not None:
            # Raises an error if the cell cannot run with divided time.
            divided_time_of(arguments["cell"], given.implementation)
        cell, run, gaps = prepared(arguments["cell"], given)
        choice = choose(cell, run, given.plan)
        found.append((given, choice))
        results = results_of(cell, run, choice, gaps, given)
        return [x for x in jax.tree.leaves(results) if is_float(x)]

    saved = saved_bytes(run, types)
    ((given, choice),) = found
    sizes = f"{counted(given.time, 'step')} of {counted(given.rows, 'row')}"
    platform = platform_of(types)
    swap_memory = call.arguments["swap_memory"]
    return Explanation(
        title=f"{text_of(call.arguments['cell'])} over {sizes}",
        loop=choice.name,
        reason=choice.reason,
        saved=saved,
        platform=platform,
        strategy=as_strategy("swap_memory", swap_memory, platform=platform),
        part=given.plan.part,
    )


def types_of_arrays(tree: PyTree) -> tuple[list[PyTree], Callable[[list], PyTree]]:
    """Returns the types of a nest's arrays, and a function that replaces the arrays.

    The function takes a list of arrays. It keeps other leaves, such as strings.
    """
    leaves, structure = jax.tree.flatten(in_native_order(tree))
    places = [
        i
        for i, leaf in enumerate(leaves)
        if is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    ]

    def type_of(x: Shaped) -> jax.ShapeDtypeStruct:
        # Without `jax_enable_x64`, JAX narrows 64-bit dtypes of NumPy arrays.
        dtype = x.dtype if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x).dtype
        sharding = getattr(x, "sharding", None)
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=sharding)

    def with_arrays(arrays: list) -> PyTree:
        at = dict(zip(places, arrays, strict=True))
        return structure.unflatten(at.get(i, leaf) for i, leaf in enumerate(leaves))

    return [type_of(leaves[i]) for i in places], with_arrays


def saved_bytes(loss: Callable, types: PyTree) -> Bytes:
    """Counts the bytes that `loss(arrays)` saves for its gradient, except `arrays`."""
    found = []

    def save(arrays: PyTree) -> None:
        residuals = {id(x): x for x in jax.tree.leaves(jax.vjp(loss, arrays)[1])}
        for array in jax.tree.leaves(arrays):
            residuals.pop(id(array), None)
        found.extend(map(jax.typeof, residuals.values()))

    jax.eval_shape(save, types)
    host = [x for x in found if x.memory_space == jax.memory.Space.Host]
    return Bytes(bytes_of(found) - bytes_of(host), bytes_of(host))


def bytes_of(types: PyTree) -> int:
    """The size in bytes of all arrays of a nest."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(types))


def as_text(count: int) -> str:
    """Formats a number of bytes, as in "1.3 MiB"."""
    for name, unit in _UNITS.items():
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return "0"
