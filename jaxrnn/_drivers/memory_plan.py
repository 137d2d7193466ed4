"""`memory_plan`: reports the memory and the extra work of each memory strategy."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._base.arguments import as_count, as_dtype, check_instance, check_time_major
from .._base.errors import InvalidType, InvalidValue, describe, error_note
from .._base.math import is_float, widest_dtype
from .._base.trees import map_named
from .._base.typing import DType, Params, PyTree
from .._loops.masking import first_inputs
from .._loops.segments import RESIDUALS
from ..memory import Keep, Nested, Offload, Recompute, Strategy
from ..memory._strategy import as_strategy, plan_of
from .absent_devices import KINDS, absent_devices
from .dynamic_rnn import dynamic_rnn

_ON_DEVICE = (Keep(), Recompute(1), Recompute(), Nested())
_USUAL = (*_ON_DEVICE, Offload(Keep()), Offload(), Offload(Recompute(64)))
_HEAD = ("strategy", "saved", "saved on host", "peak", "peak on host", "extra FLOPs")
_PEAK_ON_HOST = _HEAD.index("peak on host")
_ON_CPU = "On the CPU, host and device share one memory; peaks include both."
# XLA counts the bytes of an array in 64 bits; a larger array would end the process.
_MOST_BYTES = 2**60
_UNITS = ((2**60, "EiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


class Bytes(NamedTuple):
    """Bytes of device memory and of host memory."""

    device: int
    host: int


@dataclasses.dataclass(frozen=True)
class PlannedStrategy:
    """The memory and the extra work of a strategy.

    Attributes:
        strategy: The strategy.
        saved: Bytes that are saved between the forward and the backward pass.
        peak: Bytes that the compiled program needs in addition to its arguments and
            results. These bytes include the saved bytes. On a CPU, where host and
            device share one memory, all bytes count as device memory. A TPU's fast
            memory is not counted.
        extra_flops: The number of floating-point operations in recomputed steps, as
            counted by XLA on JAX's default backend.
        extra_share: `extra_flops` divided by the number of operations in training
            without recomputation, where a backward pass counts as two forward passes.
    """

    strategy: Strategy
    saved: Bytes
    peak: Bytes
    extra_flops: int
    extra_share: float


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
        table, last = [_HEAD, *map(_texts, self.rows)], _ON_CPU
        if self.device == "cpu":
            table = [row[:_PEAK_ON_HOST] + row[_PEAK_ON_HOST + 1 :] for row in table]
        else:
            last = f"Compiled for {self.device}; nothing was run."
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        first, *rest = (
            "  ".join([name.ljust(widths[0]), *map(str.rjust, row, widths[1:])])
            for name, *row in table
        )
        sizes = f"inputs {_size(self.inputs)}; outputs {_size(self.outputs)}"
        beside = f"In addition: {sizes}, twice that if the loss reads them."
        lines = [self.title, "", first, "-" * len(first), *rest, "", beside, last]
        return "\n".join(lines)


def _texts(row: PlannedStrategy) -> tuple[str, ...]:
    sizes = *row.saved, *row.peak
    extra = f"{row.extra_flops / 1e9:.1f} G, {row.extra_share:.0%}"
    return repr(row.strategy), *map(_size, sizes), extra if row.extra_flops else "none"


def _size(count: int) -> str:
    unit, name = next((u, n) for u, n in _UNITS if count >= u or u == 1)
    return f"{count / unit:.1f} {name}" if count else "0"


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

    For each strategy, the function compiles a gradient for one device, which takes a
    second or more. This is the gradient of a loss on the final state with respect to
    the parameters, for sequences without lengths. XLA then reports the memory of the
    compiled program; nothing is run. The number of extra operations is computed from
    XLA's count for one step. This count excludes the recomputation that some cells,
    such as linear recurrences, perform under every strategy.

    Args:
        cell: A cell, bound or unbound. Bind a cell with dropout to a key, because its
            dropout masks are saved too.
        inputs_shape: The shape of the inputs, `[batch, time, depth]`, or
            `[time, batch, depth]` if `time_major`; or a nest of shapes, arrays and
            `jax.ShapeDtypeStruct`s.
        strategies: A list of values of `swap_memory`.
        dtype: The dtype of the zero state, and of inputs that are given as a shape.
            None for the widest floating-point dtype of the inputs, or float32 if the
            inputs have no floating-point dtype.
        time_major: Whether time is the first axis.
        device: The device to compile for, which does not need to be present: "v5e",
            "v6e", "v5p", "h100", or a compile-only device from
            `jax.experimental.topologies`. None for JAX's default device. TPUs require
            libtpu, `pip install 'jax[tpu]'`. GPUs require JAX's CUDA plugin,
            `pip install 'jax[cuda12-local]'`, and JAX_PLATFORMS=cpu on a machine
            without a GPU.

    Returns:
        A `MemoryPlan`: print it for a table, or read the numbers in its `rows`.

    Raises:
        TypeError: If `cell` is not a cell, if a size is not an integer, if an entry of
            `strategies` is not a strategy, or if `device` is neither a name nor a
            device.
        ValueError: If `inputs_shape` has rank less than 3, if a size or the memory of a
            strategy exceeds what XLA can count, or if no device has that name.
        ImportError: If the compiler for `device` is not installed.
        jax.errors.JaxRuntimeError: If XLA rejects a program that exceeds the memory of
            the device. A note names the strategy, so that you can remove it from
            `strategies`.

    Example:
        >>> import jaxrnn
        >>> cell, shape = jaxrnn.LSTMCell(256), (1000, 8, 256)
        >>> plan = jaxrnn.memory_plan(cell, shape, time_major=True)
        >>> plan.title
        'LSTMCell(num_units=256, activation=tanh) over 1000 steps of 8 rows, float32'
        >>> plan.rows[0].saved.device // 2**20
        48
    """
    check_time_major(time_major)
    fix = "For example, pass `[Keep(), True]`."
    kinds, what = list | tuple, "a list of strategies"
    check_instance("strategies", strategies, kinds, what, fix)
    named = {f"strategies[{i}]": strategy for i, strategy in enumerate(strategies)}
    device = _as_device(device)
    platform = device.platform if device else None
    planned = [as_strategy(k, s, platform=platform) for k, s in named.items()]
    inputs = _as_inputs(inputs_shape, as_dtype(dtype or jnp.float32))
    leaves, axis = jax.tree.leaves(inputs), 0 if time_major else 1
    floats = list(filter(is_float, leaves))
    widest = widest_dtype(floats) if floats else jnp.float32
    dtype = as_dtype(dtype or widest)
    bind, params = _with_params(cell, inputs, dtype, axis)
    # XLA cannot analyze the other implementations, which save the same arrays.
    options = {"dtype": dtype, "time_major": time_major, "implementation": "xla"}
    loss = functools.partial(_loss, bind, options)
    time, batch_size = leaves[0].shape[axis], leaves[0].shape[1 - axis]
    forward = time * _step_flops(loss, params, inputs, axis)
    unbound = cell.cell if _is_bound(cell) else cell
    kind = (device or jax.devices()[0]).device_kind
    title = f"{unbound!r} over {time} steps of {batch_size} rows, {dtype}"
    args = _put((params, inputs), device)
    return MemoryPlan(
        title if kind == "cpu" else f"{title}, on {kind}",
        tuple(_planned(loss, args, s, time, forward) for s in planned),
        inputs=_bytes(leaves),
        outputs=_bytes(jax.tree.leaves(jax.eval_shape(loss, params, inputs)[1])),
        device=kind,
    )


