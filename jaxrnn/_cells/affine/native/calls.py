"""The native loops as functions of arrays, in the library that pip builds.

Sequences are `[batch, time, size]` or `[time, batch, size]`, float32. The arguments of
a call are the leaves of the argument tuple, in order; a missing argument is None. A
state is a pair `(h, c)` of arrays `[batch, outputs]` and `[batch, units]`, whose sizes
differ if h is projected; c is None unless the cell is an LSTM. A call runs one or more
independent batches, its *entries*, along a new first axis of all arrays, whose size is
1 for an argument that all entries share.
"""

import ctypes
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeAlias, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from ...._base import jax_internals
from ...._base.sharding import as_varying_as
from ...._base.typing import Array, Params, PyTree
from ..supported import NativeCell

_log = logging.getLogger("jaxrnn")

LIBRARY = pathlib.Path(__file__).with_name("libjaxrnn_native.so")
_CALLS = "forward", "backward", "weights", "inputs"

ENTRIES = 0  # The axis of a call's entries.
# The row axis of an array that has no time axis. The axis of the entries comes first.
ROWS = 1
# Marks an array without a row axis, such as a weight matrix.
NO_ROWS = "no rows"

# The type of each field below holds the row axis of the field's arrays. The row axis of
# a sequence depends on the time axis; see `Call`.
PerRow: TypeAlias = Annotated[PyTree, ROWS]
Sequences: TypeAlias = Annotated[PyTree, "time"]
Shared: TypeAlias = Annotated[PyTree, NO_ROWS]


class ForwardArgs(NamedTuple):
    """The arguments of the forward loop.

    Attributes:
        lengths: int32 `[batch]`, the number of steps of each row.
        restarts: int32 `[batch, time]` or `[time, batch]`, like `x`: 1 where a row gets
            its restart state before a step, otherwise 0. None if there are no restarts.
        x: The inputs.
        weights: `(kernel, bias)` of each matrix product: arrays `[rows, columns]` and
            `[columns]`, or None. The first rows of a kernel multiply the inputs, if the
            product reads them.
        elementwise: The parameters of an LSTM's element-wise operations: the peepholes
            of gates f, i and o, `[3, units]`, or the shifts and gains of the layer
            normalization of f, i, o, c and j, `[10, units]`. None for other cells.
        state: `(h, c)` before the first step.
        restart_states: The restart states `(h, c)`; None if there are no restarts.
    """

    lengths: PerRow
    restarts: Sequences
    x: Sequences
    weights: Shared
    elementwise: Shared
    state: PerRow
    restart_states: PerRow


class ForwardResults(NamedTuple):
    """The results of the forward loop.

    Attributes:
        outputs: h after each step; zeros in finished rows.
        last: The state after the last step of each row.
        new_c: c after each step if `Call.new_states`, otherwise None.
        zs: The matrix products; empty if nothing is saved. The products are finite in
            finished rows.
        saved: The state before each step, after any restart; zeros in finished rows. If
            there are no restarts, the saved h is None, because h is the previous step's
            output.
    """

    outputs: Sequences
    last: PerRow
    new_c: Sequences
    zs: Sequences
    saved: Sequences


class BackwardArgs(NamedTuple):
    """The arguments of the backward loop; the prefix `ct_` marks cotangents.

    Attributes:
        lengths: As in `ForwardArgs`.
        restarts: As in `ForwardArgs`.
        kernels: The kernel of each product.
        elementwise: As in `ForwardArgs`.
        zs: As in `ForwardResults`.
        saved: As in `ForwardResults`, except that h is `outputs` if there are no
            restarts.
        h: The initial h; None if there are restarts.
        ct_outputs: The cotangents of `outputs`.
        ct_new_c: The cotangents of `new_c`.
        ct_last: The cotangents of `last`.
    """

    lengths: PerRow
    restarts: Sequences
    kernels: Shared
    elementwise: Shared
    zs: Sequences
    saved: Sequences
    h: PerRow
    ct_outputs: Sequences
    ct_new_c: Sequences
    ct_last: PerRow


