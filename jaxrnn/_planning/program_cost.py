"""The cost of a traced program in bytes and operations, without compiling it.

The peak is that of the arrays that are alive at once. Four things that XLA does are
taken into account, each of which the tests show to be needed: elementwise operations
are fused into what reads them; loops and updates write in place; results that nothing
reads are not computed; and zeros that several loops inside one loop fill are copied for
each.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from .._autodiff.jax_internals import ClosedJaxpr, Jaxpr, Var, dce_jaxpr

LOOPS = frozenset(["scan", "while"])
UPDATE, PRODUCT, ZEROS, END = (
    "dynamic_update_slice",
    "dot_general",
    "broadcast_in_dim",
    "end",
)
# The results of all other operations have memory only if one of READERS reads them.
STORED = LOOPS | {"cond", PRODUCT, UPDATE}
READERS = LOOPS | {PRODUCT, END}
CALLS = frozenset(
    ["closed_call", "custom_jvp_call", "differentiable", "jit", "transposable"]
)


class Bytes(NamedTuple):
    """Bytes of the memory of the device and of its host."""

    device: int = 0
    host: int = 0

    @classmethod
    def sum(cls, several: Any) -> "Bytes":
        """The sums for the device and for the host."""
        device, host = 0, 0
        for each in several:
            device, host = device + each.device, host + each.host
        return cls(device, host)


def flops(fn: Callable, *args: Any) -> int:
    """The floating-point operations of all products: two for each multiply-add.

    A loop whose number of iterations is not known counts as one iteration.
    """
    return _flops(_trace(fn, *args))


def saved_bytes(fn: Callable, *args: Any) -> Bytes:
    """What is saved between the passes of a derivative, apart from the arguments."""
    residuals = lambda *args: jax.tree.leaves(jax.vjp(fn, *args)[1])
    jaxpr = jax.make_jaxpr(residuals)(*args).jaxpr
    saved = {v for v in jaxpr.outvars if isinstance(v, Var)} - {*jaxpr.invars}
    return Bytes.sum(map(_bytes, saved))


def peak_bytes(fn: Callable, *args: Any) -> Bytes:
    """The peak of what is alive in `fn`, apart from its arguments and results."""
    jaxpr = _trace(fn, *args)
    outs = Bytes.sum(_bytes(v) for v in jaxpr.outvars if isinstance(v, Var))
    peak = _peak(jaxpr, reusable=0)
    return Bytes(peak.device - outs.device, peak.host - outs.host)


def _trace(fn: Callable, *args: Any) -> Any:
    """The program, without operations whose results nothing reads."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def _flops(jaxpr: Any) -> int:
    return sum(map(_flops_of, jaxpr.eqns))


def _flops_of(eqn: Any) -> int:
    if eqn.primitive.name == PRODUCT:
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    parts = [_flops(inner) for inner in _inner(eqn.params)]
    total = max(parts) if eqn.primitive.name == "cond" else sum(parts)
    return eqn.params.get("length", 1) * total


class _Name:
    """An array of a program in which all calls are inlined."""

    def __init__(self, var: Any) -> None:
        self.size, self.type = _bytes(var), str(var.aval)


class _Op(NamedTuple):
    name: str
    params: dict
    reads: list[_Name]
    results: list[_Name]


def _peak(jaxpr: Any, reusable: int) -> Bytes:
    """The peak of what is alive, apart from the inputs.

    Args:
        jaxpr: The program.
        reusable: The number of its last inputs that it may overwrite.
    """
    inputs = [_Name(v) for v in jaxpr.invars]
    ops: list[_Op] = []
    outs = _write_out(jaxpr, inputs, ops)
    ops.append(_Op(END, {}, outs, []))
    lives = _Lives(ops, inputs[: len(inputs) - reusable])
    alive: dict[_Name, Bytes] = {}
    peaks = [Bytes()]
    for i, op in enumerate(ops):
        stored = [name for name in op.results if lives.has_memory(name)]
        is_copied = reusable and op.name == ZEROS and lives.fill_several_loops(stored)
        copies = 2 if is_copied else 1
        alive |= {name: Bytes.sum([name.size] * copies) for name in stored}
        within = [_peak_within(op, inner) for inner in _inner(op.params)]
        peaks.append(Bytes.sum([*alive.values(), max(within, default=Bytes())]))
        alive = {name: size for name, size in alive.items() if lives.end[name] > i}
    return max(peaks)