def _as_device(device: Any) -> Any:
    """Converts the argument to a device, or None for JAX's default device."""
    if device is None:
        return None
    what = f"a device or one of {', '.join(map(repr, KINDS))}"
    check_instance("device", device, str | jax.Device, what)
    if isinstance(device, str):
        return absent_devices(device)[0]
    return device


def _put(types: PyTree, device: Any) -> PyTree:
    """Puts types on a one-device mesh, which sets the platform for XLA and drivers.

    If `device` is None, the types do not change.
    """
    if device is None:
        return types
    mesh = Mesh(np.asarray([device]), ("device",))
    whole = NamedSharding(mesh, PartitionSpec())
    put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)
    return jax.tree.map(put, types)


def _loss(
    bind: Callable, options: dict, params: Params, inputs: PyTree, strategy: Any = False
) -> tuple[Any, PyTree]:
    """Returns a loss on the final state, and the outputs."""
    outputs, state = dynamic_rnn(bind(params), inputs, swap_memory=strategy, **options)
    floats = filter(is_float, jax.tree.leaves(state))
    return sum(jnp.sum(x.astype(jnp.float32)) for x in floats), outputs


def _planned(
    loss: Callable, args: tuple, strategy: Strategy, time: int, forward: float
) -> PlannedStrategy:
    scalar = lambda params, inputs: loss(params, inputs, strategy)[0]
    saved = saved_bytes(scalar, *args)
    if sum(saved) > _MOST_BYTES:
        raise InvalidValue(
            f"with {strategy!r}, the run must save at most "
            f"{_size(_MOST_BYTES)}, got {_size(sum(saved))}. Give a smaller "
            "`inputs_shape`."
        )
    with error_note(f"This is the program with {strategy!r}."):
        program = jax.jit(jax.grad(scalar)).lower(*args).compile()
    memory: Any = program.memory_analysis()
    peak = Bytes(memory.temp_size_in_bytes, memory.host_temp_size_in_bytes)
    # Each level of segments adds one forward pass, unless its residuals are saved.
    plan = plan_of(strategy, time)
    passes = len(plan.segments)
    if plan.save_residuals:
        passes -= RESIDUALS in str(jax.make_jaxpr(jax.grad(scalar))(*args))
    return PlannedStrategy(strategy, saved, peak, int(passes * forward), passes / 3)