class BackwardResults(NamedTuple):
    """The results of the backward loop.

    Attributes:
        ct_zs: The cotangents of `zs`, in the memory of `zs` unless several entries
            share `zs`; undefined in finished rows.
        computed: The operand that a step computes from h, for the product whose operand
            in `NativeCell` is "computed"; zeros in finished rows. None if there is no
            such product.
        ct_state: The cotangents of `state`.
        ct_restart_states: The cotangents of `restart_states`.
        ct_elementwise: The cotangents of `elementwise`, separately for each row:
            `[batch, 3, units]` or `[batch, 10, units]`.
    """

    ct_zs: Sequences
    computed: Sequences
    ct_state: PerRow
    ct_restart_states: PerRow
    ct_elementwise: PerRow


@dataclasses.dataclass(frozen=True)
class Call:
    """The static arguments of all calls.

    Attributes:
        cell: The cell.
        settings: The cell's number and settings, which the loops read.
        axis: The time axis, 0 or 1.
        time: The number of steps.
        depth: The size of the inputs.
        units: The size of a gate.
        outputs: The size of h, which differs from `units` if h is projected.
        restarts: Whether there are restarts.
        elementwise: Whether the cell has parameters of element-wise operations.
        new_states: Whether a call returns the state after each step.
    """

    cell: NativeCell
    settings: dict[str, Any]
    axis: int
    time: int
    depth: int
    units: int
    outputs: int
    restarts: bool
    elementwise: bool
    new_states: bool

    def forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        """Runs all steps; axes that `vmap` maps become part of this call.

        Args:
            args: The arguments.
            save: Whether to return the values that the backward loop reads.
        """
        run = functools.partial(self._forward, save=save)
        return self._in_one_call(run, args, ForwardResults)

    def backward(self, args: BackwardArgs) -> BackwardResults:
        """Runs all steps backward; axes that `vmap` maps become part of this call."""
        return self._in_one_call(self._backward, args, BackwardResults)

    def weights(
        self,
        lengths: Array,
        xs: Array | None,
        operand: Array | None,
        first: Array | None,
        ct_z: Array,
        bias: bool,
    ) -> Params:
        """Returns the cotangents of a product's parameters.

        Axes that `vmap` maps become part of this call.

        Args:
            lengths: The number of steps of each row, int32 `[batch]`.
            xs: The inputs, or None if the product does not read them.
            operand: What the state's matrix multiplied at each step: h of `saved`, or
                `BackwardResults.computed`; None if there was no such product.
            first: The operand of the first step if each later step multiplied the
                `operand` of the previous step; otherwise None.
            ct_z: The cotangents of the product.
            bias: Whether the product has a bias.

        Returns:
            `{"kernel": [rows, columns], "bias": [columns]}`, without the bias if the
            product has none.
        """
        columns = ct_z.shape[-1]
        depth = 0 if xs is None else self.depth
        units = 0 if operand is None else operand.shape[-1]
        types = {"kernel": _float32(depth + units, columns)}
        if bias:
            types["bias"] = _float32(columns)
        static = {
            "depth": depth,
            "units": units,
            "columns": columns,
            "before": first is not None,
            "bias": bias,
        }

        # JAX caches `run`, and would keep alive the arrays that `run` closes over.
        def run(*args: PyTree) -> Params:
            results = self._run("weights", args, list(types.values()), **static)
            return dict(zip(types, results, strict=True))

        return in_one_call(run, NO_ROWS, NO_ROWS)(lengths, xs, operand, first, ct_z)

    def inputs(self, lengths: Array, pairs: list[tuple[Array, Array]]) -> Array:
        """Returns the cotangent of the inputs.

        Axes that `vmap` maps become part of this call.

        Args:
            lengths: int32 `[batch]`.
            pairs: For each product that reads the inputs, the kernel `[rows, columns]`
                and the cotangents of the product.
        """

        def run(lengths: Array, pairs: list[tuple[Array, Array]]) -> Array:
            types = _float32(*pairs[0][1].shape[1:3], self.depth)
            rows, columns = np.array([w.shape[-2:] for w, _ in pairs]).T
            static = {"rows": rows - self.depth, "columns": columns}
            return self._run("inputs", (lengths, pairs), types, **static)

        in_sequences = self._rows_in_sequences
        axes = ROWS, [(NO_ROWS, in_sequences)] * len(pairs)
        return in_one_call(run, axes, in_sequences)(lengths, pairs)

    @property
    def _rows_in_sequences(self) -> int:
        """The row axis of sequences that have an axis of entries.

        The row axis is 1 in `[entries, batch, time, size]`, and 2 in
        `[entries, time, batch, size]`.
        """
        return 2 - self.axis

    def _in_one_call(
        self, run: Callable, args: ForwardArgs | BackwardArgs, results: type
    ) -> PyTree:
        axes = self._row_axes(type(args))
        return in_one_call(run, (axes,), self._row_axes(results))(args)

    def _row_axes(self, fields: type) -> PyTree:
        """An instance of `fields`, one of the classes above, that holds row axes."""
        hints = get_type_hints(fields, include_extras=True).values()
        axes = [hint.__metadata__[0] for hint in hints]
        return fields(*(self._rows_in_sequences if a == "time" else a for a in axes))

    def _forward(self, args: ForwardArgs, save: bool) -> ForwardResults:
        steps = args.x.shape[1:3]
        h, c = self._states(*steps)
        columns = [jax.tree.leaves(w)[0].shape[-1] for w in args.weights]
        zs = [_float32(*steps, n) for n in columns]
        results = ForwardResults(
            outputs=h,
            last=self._states(args.lengths.shape[ROWS]),
            new_c=c if self.new_states else None,
            zs=zs if save else [],
            saved=(h if self.restarts else None, c) if save else None,
        )
        return self._run("forward", args, results, save=save)

    def _backward(self, args: BackwardArgs) -> BackwardResults:
        batch = args.lengths.shape[ROWS]
        steps = args.zs[0].shape[1:3]
        elementwise = args.elementwise
        has_computed = "computed" in self.cell.operands
        results = BackwardResults(
            ct_zs=[_float32(*z.shape[1:]) for z in args.zs],
            computed=_float32(*steps, self.units) if has_computed else None,
            ct_state=self._states(batch),
            ct_restart_states=self._states(batch) if self.restarts else None,
            ct_elementwise=(
                None if elementwise is None else _float32(batch, *elementwise.shape[1:])
            ),
        )
        before = len(jax.tree.leaves(args[: args._fields.index("zs")]))
        # The first results reuse the memory of `zs`, unless several entries share `zs`.
        has_memory = args.zs[0].shape[0] == entries(args)
        aliases = {before + k: k for k in range(len(args.zs)) if has_memory}
        return self._run("backward", args, results, aliases)

    def _states(self, *first: int) -> tuple:
        """The types of states `(h, c)` whose first axes have the given sizes."""
        c = _float32(*first, self.units) if self.cell.has_c else None
        return _float32(*first, self.outputs), c

    def _run(
        self,
        name: str,
        args: PyTree,
        types: PyTree,
        aliases: dict[int, int] | None = None,
        **static: Any,
    ) -> PyTree:
        """Runs a call; returns arrays of the given types for each entry.

        Args:
            name: The name of the call.
            args: The arguments, with entries. The first one is the lengths.
            types: The types of one entry's results.
            aliases: A dict from the index of an argument to the index of the result
                that shares the argument's memory, or None.
            **static: More attributes of the call, or other values of attributes.
        """
        leaves, tree = jax.tree.flatten(types)
        leaves = [_float32(entries(args), *x.shape) for x in leaves]
        call = jax.ffi.ffi_call(
            f"jaxrnn_native_{name}", leaves, input_output_aliases=aliases
        )
        args = as_varying_as(args, args)
        attributes = self.settings | {
            "entries": entries(args),
            "batch": args[0].shape[ROWS],
            "time": self.time,
            "time_major": self.axis == 0,
            "depth": self.depth,
            "units": self.units,
            "outputs": self.outputs,
            "restarts": self.restarts,
            "elementwise": self.elementwise,
            "new_states": self.new_states,
        }
        results = call(*jax.tree.leaves(args), **(attributes | static))
        # In `shard_map`, the types of the call's results do not record that the results
        # vary over devices.
        return tree.unflatten(as_varying_as(args, results))