def _write_out(jaxpr: Any, inputs: list[_Name], ops: list[_Op]) -> list[_Name]:
    """The results of a program; appends its operations to `ops`, calls inlined."""
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    names |= {v: _Name(v) for v in jaxpr.constvars}
    named = lambda atom: names[atom] if isinstance(atom, Var) else _Name(atom)
    for eqn in jaxpr.eqns:
        reads = list(map(named, eqn.invars))
        if eqn.primitive.name in CALLS:
            results = _write_out(next(_inner(eqn.params)), reads, ops)
        else:
            results = [_Name(v) for v in eqn.outvars]
            ops.append(_Op(eqn.primitive.name, eqn.params, reads, results))
        names |= zip(eqn.outvars, results, strict=True)
    return list(map(named, jaxpr.outvars))


def _peak_within(op: _Op, inner: Any) -> Bytes:
    """The peak inside an operation, apart from its operands and results."""
    if op.name in LOOPS:
        return _peak(inner, reusable=len(op.reads) - _carried(op).start)
    peak, outs = _peak(inner, reusable=0), Bytes.sum(name.size for name in op.results)
    return Bytes(max(0, peak.device - outs.device), max(0, peak.host - outs.host))


class _Lives:
    """Until when the arrays of a program are alive, and which share memory.

    Attributes:
        end: For an array, the last operation that reads it or an array written over it.
        readers: The names of the operations that read it.
        maker: The name of the operation whose result it is.
        over: The array over which it is written.
        filled: For a type of array, the loops that fill zeros of that type.
    """

    def __init__(self, ops: list[_Op], fixed: list[_Name]) -> None:
        self.end: dict[_Name, int] = {}
        self.readers: dict[_Name, set[str]] = {}
        self.maker: dict[_Name, str] = {}
        self.over: dict[_Name, _Name] = {}
        self.filled: dict[str, set[int]] = {}
        for i, op in enumerate(ops):
            self._note(i, op)
        for i, op in enumerate(ops):
            for result, source in _written_over(op):
                if self.end[source] == i and source not in fixed:
                    self.over[result] = source
        for result, source in reversed(self.over.items()):
            self.end[source] = max(self.end[source], self.end.get(result, 0))

    def _note(self, i: int, op: _Op) -> None:
        self.maker |= dict.fromkeys(op.results, op.name)
        for name in op.reads:
            self.end[name] = i
            self.readers.setdefault(name, set()).add(op.name)
            if op.name in LOOPS and self.maker.get(name) == ZEROS:
                self.filled.setdefault(name.type, set()).add(i)

    def fill_several_loops(self, zeros: list[_Name]) -> bool:
        """Whether several loops fill zeros of this type."""
        return any(len(self.filled.get(name.type, ())) > 1 for name in zeros)

    def has_memory(self, name: _Name) -> bool:
        """Whether an array has memory of its own."""
        if name in self.over or name not in self.end:
            return False
        return self.maker[name] in STORED or bool(self.readers[name] & READERS)


def _written_over(op: _Op) -> list[tuple[_Name, _Name]]:
    """Pairs of a result and the operand that it is written over."""
    if op.name == UPDATE:
        return [(op.results[0], op.reads[0])]
    if op.name in LOOPS:
        return list(zip(op.results, op.reads[_carried(op)], strict=False))
    return []


def _carried(op: _Op) -> slice:
    """The operands of a loop that it carries."""
    if op.name == "scan":
        first = op.params["num_consts"]
        return slice(first, first + op.params["num_carry"])
    return slice(op.params["cond_nconsts"] + op.params["body_nconsts"], None)


def _inner(params: dict) -> Iterator[Any]:
    """The programs that an operation holds."""
    for param in params.values():
        for value in param if isinstance(param, tuple | list) else [param]:
            if isinstance(value, ClosedJaxpr):
                yield value.jaxpr
            elif isinstance(value, Jaxpr):
                yield value


def _bytes(atom: Any) -> Bytes:
    aval = atom.aval
    size = math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 0)
    on_host = getattr(aval, "memory_space", None) == jax.memory.Space.Host
    return Bytes(0, size) if on_host else Bytes(size, 0)
