"""`memory_plan`: reports the memory of each memory strategy."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._base.arguments import as_bool, as_count, as_dtype, check_instance
from .._base.errors import Verbatim, counted, error_note, expect
from .._base.inputs import named_inputs
from .._base.math import is_float, widest_dtype
from .._base.trees import map_named, without_read_only
from .._base.typing import Array, DType, Params, PyTree, RNNCellLike, bound_or_none
from .._hints import with_hints
from .._run.arguments import text_of
from .._run.first_step import call_start, one_step, zero_state
from .._run.masking import first_inputs
from ..memory import Keep, Offload, Recompute, Strategy, as_strategy
from .arguments import check_is_unbound_cell
from .dynamic_rnn import dynamic_rnn

_ON_DEVICE = (Keep(), Recompute(1), Recompute())
_USUAL = (*_ON_DEVICE, Offload(Keep()), Offload(), Offload(Recompute(64)))
_HEAD = ("strategy", "saved", "saved on host", "peak", "peak on host")
# XLA counts the bytes of an array with 64 bits, and ends the process if the count
# overflows.
_MOST_BYTES = 2**60
_UNITS = {"EiB": 2**60, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


class Bytes(NamedTuple):
    """Bytes of device memory and of host memory."""

    device: int
    host: int


@dataclasses.dataclass(frozen=True)
class PlannedStrategy:
    """The memory of a strategy.

    Attributes:
        strategy: The strategy.
        saved: The bytes that the forward pass saves for the backward pass.
        peak: Bytes that the compiled program needs in addition to its arguments and
            results (the inputs, the parameters and the gradients of the parameters).
            These bytes include the saved bytes. On a CPU, where host and device share
            one memory, all bytes count as device memory. On a TPU or GPU, the number is
            the compiler's `peak_memory_in_bytes` without the arguments and results, or
            the size of all temporary arrays, whichever is less; the size of temporary
            arrays is less for strategies that store arrays on the host. A TPU's
            compiler rejects programs for which the sum of peak, arguments and results
            exceeds the memory of the device. On a TPU, the number may leave out fast
            memory.
    """

    strategy: Strategy
    saved: Bytes
    peak: Bytes


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """A printable table of memory strategies.

    Attributes:
        title: The cell and the shape of the run.
        rows: A `PlannedStrategy` for each strategy, in the given order.
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

    def __str__(self) -> str:
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


def as_text(count: int) -> str:
    for name, unit in _UNITS.items():
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return "0"