def _float32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def in_one_call(
    call: Callable[..., PyTree], axes: PyTree, result_axes: PyTree
) -> Callable[..., PyTree]:
    """Wraps `call` as a function of the arrays of one entry.

    The axes that `vmap` maps become rows of one call. If `vmap` maps an array that has
    no row axis, the mapped axes become entries of the call instead.

    Args:
        call: A function of arrays with entries, which closes over no arrays.
        axes: The row axis of each array, or `NO_ROWS`, as a pytree prefix of the
            arguments.
        result_axes: The row axis of each result, or `NO_ROWS`, as a pytree prefix of
            the results.
    """

    @custom_vmap
    def run(*args: PyTree) -> PyTree:
        return call(*args)

    @run.def_vmap
    def _(size: int, in_batched: PyTree, *args: PyTree) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(args)
        batched = jax.tree.leaves(in_batched)
        row_axes = jax.tree.leaves(jax.tree.broadcast(axes, args))
        by_rows = (NO_ROWS, True) not in zip(row_axes, batched, strict=True)
        joined_axes = row_axes if by_rows else [ENTRIES] * len(leaves)
        marks = list(zip(leaves, batched, joined_axes, strict=True))
        count = _common(x.shape[b + n] for x, b, n in marks if n != NO_ROWS)
        joined = [_join(size, count, *mark) for mark in marks]
        results = run(*tree.unflatten(joined))
        out_axes = jax.tree.broadcast(result_axes if by_rows else ENTRIES, results)
        split = functools.partial(_split, size, count)
        results = jax.tree.map(split, results, out_axes)
        return results, jax.tree.map(lambda _: True, results)

    def run_one(*args: PyTree) -> PyTree:
        results = run(*jax.tree.map(lambda x: jnp.expand_dims(x, ENTRIES), args))
        return jax.tree.map(lambda x: jnp.squeeze(x, ENTRIES), results)

    return run_one