def _step_flops(loss: Any, params: Params, inputs: PyTree, axis: int) -> float:
    """Counts the operations of one step; XLA counts one iteration of each loop."""
    first = lambda x: jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    step = jax.eval_shape(lambda inputs: jax.tree.map(first, inputs), inputs)
    cost: Any = jax.jit(loss).lower(params, step).compile().cost_analysis()
    return cost["flops"]


def saved_bytes(fn: Callable, *args: Any) -> Bytes:
    """Returns the bytes that are saved for the backward pass, except the arguments."""
    found = []

    def save(*args: Any) -> None:
        residuals = {id(x): x for x in jax.tree.leaves(jax.vjp(fn, *args)[1])}
        for argument in jax.tree.leaves(args):
            residuals.pop(id(argument), None)
        found.extend(map(jax.typeof, residuals.values()))

    jax.eval_shape(save, *args)
    on_host = [t for t in found if t.memory_space == jax.memory.Space.Host]
    return Bytes(_bytes(found) - _bytes(on_host), _bytes(on_host))


def _as_inputs(shape: Any, dtype: DType) -> PyTree:
    """The inputs as `jax.ShapeDtypeStruct`s; shapes get the dtype `dtype`."""

    def as_struct(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        sizes = leaf if _is_shape(leaf) else getattr(leaf, "shape", None)
        if sizes is None or len(sizes) < 3:
            raise InvalidValue(
                f"`{name}` must have rank at least 3, [batch, time, ...], "
                f"got {leaf if _is_shape(leaf) else describe(leaf)}. Pass a shape, an "
                "array or a nest of these."
            )
        of = name if _is_shape(leaf) else f"{name}.shape"
        fix = "Every size is a positive integer."
        args = [(f"{of}[{i}]", size) for i, size in enumerate(sizes)]
        sizes = tuple(as_count(*arg, fix=fix) for arg in args)
        return jax.ShapeDtypeStruct(sizes, getattr(leaf, "dtype", dtype))

    inputs = map_named("inputs_shape", as_struct, shape, _is_shape)
    if not (leaves := jax.tree.leaves(inputs)):
        raise InvalidValue(
            "`inputs_shape` must hold at least one shape or array, got "
            f"{describe(shape)}."
        )
    if _bytes(leaves) > _MOST_BYTES:
        raise InvalidValue(
            f"the inputs must have at most {_size(_MOST_BYTES)}, got "
            f"{_size(_bytes(leaves))}. Give a smaller `inputs_shape`."
        )
    return inputs


def _is_shape(value: Any) -> bool:
    """Whether a value is a tuple or list of numbers, not a nest."""
    is_number = lambda n: isinstance(n, int | float | complex | np.number)
    return isinstance(value, tuple | list) and all(map(is_number, value))


def _is_bound(cell: Any) -> bool:
    return all(hasattr(cell, name) for name in ("cell", "params", "key"))


def _with_params(
    cell: Any, inputs: PyTree, dtype: DType, axis: int
) -> tuple[Callable[[Params], Any], Params]:
    """Returns a function that binds parameters to the cell, and their types."""
    if _is_bound(cell):
        bind = lambda params: dataclasses.replace(cell, params=params)
        return bind, jax.eval_shape(lambda: cell.params)
    makes_params = ("init", "bind", "state_size")  # Flax cells have no `state_size`.
    if isinstance(cell, type) or not all(hasattr(cell, n) for n in makes_params):
        raise InvalidType(
            "`cell` must be a jaxrnn cell, whose `init` creates parameters "
            f"from shapes, got {describe(cell)}."
        )
    step = jax.eval_shape(lambda xs: first_inputs(xs, axis), inputs)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return cell.bind, jax.eval_shape(lambda key: cell.init(key, step, dtype), key)


def _bytes(arrays: list) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