@with_hints
def memory_plan(
    cell: Any,
    inputs_shape: Sequence[int] | PyTree,
    strategies: Sequence[bool | Strategy] = _USUAL,
    *,
    dtype: DType | None = None,
    time_major: bool = False,
    device: Any = None,
) -> MemoryPlan:
    """Reports the memory that training with `dynamic_rnn` needs under each strategy.

    For each strategy, the function compiles the gradient of a loss on the final state
    with respect to the parameters, for one device and for sequences without lengths.
    Each program contains the loop that `dynamic_rnn` would run on that device by
    default. Each compilation takes a second or more. XLA then reports the memory of the
    compiled program; nothing is run.

    Args:
        cell: A cell, bound or unbound. Bind a cell with dropout to a key, because its
            dropout masks are saved too.
        inputs_shape: The shape of the inputs, `[batch, time, depth]`, or
            `[time, batch, depth]` if `time_major`; or a nest of shapes, arrays and
            `jax.ShapeDtypeStruct`s.
        strategies: A list of values of `swap_memory`.
        dtype: The dtype of the zero state, and of inputs that are given as a shape. If
            None, the widest real or complex dtype of the inputs, else float32. If a
            step changes a dtype of the zero state, such as to complex, the state starts
            with the new dtype.
        time_major: Whether time is the first axis.
        device: The device to compile for. None for JAX's default device. A device from
            `jax.experimental.topologies` does not need to be present.

    Returns:
        A `MemoryPlan`. Print the plan for a table, or read the numbers in `plan.rows`.

    Raises:
        TypeError: If `cell` is not a cell, if a size is not an integer, if an entry of
            `strategies` is not a strategy, or if `device` is not a device.
        ValueError: If `inputs_shape` has rank less than 3, or if a size or the memory
            of a strategy exceeds what XLA can count.
        jax.errors.JaxRuntimeError: If XLA rejects a program that exceeds the memory of
            the device. A note names the strategy, so that you can remove this strategy
            from `strategies`.

    Example:
        >>> import jaxrnn
        >>> cell, shape = jaxrnn.LSTMCell(256), (1000, 8, 256)
        >>> plan = jaxrnn.memory_plan(cell, shape, time_major=True)
        >>> plan.title
        'LSTMCell(num_units=256, activation=tanh) over 1000 steps of 8 rows, float32'
        >>> round(plan.rows[0].saved.device, -7)  # To 10 MB.
        50000000
    """
    axis = 0 if as_bool("time_major", time_major) else 1
    device = jax.devices()[0] if device is None else device
    fix = "Pass one of `jax.devices()`, or a device of `jax.experimental.topologies`."
    check_instance("device", device, jax.Device, "a device", fix)
    what = "a list of strategies of `jaxrnn.memory`"
    check_instance("strategies", strategies, Sequence, what)
    planned = [
        as_strategy(f"strategies[{i}]", strategy, platform=device.platform)
        for i, strategy in enumerate(strategies)
    ]
    dtype = None if dtype is None else as_dtype(dtype)
    inputs = _as_inputs(inputs_shape, jnp.float32 if dtype is None else dtype)
    if dtype is None:
        floats = [leaf for leaf in jax.tree.leaves(inputs) if is_float(leaf)]
        dtype = widest_dtype(floats) if floats else jnp.dtype(jnp.float32)
    cell = _bound(cell, inputs, dtype, axis)

    state = _other_state(cell, inputs, dtype, axis)

    def run(params: Params, inputs: PyTree, **options: Any) -> tuple[PyTree, ...]:
        bound = dataclasses.replace(cell, params=params)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
        options |= {"dtype": dtype, "time_major": time_major}
        return dynamic_rnn(bound, inputs, initial_state=zeros, **options)

    outputs, _ = jax.eval_shape(run, cell.params, inputs)
    rows = _rows(run, (cell.params, inputs), planned, device)
    title = f"{title_of(cell, inputs, axis)}, {dtype}"
    kind = device.device_kind
    title = title if kind == "cpu" else f"{title}, on {kind}"
    return MemoryPlan(title, rows, _bytes(inputs), _bytes(outputs), kind)


def title_of(cell: Any, inputs: PyTree, axis: int) -> str:
    """The cell and the sizes of a run; `axis` is the time axis of the inputs."""
    shape = jax.tree.leaves(inputs)[0].shape
    sizes = f"{counted(shape[axis], 'step')} of {counted(shape[1 - axis], 'row')}"
    return f"{text_of(cell)} over {sizes}"


def _as_inputs(shapes: Sequence[int] | PyTree, dtype: DType) -> PyTree:
    """The inputs as `jax.ShapeDtypeStruct`s; shapes get the dtype `dtype`."""

    def is_shape(value: object) -> bool:
        is_sequence = isinstance(value, tuple | list)
        return is_sequence and all(isinstance(n, numbers.Number | None) for n in value)

    def as_struct(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        shape = leaf if is_shape(leaf) else getattr(leaf, "shape", ())
        must = "be an array or a shape with at least 3 axes, [batch, time, depth]"
        expect(len(shape) >= 3, name, must, leaf)
        sizes = [as_count(f"{name}[{i}]", n, fix="") for i, n in enumerate(shape)]
        return jax.ShapeDtypeStruct(sizes, getattr(leaf, "dtype", dtype))

    inputs = map_named("inputs_shape", as_struct, shapes, is_shape)
    named_inputs(inputs, name="inputs_shape")
    return inputs


def _bound(cell: Any, inputs: PyTree, dtype: DType, axis: int) -> Any:
    """Binds an unbound cell to the types of new parameters; keeps a bound cell."""
    if bound_or_none(cell):
        return cell
    check_is_unbound_cell("cell", cell)

    def bind(inputs: PyTree) -> RNNCellLike:
        step = first_inputs(inputs, axis)
        return cell.bind(cell.init(jax.random.key(0), step, dtype))

    return jax.eval_shape(bind, inputs)


def _other_state(cell: Any, inputs: PyTree, dtype: DType, axis: int) -> PyTree:
    """The types of the state after a step from zeros if dtypes differ, otherwise None.

    For example, the state becomes complex although inputs and outputs are real.
    """

    def states(cell: Any, inputs: PyTree) -> tuple[PyTree, PyTree]:
        step = first_inputs(inputs, axis)
        state = zero_state(cell, jax.tree.leaves(step)[0].shape[0], dtype)
        started = call_start(cell, state)
        return without_read_only((state, one_step(cell, step, started)[1]))

    state, new_state = jax.eval_shape(states, cell, inputs)
    dtypes = [[x.dtype for x in jax.tree.leaves(s)] for s in (state, new_state)]
    return None if dtypes[0] == dtypes[1] else new_state


def _put(types: PyTree, device: Any) -> PyTree:
    """Puts types on a mesh of one device, which selects the platform of the program."""
    if device == jax.devices()[0]:
        return types  # JAX compiles for this device anyway.
    mesh = Mesh(np.asarray([device]), ("device",))
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), types
    )