def entries(args: PyTree) -> int:
    """The number of entries of a call with the arguments `args`."""
    return _common(x.shape[ENTRIES] for x in jax.tree.leaves(args))


def _common(sizes: Iterable[int]) -> int:
    """The common size of an axis of arrays; an array that entries share has size 1."""
    return next((size for size in sizes if size != 1), 1)


def _join(size: int, count: int, x: Array, is_batched: bool, axis: Any) -> Array:
    """Joins the mapped first axis of `x` with another axis of size `count`."""
    is_shared = axis == ENTRIES and x.shape[is_batched] == 1
    if axis == NO_ROWS or (is_shared and not is_batched):
        return x
    shape = x.shape[is_batched:]
    shape = size, *shape[:axis], count, *shape[axis + 1 :]
    x = jnp.broadcast_to(x, shape)
    return jax.lax.collapse(jnp.moveaxis(x, 0, axis), axis, axis + 2)


def _split(size: int, count: int, x: Array, axis: int) -> Array:
    """Undoes `_join`, for an axis of size `count`."""
    x = x.reshape(*x.shape[:axis], size, count, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def native_status() -> str:
    """Reports, in one line, which loops are used on a single CPU device.

    Returns:
        A text such as "native loops, for avx512", with the instruction set in use
        (`avx512`, `avx2` or `baseline`); or "XLA's loops: " and the reason why native
        loops are unavailable.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.native_status().startswith(("native loops, for ", "XLA's loops: "))
        True
    """
    if reason := why_unusable():
        return f"XLA's loops: {reason}"
    return f"native loops, for {_text('JaxrnnNativeTarget')}"


@functools.cache
def why_unusable() -> str | None:
    """The reason why the native loops cannot run, which is also logged; or None."""
    reason = _why_not_loaded()
    if not reason and (missing := jax_internals.MISSING or register()):
        reason = f"the native loops are incompatible with this JAX: {missing}"
    if reason:
        _log.info("XLA's loops run, because %s.", reason)
    return reason


def _why_not_loaded() -> str | None:
    if not LIBRARY.exists():
        return (
            "the native loops were not built. Install a C++17 compiler, then reinstall "
            "the package"
        )
    try:
        return _text("JaxrnnNativeError") or None
    except (AttributeError, OSError) as error:
        return f"the native loops cannot be loaded: {error}"


@functools.cache
def register() -> str | None:
    """Registers the library's calls with JAX; returns why it failed, or None.

    `import jaxrnn` calls this function. A process can then load and run an executable
    that another process serialized, although it has traced no native loop itself. The
    function takes less than a millisecond, and chooses no instruction set.
    """
    try:
        for name in _CALLS:
            symbol = getattr(_load(), f"JaxrnnNative{name.title()}")
            capsule = jax.ffi.pycapsule(symbol)
            target = f"jaxrnn_native_{name}"
            jax.ffi.register_ffi_target(target, capsule, platform="cpu")
    except (AttributeError, OSError, RuntimeError) as error:
        return str(error)
    return None


def _text(symbol: str) -> str:
    """Calls a function of the library that returns text."""
    function = getattr(_load(), symbol)
    function.restype = ctypes.c_char_p
    return function().decode()


@functools.cache
def _load() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


register()
