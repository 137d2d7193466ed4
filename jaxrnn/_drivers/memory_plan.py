"""`memory_plan`: reports the memory that training needs under each strategy."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._base.arguments import check_instance
from .._base.errors import Verbatim, error_note, expect
from .._base.math import is_float
from .._base.typing import Array, PyTree, bound_or_none
from .._run.memory import Keep, Offload, Recompute, Strategy, as_strategy
from .arguments import check_is_cell
from .dynamic_rnn import dynamic_rnn
from .explain import Bytes, as_text, bytes_of, explain, types_of_arrays

_ON_DEVICE = (Keep(), Recompute(1), Recompute())
_USUAL = (*_ON_DEVICE, Offload(Keep()), Offload(), Offload(Recompute(64)))
_HEAD = ("strategy", "saved", "saved on host", "peak", "peak on host")
# XLA counts the bytes of an array with 64 bits, and aborts the process if the count
# overflows.
_MOST_BYTES = 2**60


@dataclasses.dataclass(frozen=True)
class PlannedStrategy:
    """The memory of a strategy.

    Attributes:
        strategy: The strategy.
        saved: The bytes that the forward pass saves for the backward pass.
            `saved.device` counts device memory, and `saved.host` host memory.
        peak: The bytes that the compiled program needs in addition to its arguments and
            results (the inputs, the parameters and the gradients of the parameters).
            `peak` includes `saved`. On a CPU, where host and device share one memory,
            all bytes count as device memory. On a TPU or GPU, `peak.device` is the
            smaller of two upper bounds from the compiler: `peak_memory_in_bytes`
            without the arguments and results, and the size of all temporary arrays.
            The second is smaller for strategies that store arrays on the host. A TPU's
            compiler rejects a program if peak, arguments and results together exceed
            the memory of the device. On a TPU, `peak` may exclude fast memory.
    """

    strategy: Strategy
    saved: Bytes
    peak: Bytes


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """A table of memory strategies; the `repr` is the table as text.

    Attributes:
        title: The cell and the shape of the run.
        rows: A `PlannedStrategy` for each strategy, in the given order. `row.strategy`
            is the strategy. `row.saved` are the bytes that the forward pass saves for
            the backward pass. `row.peak` are the bytes that the compiled program needs
            in addition to its arguments and results. `saved` and `peak` are pairs of
            ints, such as `peak.device` and `peak.host`. On a CPU, where host and device
            share one memory, all bytes of `peak` count as device memory.
        inputs: The size of the inputs in bytes.
        outputs: The size of the outputs in bytes.
        device: The kind of device that the programs are compiled for, in JAX's naming,
            such as "cpu" or "TPU v5 lite".
    """

    title: str
    rows: tuple[PlannedStrategy, ...]
    inputs: int
    outputs: int
    device: str = "cpu"

    def __repr__(self) -> str:
        texts = [
            [repr(row.strategy), *map(as_text, (*row.saved, *row.peak))]
            for row in self.rows
        ]
        columns = list(zip(_HEAD, *texts, strict=True))
        columns = [c for c in columns if set(c[1:]) != {"0"}]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join([name.ljust(widths[0]), *map(str.rjust, sizes, widths[1:])])
            for name, *sizes in zip(*columns, strict=True)
        ]
        sizes = f"inputs {as_text(self.inputs)}; outputs {as_text(self.outputs)}"
        sizes = f"In addition: {sizes} (doubled if the loss reads them)."
        last = f"Compiled for {self.device}; nothing was run."
        if self.device == "cpu":
            last = "On the CPU, host and device share one memory; peaks include both."
        line = "-" * len(lines[0])
        return "\n".join([self.title, "", lines[0], line, *lines[1:], "", sizes, last])


def memory_plan(
    cell: Any,
    inputs: PyTree,
    *args: object,
    strategies: Sequence[bool | Strategy] = _USUAL,
    device: Any = None,
    **options: object,
) -> MemoryPlan:
    """Reports the memory that training with `dynamic_rnn` needs under each strategy.

    For each strategy, the function compiles the gradient of a loss on the final state
    with respect to the parameters, for one device. Each program contains the loop that
    `dynamic_rnn` would run on that device by default. Each compilation takes a second
    or more. XLA then reports the memory of the compiled program; nothing is run.

    Args:
        cell: A bound cell. Bind a cell with dropout to a key, because its dropout masks
            are saved too. The parameters may also be `jax.ShapeDtypeStruct`s.
        inputs: As in `dynamic_rnn`. Every array may also be a `jax.ShapeDtypeStruct`.
        *args: More arguments of `dynamic_rnn`.
        strategies: A list of values of `swap_memory`. Default: `Keep()`, and several
            settings of `Recompute` and `Offload`.
        device: The device to compile for. Default: JAX's default device. A device from
            `jax.experimental.topologies` does not need to be present.
        **options: Arguments of `dynamic_rnn` by name, except `swap_memory`.

    Returns:
        A `MemoryPlan`. Print the plan for a table, or read the numbers in `plan.rows`.

    Raises:
        TypeError: If `cell` is not a bound cell, if `swap_memory` is given, if an entry
            of `strategies` is not a strategy, or if `device` is not a device; see also
            `dynamic_rnn`.
        ValueError: If a strategy needs more bytes than XLA can count; see also
            `dynamic_rnn`.
        jax.errors.JaxRuntimeError: If XLA rejects a program that exceeds the memory of
            the device. A note names the strategy, so that you can remove this strategy
            from `strategies`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cell = jaxrnn.LSTMCell(256)
        >>> step = jax.ShapeDtypeStruct((8, 256), jnp.float32)
        >>> params = jax.eval_shape(cell.init, jax.random.key(0), step)
        >>> x = jax.ShapeDtypeStruct((1000, 8, 256), jnp.float32)
        >>> plan = jaxrnn.memory_plan(
        ...     cell.bind(params), x, dtype=x.dtype, time_major=True
        ... )
        >>> plan.title
        'LSTMCell(num_units=256, activation=tanh) over 1000 steps of 8 rows'
        >>> round(plan.rows[0].saved.device, -7)  # To 10 MB.
        50000000
    """
    # `swap_memory` is the seventh argument of `dynamic_rnn`.
    is_given = "swap_memory" in options or len(args) > 4
    must, fix = "be given as `strategies`", "Pass a list, such as `strategies=[True]`."
    swap_memory = options["swap_memory"] if "swap_memory" in options else args[4:5]
    expect(not is_given, "swap_memory", must, swap_memory, fix, TypeError)
    device = jax.devices()[0] if device is None else device
    fix = "Pass one of `jax.devices()`, or a device of `jax.experimental.topologies`."
    check_instance("device", device, jax.Device, "a device", fix)
    what = "a list of strategies of `jaxrnn.memory`"
    check_instance("strategies", strategies or None, Sequence, what)
    planned = [
        as_strategy(f"strategies[{i}]", strategy, platform=device.platform)
        for i, strategy in enumerate(strategies)
    ]
    check_is_cell("cell", cell)
    must, fix = "have parameters", "Bind the parameters with `cell.bind(params)`."
    expect(bound_or_none(cell), "cell", must, cell, fix, TypeError)

    # Replace all arrays by their types. JAX compiles for the first device, unless the
    # types have a sharding on a mesh of another device.
    params, with_params = types_of_arrays(cell.params)
    others, with_others = types_of_arrays((inputs, args, options))
    if device != jax.devices()[0]:
        mesh = Mesh(np.asarray([device]), ("device",))
        whole = NamedSharding(mesh, PartitionSpec())
        params, others = jax.tree.map(
            lambda x: x.update(sharding=whole), (params, others)
        )

    def call(function: Callable, strategy: Strategy, params: list, others: list) -> Any:
        bound = dataclasses.replace(cell, params=with_params(params))
        inputs, args, options = with_others(others)
        return function(bound, inputs, *args, swap_memory=strategy, **options)

    def loss(strategy: Strategy, params: list, others: list) -> Array:
        state = call(dynamic_rnn, strategy, params, others)[1]
        floats = [x.real for x in jax.tree.leaves(state) if is_float(x)]
        return sum((jnp.sum(x.astype(jnp.float32)) for x in floats), jnp.float32(0))

    # Check the saved bytes before any program is compiled, because XLA aborts the
    # process if it cannot count the bytes of an array.
    found = [call(explain, strategy, params, others) for strategy in planned]
    largest = max(bytes_of((params, others)), *(sum(each.saved) for each in found))
    must = f"need at most {as_text(_MOST_BYTES)} of memory"
    expect(largest <= _MOST_BYTES, "inputs", must, Verbatim(as_text(largest)))
    rows = []
    for strategy, explained in zip(planned, found, strict=True):
        gradient = jax.grad(functools.partial(loss, strategy))
        with error_note(f"Raised while compiling with {strategy!r}."):
            program = jax.jit(gradient).lower(params, others).compile()
        peak = peak_bytes(program.memory_analysis(), device.platform)
        rows.append(PlannedStrategy(strategy, explained.saved, peak))
    run = functools.partial(call, dynamic_rnn, planned[0])
    outputs = jax.eval_shape(run, params, others)[0]
    return MemoryPlan(
        title=found[0].title,
        rows=tuple(rows),
        inputs=bytes_of(inputs),
        outputs=bytes_of(outputs),
        device=device.device_kind,
    )


def peak_bytes(memory: Any, platform: str) -> Bytes:
    """Returns the memory of a program in addition to its arguments and results.

    Compilers for TPUs and GPUs report the peak of arguments, results and temporary
    memory, including host memory. The temporary memory of the device is therefore at
    most this peak minus arguments and results. It is also at most the sum of all
    temporary arrays. This function returns the smaller number. On a CPU, it returns the
    sum, because the compiler reports no peak.

    Args:
        memory: The results of `memory_analysis` of the compiled program.
        platform: The platform of the program, such as "tpu".
    """
    device = memory.temp_size_in_bytes
    if platform != "cpu":
        around = memory.argument_size_in_bytes + memory.output_size_in_bytes
        device = min(device, memory.peak_memory_in_bytes - around)
    return Bytes(device, memory.host_temp_size_in_bytes)