def _rows(
    run: Callable,
    types: tuple[Params, PyTree],
    strategies: list[Strategy],
    device: Any,
) -> tuple[PlannedStrategy, ...]:
    """Compiles the gradient with each strategy, and reads the compiler's figures."""
    args = _put(types, device)
    losses = [functools.partial(_loss, run, strategy) for strategy in strategies]
    saved = [saved_bytes(loss, *args) for loss in losses]
    largest = max(_bytes(args), *map(sum, saved))
    must = f"need at most {as_text(_MOST_BYTES)} of memory"
    expect(largest <= _MOST_BYTES, "inputs_shape", must, Verbatim(as_text(largest)))
    rows = []
    for strategy, loss, of_loss in zip(strategies, losses, saved, strict=True):
        gradient = jax.grad(loss)
        with error_note(f"Raised while compiling with {strategy!r}."):
            program = jax.jit(gradient).lower(*args).compile()
        peak = peak_bytes(program.memory_analysis(), device.platform)
        rows.append(PlannedStrategy(strategy, of_loss, peak))
    return tuple(rows)


def _loss(run: Callable, strategy: Strategy, params: Params, inputs: PyTree) -> Array:
    """A loss on the final state."""
    _, state = run(params, inputs, swap_memory=strategy)
    floats = [x.real for x in jax.tree.leaves(state) if is_float(x)]
    return sum((jnp.sum(x.astype(jnp.float32)) for x in floats), jnp.float32(0))


def peak_bytes(memory: Any, platform: str) -> Bytes:
    """The memory of a program in addition to its arguments and results.

    Compilers for TPUs and GPUs report the peak of arguments, results and temporary
    memory, which a TPU's compiler compares with the memory of the device. This peak
    also counts host memory. So the peak without arguments and results, and the sum of
    all temporary arrays, are both upper bounds of the temporary memory of the device;
    the smaller one is returned. A CPU's compiler reports only this sum.

    Args:
        memory: The results of `memory_analysis` of the compiled program.
        platform: The platform of the program, such as "tpu".
    """
    device = memory.temp_size_in_bytes
    if platform != "cpu":
        around = memory.argument_size_in_bytes + memory.output_size_in_bytes
        device = min(device, memory.peak_memory_in_bytes - around)
    return Bytes(device, memory.host_temp_size_in_bytes)


def saved_bytes(loss: Callable, *args: PyTree) -> Bytes:
    """Returns the bytes that are saved for the backward pass, except the arguments."""
    found = []

    def save(*args: PyTree) -> None:
        residuals = {id(x): x for x in jax.tree.leaves(jax.vjp(loss, *args)[1])}
        for argument in jax.tree.leaves(args):
            residuals.pop(id(argument), None)
        found.extend(map(jax.typeof, residuals.values()))

    jax.eval_shape(save, *args)
    host = [x for x in found if x.memory_space == jax.memory.Space.Host]
    return Bytes(_bytes(found) - _bytes(host), _bytes(host))


def _bytes(arrays: PyTree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arrays))
